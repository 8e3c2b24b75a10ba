package dmcrypt

import (
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

// lrwTweak is the size in bytes of LRW's second key, behind that of the cipher.
const lrwTweak = 16

// lrw is LRW (Liskov, Rivest and Wagner, "Tweakable Block Ciphers", 2002) as drafts of
// IEEE 1619 had it before XTS: to each block, before and after the cipher, is added
// the product of its number and the second key in GF(2^128). Numbers, keys and
// products are big endian, the highest bit of the first byte being that of x^127.
//
// From one number to the next some low bits change, so the products differ by the key
// times 2^n-1; these are at hand, as the sums of the key times the powers of two.
// The numbers are public: an IV mode that encrypts them is not taken.
type lrw struct {
	b   block
	mem *secret.Buffer
	sum *[129][2]uint64 // in mem: n the key times 2^n-1, the high half first
}

func newLRW(name string, key []byte) (bulk, error) {
	n := len(key) - lrwTweak
	mem, err := secret.New(int(unsafe.Sizeof([129][2]uint64{})))
	if err != nil {
		return nil, err
	}
	b, err := newBlock(name, key[:n])
	if err != nil {
		mem.Wipe()
		return nil, err
	}
	sum := (*[129][2]uint64)(unsafe.Pointer(&mem.Bytes()[0]))
	lrwSums(sum, key[n:])
	return &lrw{b, mem, sum}, nil
}

// lrwSums fills sum.
//
//go:norace
func lrwSums(sum *[129][2]uint64, key []byte) {
	hi, lo := binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:])
	for n := 1; n < len(sum); n++ {
		sum[n][0], sum[n][1] = sum[n-1][0]^hi, sum[n-1][1]^lo
		hi, lo = hi<<1|lo>>63, lo<<1^hi>>63*0x87 // x^128 = x^7 + x^2 + x + 1
	}
}

func (l *lrw) encrypt(dst, src []byte, s *scratch) { l.each(dst, src, s, l.b.Encrypt) }
func (l *lrw) decrypt(dst, src []byte, s *scratch) { l.each(dst, src, s, l.b.Decrypt) }

func (l *lrw) each(dst, src []byte, s *scratch, crypt func(dst, src []byte)) {
	for len(src) > 0 {
		n := min(wide, len(src))
		l.masks(s.masks[:n], s)
		subtle.XORBytes(s.blocks[:n], src[:n], s.masks[:n]) // not in dst: it is no ciphertext yet
		crypt(s.blocks[:n], s.blocks[:n])
		subtle.XORBytes(dst[:n], s.blocks[:n], s.masks[:n])
		dst, src = dst[n:], src[n:]
	}
}

// masks fills m with the products for blocks from the number in iv on, and leaves
// there the next one.
//
//go:norace
func (l *lrw) masks(m []byte, s *scratch) {
	hi, lo := binary.BigEndian.Uint64(s.iv[:]), binary.BigEndian.Uint64(s.iv[8:])
	var h, w uint64
	for i := range 128 {
		if bit(hi, lo, i) {
			h, w = h^l.sum[i][0]^l.sum[i+1][0], w^l.sum[i][1]^l.sum[i+1][1]
		}
	}
	for at := 0; at < len(m); at += blockSize {
		binary.BigEndian.PutUint64(m[at:], h)
		binary.BigEndian.PutUint64(m[at+8:], w)
		n := bits.TrailingZeros64(^lo) // lowest ones, which turn to zeroes
		if lo++; lo == 0 {
			n += bits.TrailingZeros64(^hi)
			hi++
		}
		n = min(n+1, 128)
		h, w = h^l.sum[n][0], w^l.sum[n][1]
	}
	binary.BigEndian.PutUint64(s.iv[:], hi)
	binary.BigEndian.PutUint64(s.iv[8:], lo)
}

func bit(hi, lo uint64, i int) bool {
	if i < 64 {
		return lo>>i&1 != 0
	}
	return hi>>(i-64)&1 != 0
}

func (l *lrw) wipe() {
	l.b.Wipe()
	l.mem.Wipe()
	l.sum = nil
}
