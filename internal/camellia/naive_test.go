package camellia

import (
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"math/bits"
)

// sbox1 is the first S-box as RFC 3713 lists it.
var sbox1 = func() []byte {
	table, err := hex.DecodeString("" +
		"70822cecb327c0e5e4855735ea0cae4123ef6b934519a521ed0e4f4e1d6592bd86b8af8f7ceb1fce3e30dc5f5ec50b1a" +
		"a6e139cad5475d3dd9015ad651566c4d8b0d9a66fbccb02d74122b20f0b18499df4ccbc2347e76056db7a931d11704d7" +
		"14583a61de1b111c320f9c165318f222fe44cfb2c3b57a912408e8a860fc6950aad0a07da1896297545b1e95e0ff64d2" +
		"10c40048a3f775db8a03e6da093fdd94875c8302cd4a90337367f6f39d7fbfe2529bd826c837c63b81966f4b13be632e" +
		"e979a78c9f6ebc8e29f5f9b62ffdb4597898066ae74671bad425ab4288a28dfa7207b955f8eeac0a36492a683c38f1a4" +
		"4028d37bbbc943c115e3adf477c7809e")
	if err != nil || len(table) != 256 {
		panic("the table is not one")
	}
	return table
}()

// naiveF is F.
func naiveF(x, k uint64) uint64 {
	var t, y [8]byte
	binary.BigEndian.PutUint64(t[:], x^k)
	for i, b := range t {
		switch i {
		case 0, 7:
			t[i] = sbox1[b]
		case 1, 4:
			t[i] = bits.RotateLeft8(sbox1[b], 1)
		case 2, 5:
			t[i] = bits.RotateLeft8(sbox1[b], -1)
		default:
			t[i] = sbox1[bits.RotateLeft8(b, 1)]
		}
	}
	for i, from := range []string{"134678", "124578", "123568", "234567", "12678", "23578", "34568", "14567"} {
		for _, j := range from {
			y[i] ^= t[j-'1']
		}
	}
	return binary.BigEndian.Uint64(y[:])
}

func naiveFL(x, k uint64) uint64 {
	l, r := uint32(x>>32), uint32(x)
	r ^= bits.RotateLeft32(l&uint32(k>>32), 1)
	l ^= r | uint32(k)
	return uint64(l)<<32 | uint64(r)
}

func naiveInverse(x, k uint64) uint64 {
	l, r := uint32(x>>32), uint32(x)
	l ^= r | uint32(k)
	r ^= bits.RotateLeft32(l&uint32(k>>32), 1)
	return uint64(l)<<32 | uint64(r)
}

// naive encrypts a block as sections 2.2 and 2.3 of RFC 3713 have it.
func naive(dst, src, key []byte) {
	two := func(b []byte) [2]uint64 { return [2]uint64{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])} }
	kl, kr := two(key), [2]uint64{}
	switch len(key) {
	case 24:
		kr[0] = binary.BigEndian.Uint64(key[16:])
		kr[1] = ^kr[0]
	case 32:
		kr = two(key[16:])
	}
	s := []uint64{0xa09e667f3bcc908b, 0xb67ae8584caa73b2, 0xc6ef372fe94f82be, 0x54ff53a5f1d36f1c, 0x10e527fade682d1d, 0xb05688c2b3e6c1fd}
	a, b := kl[0]^kr[0], kl[1]^kr[1]
	b ^= naiveF(a, s[0])
	a ^= naiveF(b, s[1])
	a, b = a^kl[0], b^kl[1]
	b ^= naiveF(a, s[2])
	a ^= naiveF(b, s[3])
	ka := [2]uint64{a, b}
	a, b = a^kr[0], b^kr[1]
	b ^= naiveF(a, s[4])
	a ^= naiveF(b, s[5])
	kb := [2]uint64{a, b}

	// half returns the first or the second half of k turned to the left by n bits.
	half := func(k [2]uint64, n uint, second bool) uint64 {
		x := new(big.Int).SetUint64(k[0])
		x.Lsh(x, 64).Or(x, new(big.Int).SetUint64(k[1]))
		x.Or(new(big.Int).Lsh(x, n), new(big.Int).Rsh(x, 128-n))
		if !second {
			x.Rsh(x, 64)
		}
		return x.And(x, new(big.Int).SetUint64(^uint64(0))).Uint64()
	}
	var kw, ke, k []uint64
	both := func(to *[]uint64, key [2]uint64, n uint) { *to = append(*to, half(key, n, false), half(key, n, true)) }
	both(&kw, kl, 0)
	if len(key) == 16 {
		both(&k, ka, 0)
		both(&k, kl, 15)
		both(&k, ka, 15)
		both(&ke, ka, 30)
		both(&k, kl, 45)
		k = append(k, half(ka, 45, false), half(kl, 60, true))
		both(&k, ka, 60)
		both(&ke, kl, 77)
		both(&k, kl, 94)
		both(&k, ka, 94)
		both(&k, kl, 111)
		both(&kw, ka, 111)
	} else {
		both(&k, kb, 0)
		both(&k, kr, 15)
		both(&k, ka, 15)
		both(&ke, kr, 30)
		both(&k, kb, 30)
		both(&k, kl, 45)
		both(&k, ka, 45)
		both(&ke, kl, 60)
		both(&k, kr, 60)
		both(&k, kb, 60)
		both(&k, kl, 77)
		both(&ke, ka, 77)
		both(&k, kr, 94)
		both(&k, ka, 94)
		both(&k, kl, 111)
		both(&kw, kb, 111)
	}
	d := two(src)
	d[0], d[1] = d[0]^kw[0], d[1]^kw[1]
	for i := 0; i < len(k); i += 2 {
		if i > 0 && i%6 == 0 {
			d[0], d[1] = naiveFL(d[0], ke[i/3-2]), naiveInverse(d[1], ke[i/3-1])
		}
		d[1] ^= naiveF(d[0], k[i])
		d[0] ^= naiveF(d[1], k[i+1])
	}
	binary.BigEndian.PutUint64(dst, d[1]^kw[2])
	binary.BigEndian.PutUint64(dst[8:], d[0]^kw[3])
}
