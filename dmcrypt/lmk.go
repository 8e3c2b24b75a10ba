package dmcrypt

import (
	"crypto/subtle"
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

// lmkSeed is the size in bytes of the seed of loop-AES version 3.
const lmkSeed = 16

// lmk is loop-AES's multi-key mode: the IV is the raw state of MD5 over the seed,
// if there is one, the sector but its first block, and its number. When reading
// the data must be known first: the first block is decrypted with a null IV.

// newLMK keeps the state of MD5 behind the seed, padded to one block of 64 bytes.
func newLMK(seed []byte) (*secret.Buffer, error) {
	const state, padded = 16, 64
	mem, err := secret.New(state + padded)
	if err != nil {
		return nil, err
	}
	m := mem.Bytes()
	h := (*[4]uint32)(unsafe.Pointer(&m[0]))
	*h = md5Start
	if len(seed) > 0 {
		secret.Move(m[state:], seed[:lmkSeed])
		md5Block(h, m[state:])
		secret.Wipe(m[state:])
	}
	return mem, nil
}

// lmk writes the IV of a sector that holds plain.
func (c *Cipher) lmk(iv, plain []byte, n uint64) {
	h := *(*[4]uint32)(unsafe.Pointer(&c.secrets.Bytes()[0]))
	const last = 512 - 64 + blockSize
	for at := blockSize; at < last; at += 64 {
		md5Block(&h, plain[at:])
	}
	var tail [64]byte
	copy(tail[:], plain[last:])
	p := tail[64-blockSize:]
	binary.LittleEndian.PutUint32(p, uint32(n))
	binary.LittleEndian.PutUint32(p[4:], uint32(n>>32)&0xffffff|1<<31) // 56 bits of the number
	binary.LittleEndian.PutUint32(p[8:], 4024)                         // bits of all this, as MD5 would say without the seed
	md5Block(&h, tail[:])
	for i, w := range h {
		binary.LittleEndian.PutUint32(iv[4*i:], w)
	}
	wipe(&tail)
	wipe(&h)
}

// lmkFirst finishes the first block of a decrypted sector.
func (c *Cipher) lmkFirst(p []byte, s *scratch, n uint64) {
	c.lmk(s.chain[:], p, n)
	subtle.XORBytes(p[:blockSize], p[:blockSize], s.chain[:])
}

// MD5 (RFC 1321) block by block, since the IV is its state before the padding that
// the standard library insists on.

var (
	md5Start = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	md5Turns = [4][4]int{{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}}
	md5Adds  = md5Sines()
)

func md5Sines() (t [64]uint32) {
	for i := range t {
		t[i] = uint32(math.Floor(math.Abs(math.Sin(float64(i+1))) * (1 << 32)))
	}
	return t
}

// md5Block takes the first 64 bytes of p into the state.
func md5Block(h *[4]uint32, p []byte) {
	a, b, c, d := h[0], h[1], h[2], h[3]
	for i := range 64 {
		var f uint32
		var at int
		switch i / 16 {
		case 0:
			f, at = b&c|^b&d, i
		case 1:
			f, at = d&b|^d&c, 5*i+1
		case 2:
			f, at = b^c^d, 3*i+5
		default:
			f, at = c^(b|^d), 7*i
		}
		f += a + md5Adds[i] + word(p, at&15)
		a, d, c, b = d, c, b, b+bits.RotateLeft32(f, md5Turns[i/16][i%4])
	}
	h[0], h[1], h[2], h[3] = h[0]+a, h[1]+b, h[2]+c, h[3]+d
}
