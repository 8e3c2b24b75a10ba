package dmcrypt

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

// Twofish (Schneier, Kelsey, Whiting, Wagner, Hall, Ferguson: "Twofish: A 128-Bit
// Block Cipher", 1998; the sections are its), with the S-boxes and the MDS matrix
// in four tables for each key. The cipher of golang.org/x/crypto copies these to the
// stack for every block, where nobody can wipe them.

// twofishTables is a key. It holds no pointers.
type twofishTables struct {
	s [4][256]uint32
	k [40]uint32
}

// twofishKey is an expanded key in locked memory.
type twofishKey struct {
	mem            *secret.Buffer
	*twofishTables // in mem
}

func newTwofish(key []byte) (block, error) {
	words := len(key) / 8 // of the S-boxes' key; so many are even and odd, too
	if len(key)%8 != 0 || words < 2 || words > 4 {
		return nil, fmt.Errorf("key of %d bytes", len(key))
	}
	const size = int(unsafe.Sizeof(twofishTables{}))
	const scratch = 3 * 4 * 4
	mem, err := secret.New(size + scratch)
	if err != nil {
		return nil, err
	}
	m := mem.Bytes()
	t := (*twofishTables)(unsafe.Pointer(&m[0]))
	secret.Do(func() {
		l := (*[3][4]uint32)(unsafe.Pointer(&m[size])) // even, odd, and the S-boxes' key
		for i := range words {
			l[0][i] = binary.LittleEndian.Uint32(key[8*i:])
			l[1][i] = binary.LittleEndian.Uint32(key[8*i+4:])
			l[2][words-1-i] = reedSolomon(key[8*i:][:8])
		}
		t.expand(l[0][:words], l[1][:words], l[2][:words])
	})
	secret.Wipe(m[size:])
	return &twofishKey{mem, t}, nil
}

// reedSolomon makes a word of the S-boxes' key of eight bytes of the key (4.3).
func reedSolomon(m []byte) (s uint32) {
	for i, row := range [4][8]byte{
		{0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e},
		{0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5},
		{0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19},
		{0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03},
	} {
		for j, c := range row {
			s ^= uint32(product(m[j], c, 0x14d)) << (8 * i)
		}
	}
	return s
}

// product is a times b in GF(2^8) modulo p; its time depends on b alone, a constant.
func product(a, b byte, p int) byte {
	sum, x := 0, int(a)
	for ; b != 0; b >>= 1 {
		sum ^= x * int(b&1)
		x = x<<1 ^ x>>7*p
	}
	return byte(sum)
}

// expand makes round keys (4.3.4) and tables.
func (t *twofishTables) expand(even, odd, sboxes []uint32) {
	const rho = 0x01010101
	for i := range uint32(20) {
		a := permuted(2*i*rho, even)
		b := bits.RotateLeft32(permuted((2*i+1)*rho, odd), 8)
		t.k[2*i] = a + b
		t.k[2*i+1] = bits.RotateLeft32(a+2*b, 9)
	}
	for x := range 256 {
		for j := range 4 {
			t.s[j][x] = mixed(j, substituted(j, byte(x), sboxes))
		}
	}
}

// permuted is the function h (4.3.2).
func permuted(x uint32, l []uint32) (z uint32) {
	for j := range 4 {
		z ^= mixed(j, substituted(j, byte(x>>(8*j)), l))
	}
	return z
}

// substituted takes byte j of a word through the permutations q0 and q1 in turn, with
// a byte of the key between each.
func substituted(j int, y byte, l []uint32) byte {
	for i := len(l) - 1; i >= 0; i-- {
		y = qs[order[i+1][j]][y] ^ byte(l[i]>>(8*j))
	}
	return qs[order[0][j]][y]
}

// order says which of q0 and q1 a byte passes last, and before each word of the key.
var order = [5][4]byte{{1, 0, 1, 0}, {0, 0, 1, 1}, {0, 1, 0, 1}, {1, 1, 0, 0}, {1, 0, 0, 1}}

// mixed is y times column j of the matrix MDS (4.2).
func mixed(j int, y byte) (z uint32) {
	for i, row := range [4][4]byte{
		{0x01, 0xef, 0x5b, 0x5b}, {0x5b, 0xef, 0xef, 0x01}, {0xef, 0x5b, 0x01, 0xef}, {0xef, 0x01, 0xef, 0x5b},
	} {
		z |= uint32(product(y, row[j], 0x169)) << (8 * i)
	}
	return z
}

// qs are q0 and q1, made of permutations of half bytes (4.3.5).
var qs = func() (q [2][256]byte) {
	halves := [2][4]uint64{ // entry 0 is the highest digit
		{0x817d6f320b59eca4, 0xecb81235f4a6709d, 0xba5e6d90c8f32471, 0xd7f4126e9b3085ca},
		{0x28bdf76e31940ac5, 0x1e2b4c376da5f908, 0x4c75169a0ed82b3f, 0xb951c3de647f208a},
	}
	for i, t := range halves {
		at := func(n int, x byte) byte { return byte(t[n]>>(60-4*x)) & 15 }
		for x := range q[i] {
			a, b := byte(x>>4), byte(x&15)
			for n := 0; n < 4; n += 2 {
				a, b = at(n, a^b), at(n+1, a^(b>>1|b<<3&15)^a<<3&15)
			}
			q[i][x] = b<<4 | a
		}
	}
	return q
}()

// g is the S-boxes and MDS (4.1).
func (t *twofishTables) g(x uint32) uint32 {
	return t.s[0][byte(x)] ^ t.s[1][byte(x>>8)] ^ t.s[2][byte(x>>16)] ^ t.s[3][x>>24]
}

func (t *twofishKey) Encrypt(dst, src []byte) {
	k := &t.k
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		a, b, c, d := load(src)
		a, b, c, d = a^k[0], b^k[1], c^k[2], d^k[3]
		for r := 8; r < 40; r += 4 {
			x, y := t.g(a), t.g(bits.RotateLeft32(b, 8))
			c = bits.RotateLeft32(c^(x+y+k[r]), -1)
			d = bits.RotateLeft32(d, 1) ^ (x + 2*y + k[r+1])
			x, y = t.g(c), t.g(bits.RotateLeft32(d, 8))
			a = bits.RotateLeft32(a^(x+y+k[r+2]), -1)
			b = bits.RotateLeft32(b, 1) ^ (x + 2*y + k[r+3])
		}
		store(dst, c^k[4], d^k[5], a^k[6], b^k[7])
	}
}

func (t *twofishKey) Decrypt(dst, src []byte) {
	k := &t.k
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		c, d, a, b := load(src)
		a, b, c, d = a^k[6], b^k[7], c^k[4], d^k[5]
		for r := 36; r >= 8; r -= 4 {
			x, y := t.g(c), t.g(bits.RotateLeft32(d, 8))
			a = bits.RotateLeft32(a, 1) ^ (x + y + k[r+2])
			b = bits.RotateLeft32(b^(x+2*y+k[r+3]), -1)
			x, y = t.g(a), t.g(bits.RotateLeft32(b, 8))
			c = bits.RotateLeft32(c, 1) ^ (x + y + k[r])
			d = bits.RotateLeft32(d^(x+2*y+k[r+1]), -1)
		}
		store(dst, a^k[0], b^k[1], c^k[2], d^k[3])
	}
}

func (t *twofishKey) Wipe() {
	t.mem.Wipe()
	t.twofishTables = nil
}
