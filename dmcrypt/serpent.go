package dmcrypt

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

const serpentRounds = 32

// serpent is a key of Serpent in its bitsliced form, with the words of a block
// little endian, as the kernel has it.
type serpent struct {
	mem *secret.Buffer
	rk  *[serpentRounds + 1][4]uint32 // in mem
}

func newSerpent(key []byte) (block, error) {
	if len(key) == 0 || len(key) > 32 || len(key)%4 != 0 {
		return nil, fmt.Errorf("key of %d bytes", len(key))
	}
	const size = int(unsafe.Sizeof([serpentRounds + 1][4]uint32{}))
	const words = 8 + 4*(serpentRounds+1)
	mem, err := secret.New(size + 4*words)
	if err != nil {
		return nil, err
	}
	m := mem.Bytes()
	rk := (*[serpentRounds + 1][4]uint32)(unsafe.Pointer(&m[0]))
	w := (*[words]uint32)(unsafe.Pointer(&m[size]))
	for i := range len(key) / 4 {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	if len(key) < 32 {
		w[len(key)/4] = 1 // a short key ends in one set bit
	}
	for i := range 4 * (serpentRounds + 1) {
		const golden = 0x9e3779b9
		w[i+8] = bits.RotateLeft32(w[i]^w[i+3]^w[i+5]^w[i+7]^golden^uint32(i), 11)
	}
	for i := range rk {
		k := w[8+4*i:]
		rk[i][0], rk[i][1], rk[i][2], rk[i][3] = serpentBox(3-i, k[0], k[1], k[2], k[3])
	}
	secret.Wipe(m[size:])
	return &serpent{mem, rk}, nil
}

// serpentBox is S-box number n modulo 8.
func serpentBox(n int, a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	switch n & 7 {
	case 0:
		return sbox0(a, b, c, d)
	case 1:
		return sbox1(a, b, c, d)
	case 2:
		return sbox2(a, b, c, d)
	case 3:
		return sbox3(a, b, c, d)
	case 4:
		return sbox4(a, b, c, d)
	case 5:
		return sbox5(a, b, c, d)
	case 6:
		return sbox6(a, b, c, d)
	}
	return sbox7(a, b, c, d)
}

// serpentInverse is the inverse of serpentBox.
func serpentInverse(n int, a, b, c, d uint32) (uint32, uint32, uint32, uint32) {
	switch n & 7 {
	case 0:
		return inverse0(a, b, c, d)
	case 1:
		return inverse1(a, b, c, d)
	case 2:
		return inverse2(a, b, c, d)
	case 3:
		return inverse3(a, b, c, d)
	case 4:
		return inverse4(a, b, c, d)
	case 5:
		return inverse5(a, b, c, d)
	case 6:
		return inverse6(a, b, c, d)
	}
	return inverse7(a, b, c, d)
}

func (s *serpent) Encrypt(dst, src []byte) {
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		a, b, c, d := load(src)
		for i := range serpentRounds {
			k := &s.rk[i]
			a, b, c, d = serpentBox(i, a^k[0], b^k[1], c^k[2], d^k[3])
			if i == serpentRounds-1 {
				break // the last round adds a key instead
			}
			a, c = bits.RotateLeft32(a, 13), bits.RotateLeft32(c, 3)
			b, d = bits.RotateLeft32(b^a^c, 1), bits.RotateLeft32(d^c^a<<3, 7)
			a, c = bits.RotateLeft32(a^b^d, 5), bits.RotateLeft32(c^d^b<<7, 22)
		}
		k := &s.rk[serpentRounds]
		store(dst, a^k[0], b^k[1], c^k[2], d^k[3])
	}
}

func (s *serpent) Decrypt(dst, src []byte) {
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		a, b, c, d := load(src)
		k := &s.rk[serpentRounds]
		a, b, c, d = a^k[0], b^k[1], c^k[2], d^k[3]
		for i := serpentRounds - 1; i >= 0; i-- {
			if i != serpentRounds-1 {
				a, c = bits.RotateLeft32(a, -5)^b^d, bits.RotateLeft32(c, -22)^d^b<<7
				b, d = bits.RotateLeft32(b, -1)^a^c, bits.RotateLeft32(d, -7)^c^a<<3
				a, c = bits.RotateLeft32(a, -13), bits.RotateLeft32(c, -3)
			}
			a, b, c, d = serpentInverse(i, a, b, c, d)
			k := &s.rk[i]
			a, b, c, d = a^k[0], b^k[1], c^k[2], d^k[3]
		}
		store(dst, a, b, c, d)
	}
}

func load(p []byte) (a, b, c, d uint32) {
	return binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]),
		binary.LittleEndian.Uint32(p[8:]), binary.LittleEndian.Uint32(p[12:])
}

func store(p []byte, a, b, c, d uint32) {
	binary.LittleEndian.PutUint32(p, a)
	binary.LittleEndian.PutUint32(p[4:], b)
	binary.LittleEndian.PutUint32(p[8:], c)
	binary.LittleEndian.PutUint32(p[12:], d)
}

func (s *serpent) Wipe() {
	s.mem.Wipe()
	s.rk = nil
}
