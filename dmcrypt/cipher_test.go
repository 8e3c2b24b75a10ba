package dmcrypt

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/race"
)

// every is a cipher of each kind, with a key that fits.
var every = map[string]int{
	"aes-cbc-plain64": 32, "aes-ecb": 16, "aes-xts-benbi": 64, "sm4-cbc-plain64": 16, "sm4-xts-plain64": 32, "serpent-xts-plain64": 64,
	"serpent-cbc-essiv:sha256": 24, "twofish-xts-plain64": 32, "xchacha20,aes-adiantum-plain64": 32, "aes:2-cbc-essiv:sha256": 64,
	"aes-cbc-elephant": 64, "aes-cbc-eboiv": 32, "aes:64-cbc-lmk": 1040, "aes-cbc-tcw": 48, "cipher_null-ecb": 0,
	"aes-hctr2-plain64": 32, "camellia-xts-plain64": 64, "camellia-cbc-essiv:md5": 24, "aes-lrw-benbi": 48, "twofish-lrw-plain64": 32,
	"aes-cbc-essiv:sha256": 32, "serpent-cbc-essiv:rmd160": 32,
}

func opened(t *testing.T, cipher string, n int) (*Cipher, []byte) {
	t.Helper()
	p, err := Parse(cipher)
	if err != nil {
		t.Fatal(err)
	}
	key := dataunittest.Random(rand.New(rand.NewPCG(3, 4)), n)
	c, err := New(p, Options{SectorSize: 512}, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c, key
}

// TestWipe: a wiped cipher is of no use, its memory is given back, and neither the
// making nor the use of one leaves the key on the stack.
func TestWipe(t *testing.T) {
	for cipher, n := range every {
		t.Run(cipher, func(t *testing.T) {
			c, key := opened(t, cipher, n)
			buf := make([]byte, 2048)
			if n > 0 {
				secrets := [][]byte{key[:16], key[n-16:]}
				dataunittest.Forgets(t, func() {
					if c, err := New(c.spec, Options{SectorSize: 512}, key); err == nil {
						c.Wipe()
					}
				}, secrets...)
				dataunittest.Forgets(t, func() { c.Encrypt(buf, buf, 1) }, secrets...)
				dataunittest.Forgets(t, func() { c.Decrypt(buf, buf, 1) }, secrets...)
			}
			held := []block{}
			for _, b := range c.bulks {
				switch b := b.(type) {
				case *cbc:
					held = append(held, b.b)
				case *slowXTS:
					held = append(held, b.data, b.tweak)
				case ecb:
					held = append(held, b.b)
				case *lrw:
					held = append(held, b.b)
					mem := b.mem
					defer func() {
						if !mem.Wiped() {
							t.Error("the products of LRW are left")
						}
					}()
				}
			}
			c.Wipe()
			c.Wipe()
			for _, b := range append(held, c.number...) {
				switch b := b.(type) {
				case *serpent:
					if !b.mem.Wiped() {
						t.Error("a schedule of Serpent is left")
					}
				case *twofishKey:
					if !b.mem.Wiped() {
						t.Error("a schedule of Twofish is left")
					}
				case null:
				default:
					panics(t, "block cipher used after Wipe", func() { b.Encrypt(buf[:16], buf[:16]) })
				}
			}
			if c.secrets != nil && !c.secrets.Wiped() {
				t.Error("the secret of the IV mode is left")
			}
			panics(t, "use after Wipe", func() { c.Encrypt(buf, buf, 0) })
			panics(t, "use after Wipe", func() { c.Decrypt(buf, buf, 0) })
		})
	}
}

func panics(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

func TestMisusePanics(t *testing.T) {
	p, err := Parse("aes-cbc-plain64")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(p, Options{SectorSize: 4096}, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	b := make([]byte, 8192)
	panics(t, "half a sector", func() { c.Encrypt(b, b[:4096+512], 0) })
	panics(t, "a short output", func() { c.Decrypt(b[:4096], b, 0) })
	panics(t, "a number within a sector", func() { c.Encrypt(b, b, 4) })
	c.Encrypt(nil, nil, 8)
	for _, o := range []Options{{}, {SectorSize: 256}, {SectorSize: 8192}, {SectorSize: 1536}} {
		if _, err := New(p, o, make([]byte, 16)); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if lmk, err := Parse("aes-cbc-lmk"); err != nil || lmk.CheckSector(1024) == nil {
		t.Errorf("lmk takes sectors of 1024 bytes (%v)", err)
	}
}

// TestConcurrentUse: one cipher serves many at once, the same as one.
func TestConcurrentUse(t *testing.T) {
	for cipher, n := range every {
		c, _ := opened(t, cipher, n)
		plain := dataunittest.Random(rand.New(rand.NewPCG(5, 6)), 4096)
		want := make([]byte, len(plain))
		c.Encrypt(want, plain, 40)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				buf := bytes.Clone(plain)
				for range 5 {
					c.Encrypt(buf, buf, 40)
					if !bytes.Equal(buf, want) {
						t.Errorf("%s: another ciphertext in company", cipher)
					}
					c.Decrypt(buf, buf, 40)
				}
				if !bytes.Equal(buf, plain) {
					t.Errorf("%s: another plaintext in company", cipher)
				}
			})
		}
		wg.Wait()
	}
}

func TestNoAllocation(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties pools")
	}
	for cipher, n := range every {
		c, _ := opened(t, cipher, n)
		buf := make([]byte, 2048)
		if n := testing.AllocsPerRun(20, func() { c.Encrypt(buf, buf, 8); c.Decrypt(buf, buf, 8) }); n != 0 {
			t.Errorf("%s: %v allocations in a call", cipher, n)
		}
	}
}
