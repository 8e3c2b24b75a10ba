package argon2

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/blake2b"
)

// each runs f with every implementation that this CPU has.
func each(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if avx2 {
		t.Run("avx2", f)
		setAVX2(false)
		defer setAVX2(true)
	}
	t.Run("generic", f)
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// RFC 9106, sections 5.2 and 5.3.
func TestVectors(t *testing.T) {
	in := inputs{
		passphrase: bytes.Repeat([]byte{1}, 32), salt: bytes.Repeat([]byte{2}, 16),
		secret: bytes.Repeat([]byte{3}, 8), data: bytes.Repeat([]byte{4}, 12),
	}
	each(t, func(t *testing.T) {
		for v, want := range map[Variant]string{
			Argon2i:  "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8",
			Argon2id: "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659",
		} {
			got := make([]byte, 32)
			if err := derive(context.Background(), got, in, Params{v, 3, 32, 4}); err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(got) != want {
				t.Errorf("%v: %x, want %s", v, got, want)
			}
		}
	})
}

func theirs(v Variant, passphrase, salt []byte, p Params, n int) []byte {
	f := argon2.IDKey
	if v == Argon2i {
		f = argon2.Key
	}
	return f(passphrase, salt, uint32(p.Time), uint32(p.Memory), uint8(p.Lanes), uint32(n))
}

func TestEqualsXCrypto(t *testing.T) {
	each(t, func(t *testing.T) {
		r := seeded(t)
		for range 60 {
			p := Params{Variant(1 + r.IntN(2)), 1 + r.IntN(4), 0, 1 + r.IntN(5)}
			if r.IntN(30) == 0 {
				p.Lanes = 255
			}
			p.Memory = 8*p.Lanes + r.IntN(300) // any remainder
			if r.IntN(5) == 0 {
				p.Memory += 2000 // segments of more than 128 blocks
			}
			pass, salt, n := random(r, r.IntN(300)), random(r, r.IntN(70)), 4+r.IntN(300)
			got := make([]byte, n)
			if err := Key(context.Background(), got, pass, salt, p); err != nil {
				t.Fatal(err)
			}
			if want := theirs(p.Variant, pass, salt, p, n); !bytes.Equal(got, want) {
				t.Fatalf("%+v, passphrase %x, salt %x:\n%x, want\n%x", p, pass, salt, got, want)
			}
		}
	})
}

func TestBLAKE2bEqualsXCrypto(t *testing.T) {
	r := seeded(t)
	for n := range 400 {
		size := 1 + r.IntN(64)
		in := random(r, n)
		h, err := blake2b.New(size, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(in)
		var b blake
		b.reset(size)
		for cut := in; len(cut) > 0; {
			k := 1 + r.IntN(len(cut))
			b.write(cut[:k])
			cut = cut[k:]
		}
		got := make([]byte, size)
		b.sum(got)
		if want := h.Sum(nil); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes of %x: %x, want %x", size, in, got, want)
		}
	}
}

// The halves of the assembly are not those of the portable code: what comes out is.
func TestMixingsAgree(t *testing.T) {
	if !avx2 {
		t.Skip("one implementation only")
	}
	r := seeded(t)
	for range 200 {
		var b [4]block // work, prev, ref, dst
		for i := range b {
			for j := range b[i] {
				b[i][j] = r.Uint64()
			}
		}
		c := b
		var oldB, oldC *block
		if r.IntN(2) == 0 {
			oldB, oldC = &b[3], &c[3]
		}
		got := mixFirst(&b[0], &b[1], &b[2], oldB)
		mixLast(&b[3], &b[0], &b[1], &b[2], oldB, &b[1])
		want := mixFirstGeneric(&c[0], &c[1], &c[2], oldC)
		mixLastGeneric(&c[3], &c[0], &c[1], &c[2], oldC)
		if got != want || got != b[3][0] {
			t.Fatalf("first word %x, want %x and %x", got, want, b[3][0])
		}
		if b[1] != c[1] || b[2] != c[2] || b[3] != c[3] {
			t.Fatal("the blocks differ")
		}
	}
}

func BenchmarkMix(b *testing.B) {
	var work, x, y, z block
	for _, add := range []bool{false, true} {
		b.Run(fmt.Sprintf("add=%v", add), func(b *testing.B) {
			var old *block
			if add {
				old = &z
			}
			for b.Loop() {
				mixFirst(&work, &x, &y, old)
				mixLast(&z, &work, &x, &y, old, &x)
			}
		})
	}
}

func BenchmarkKey(b *testing.B) {
	for _, p := range []Params{{Argon2id, 4, 64 << 10, 1}, {Argon2id, 4, 64 << 10, 4}, {Argon2id, 4, 1 << 20, 1}, {Argon2id, 4, 1 << 20, 4}, {Argon2i, 4, 64 << 10, 1}} {
		salt, dst := make([]byte, 16), make([]byte, 64)
		name := fmt.Sprintf("%v t=%d m=%d p=%d", p.Variant, p.Time, p.Memory, p.Lanes)
		b.Run(name+"/keyway", func(b *testing.B) {
			for b.Loop() {
				if err := Key(context.Background(), dst, []byte("passphrase"), salt, p); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/xcrypto", func(b *testing.B) {
			for b.Loop() {
				theirs(p.Variant, []byte("passphrase"), salt, p, 64)
			}
		})
	}
}
