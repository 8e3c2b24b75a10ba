package naive

import (
	"crypto/aes"
	"encoding/binary"
	"math/big"
	"math/bits"
)

// Adiantum is the cipher straight from the paper (sections 2.1 to 2.4 and
// appendix A): integers are big.Int, the stream is made block by block. Data units
// may have any length from 16 bytes and tweaks any length.
type Adiantum struct {
	key     []byte
	rounds  int
	derived []byte // K_E, K_T, K_M, K_N
}

// NewAdiantum derives the keys of the parts.
func NewAdiantum(key []byte, rounds int) Adiantum {
	return Adiantum{key, rounds, XChaCha(key, []byte{1}, rounds, 32+16+16+1072)}
}

// Crypt transforms one data unit.
//
//go:norace
func (c Adiantum) Crypt(dst, src, tweak []byte, decrypt bool) {
	block, err := aes.NewCipher(c.derived[:32])
	if err != nil {
		panic(err)
	}
	hash := func(left []byte) *big.Int { return adiantumHash(c.derived[32:], tweak, left) }

	n := len(src) - 16
	left, right := append([]byte(nil), src[:n]...), src[n:]
	middle := little(new(big.Int).Add(number(right), hash(left)), 16)
	nonce := append([]byte(nil), middle...)
	if decrypt {
		block.Decrypt(middle, middle)
	} else {
		block.Encrypt(middle, middle)
		copy(nonce, middle)
	}
	for i, b := range XChaCha(c.key, append(nonce, 1), c.rounds, n) {
		left[i] ^= b
	}
	copy(dst, left)
	copy(dst[n:], little(new(big.Int).Sub(number(middle), hash(left)), 16))
}

// adiantumHash is H(T, L) with the keys K_T, K_M and K_N in a row.
//
//go:norace
func adiantumHash(keys, tweak, left []byte) *big.Int {
	header := append(little(big.NewInt(8*int64(len(left))), 16), tweak...)
	padded := append(append([]byte(nil), left...), make([]byte, -len(left)&15)...)
	var values []byte
	for i := 0; i < len(padded); i += 1024 {
		values = append(values, NH(keys[32:], padded[i:min(i+1024, len(padded))])...)
	}
	return new(big.Int).Add(poly1305(keys[:16], header), poly1305(keys[16:32], values))
}

// NH is the hash of at most 1024 bytes.
//
//go:norace
func NH(key, m []byte) (values []byte) {
	word := func(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	for pass := range 4 {
		var sum uint64
		for i := 0; i < len(m)/4; i += 4 {
			k := key[16*pass:]
			sum += uint64(word(m, i)+word(k, i)) * uint64(word(m, i+2)+word(k, i+2))
			sum += uint64(word(m, i+1)+word(k, i+1)) * uint64(word(m, i+3)+word(k, i+3))
		}
		values = binary.LittleEndian.AppendUint64(values, sum)
	}
	return values
}

// poly1305 is Poly1305 (RFC 8439, section 2.5) without the addition of s.
//
//go:norace
func poly1305(key, m []byte) *big.Int {
	mask, _ := new(big.Int).SetString("0ffffffc0ffffffc0ffffffc0fffffff", 16)
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 130), big.NewInt(5))
	r := new(big.Int).And(number(key), mask)
	h := new(big.Int)
	for len(m) > 0 {
		n := min(16, len(m))
		h.Add(h, number(append(append([]byte(nil), m[:n]...), 1)))
		h.Mul(h, r).Mod(h, p)
		m = m[n:]
	}
	return h
}

// XChaCha is n bytes of the stream; nonce is padded with zeroes to 24 bytes.
//
//go:norace
func XChaCha(key, nonce []byte, rounds, n int) (out []byte) {
	nonce = append(append([]byte(nil), nonce...), make([]byte, 24-len(nonce))...)
	x := chaCha(key, nonce[:16], rounds)
	sub := Words(append(append([]uint32(nil), x[:4]...), x[12:]...))
	for counter := uint64(0); len(out) < n; counter++ {
		last := append(binary.LittleEndian.AppendUint64(nil, counter), nonce[16:]...)
		x := chaCha(sub, last, rounds)
		for i, w := range chaCha(sub, last, 0) {
			x[i] += w
		}
		out = append(out, Words(x[:])...)
	}
	return out[:n]
}

//go:norace
func chaCha(key, last []byte, rounds int) (x [16]uint32) {
	state := append(append([]byte("expand 32-byte k"), key...), last...)
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(state[4*i:])
	}
	for round := range rounds {
		for i := range 4 {
			a, b, c, d := &x[i], &x[4+i], &x[8+i], &x[12+i]
			if round%2 == 1 {
				b, c, d = &x[4+(i+1)%4], &x[8+(i+2)%4], &x[12+(i+3)%4]
			}
			for _, s := range []int{16, 12, 8, 7} {
				*a += *b
				*d = bits.RotateLeft32(*d^*a, s)
				a, b, c, d = c, d, a, b
			}
		}
	}
	return x
}

// Words puts words together, little-endian.
//
//go:norace
func Words(x []uint32) (b []byte) {
	for _, w := range x {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// number reads bytes in little-endian order.
//
//go:norace
func number(b []byte) *big.Int {
	n := new(big.Int)
	for i := len(b) - 1; i >= 0; i-- {
		n.Lsh(n, 8).Or(n, big.NewInt(int64(b[i])))
	}
	return n
}

// little is the residue of x modulo 2^(8n) as n bytes, little endian.
//
//go:norace
func little(x *big.Int, n int) []byte {
	b := make([]byte, n)
	x = new(big.Int).Mod(x, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	for i := range b {
		b[i] = byte(new(big.Int).Rsh(x, uint(8*i)).Uint64())
	}
	return b
}
