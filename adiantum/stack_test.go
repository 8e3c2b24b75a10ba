package adiantum

import (
	"crypto/subtle"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// What is added to the left part of a data unit is the stream of its key, which nobody
// who sees the ciphertext may see.
func TestStackHoldsNoStreamAfterACall(t *testing.T) {
	const unit, units = 1536, 9 // 23 blocks of the stream and three quarters
	r := rand.New(rand.NewPCG(1, 2))
	key, plain := dataunittest.Random(r, KeySize), dataunittest.Random(r, unit*units)
	for _, name := range Implementations() {
		t.Run(name, func(t *testing.T) {
			c, err := NewWith(name, key, unit)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Wipe()
			secrets, buf := [][]byte{key[:16], key[16:]}, make([]byte, len(plain))
			// The points at which the polynomials are evaluated, and what is made of them.
			k := &c.keys.t
			first := k.value([4]uint64{7})
			for _, w := range []uint64{
				k.r[0], k.r[1], k.square.w0, k.square.w1, k.length.w0, k.length.w1, c.keys.m[0], c.keys.m[1],
				first.w0, first.w1, first.plus(k.square).w0, first.plus(k.square).w1,
			} {
				secrets = append(secrets, binary.NativeEndian.AppendUint64(nil, w))
			}
			c.Encrypt(buf, plain, [4]uint64{7})
			for u := 0; u < len(plain); u += unit {
				for at := u; at < u+unit-blockLen; at += blockLen {
					s := make([]byte, blockLen)
					subtle.XORBytes(s, plain[at:][:blockLen], buf[at:])
					secrets = append(secrets, s)
				}
			}
			dataunittest.Forgets(t, func() { c.Decrypt(buf, buf, [4]uint64{7}) }, secrets...)
			dataunittest.Forgets(t, func() { c.Encrypt(buf, buf, [4]uint64{7}) }, secrets...)
		})
	}
}

func TestStackHoldsNoStreamAfterBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	key, plain := dataunittest.Random(r, KeySize), dataunittest.Random(r, 255)
	b, err := NewBytes(key)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	secrets, buf := [][]byte{key[:16], key[16:]}, make([]byte, len(plain))
	k := &b.c.keys.t
	first := k.valueOf(len(plain)-blockLen, [4]uint64{7})
	for _, w := range []uint64{k.r[0], k.r[1], b.c.keys.m[0], b.c.keys.m[1], first.w0, first.w1} {
		secrets = append(secrets, binary.NativeEndian.AppendUint64(nil, w))
	}
	b.Encrypt(buf, plain, [4]uint64{7})
	for at := 0; at+2*blockLen <= len(plain); at += blockLen {
		s := make([]byte, blockLen)
		subtle.XORBytes(s, plain[at:][:blockLen], buf[at:])
		secrets = append(secrets, s)
	}
	dataunittest.Forgets(t, func() { b.Decrypt(buf, buf, [4]uint64{7}) }, secrets...)
	dataunittest.Forgets(t, func() { b.Encrypt(buf, buf, [4]uint64{7}) }, secrets...)
}
