package cipher

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/internal/race"
)

func key(m blkcrypto.Mode) []byte {
	k := make([]byte, m.KeySize())
	for i := range k {
		k[i] = byte(i*7 + 1)
	}
	return k
}

func supported() (ms []blkcrypto.Mode) {
	for _, m := range blkcrypto.Modes() {
		if Supported(m) {
			ms = append(ms, m)
		}
	}
	return ms
}

// What every mode promises, whatever the cipher: blkcrypto.md invariants 2, 3, 5
// and 6.
func TestContractOfEveryMode(t *testing.T) {
	for _, m := range supported() {
		for _, unit := range []int{512, 4096} {
			t.Run(fmt.Sprint(m, "/", unit), func(t *testing.T) {
				c, err := New(m, unit, key(m))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Wipe()
				const units = 5
				plain := bytes.Repeat([]byte{0x17}, unit*units)
				var duns []blkcrypto.DUN
				for _, d := range []blkcrypto.DUN{{}, {math.MaxUint32 - 1}, {math.MaxUint64 - 1}, {math.MaxUint64 - 1, math.MaxUint64, 0, 0}} {
					if d.Bytes() <= m.IVSize() {
						duns = append(duns, d)
					}
				}
				for _, dun := range duns {
					src, dst := bytes.Clone(plain), make([]byte, len(plain))
					c.Encrypt(dst, src, dun)
					if !bytes.Equal(src, plain) {
						t.Fatal("source of an encryption changed")
					}
					for u := range units {
						one := make([]byte, unit)
						d, _ := dun.Add(uint64(u))
						c.Encrypt(one, plain[:unit], d)
						if !bytes.Equal(one, dst[u*unit:][:unit]) {
							t.Errorf("dun %x: unit %d of a run differs from the unit alone", dun, u)
						}
						if u > 0 && bytes.Equal(one, dst[:unit]) {
							t.Errorf("dun %x: units 0 and %d are equal", dun, u)
						}
					}
					c.Encrypt(src, src, dun)
					if !bytes.Equal(src, dst) {
						t.Errorf("dun %x: in place differs", dun)
					}
					c.Decrypt(src, dst, dun)
					c.Decrypt(dst, dst, dun)
					if !bytes.Equal(src, plain) || !bytes.Equal(dst, plain) {
						t.Errorf("dun %x: decryption does not give the plaintext", dun)
					}
				}
				if n := testing.AllocsPerRun(20, func() {
					c.Encrypt(plain, plain, duns[0])
					c.Decrypt(plain, plain, duns[0])
				}); n != 0 && !race.Enabled { // under the race detector sync.Pool forgets on purpose
					t.Errorf("%v allocations per call, want 0", n)
				}
				c.Wipe()
				c.Wipe()
			})
		}
	}
}

func TestAESXTSModesAreSupported(t *testing.T) {
	for _, m := range []blkcrypto.Mode{blkcrypto.AES256XTS, blkcrypto.AES128XTS, blkcrypto.AES192XTS} {
		if !Supported(m) {
			t.Errorf("%v is not supported", m)
		}
	}
}

// IEEE 1619-2007, annex B, vector 10.
func TestAES256XTSKnownAnswer(t *testing.T) {
	k, err := hex.DecodeString("2718281828459045235360287471352662497757247093699959574966967627" +
		"3141592653589793238462643383279502884197169399375105820974944592")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(blkcrypto.AES256XTS, 512, k)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	b := make([]byte, 512)
	for i := range b {
		b[i] = byte(i)
	}
	c.Encrypt(b, b, blkcrypto.DUN64(0xff))
	const want = "1c3b3a102f770386e4836c99e370cf9b"
	if have := hex.EncodeToString(b[:16]); have != want {
		t.Errorf("ciphertext begins %s, want %s", have, want)
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	for _, tc := range []struct {
		m         blkcrypto.Mode
		unit, key int
		want      string
	}{
		{0, 512, 64, "no software implementation"},
		{250, 512, 64, "no software implementation"},
		{blkcrypto.AES256XTS, 512, 32, "AES-256-XTS: key of 32 bytes: must be 64"},
		{blkcrypto.AES128XTS, 512, 64, "AES-128-XTS: key of 64 bytes: must be 32"},
		{blkcrypto.AES256XTS, 100, 64, "data unit of 100 bytes"},
	} {
		_, err := New(tc.m, tc.unit, make([]byte, tc.key))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%v, %d, %d bytes): %v, want %q", tc.m, tc.unit, tc.key, err, tc.want)
		}
	}
	if Supported(0) || Supported(250) {
		t.Error("an invalid mode is supported")
	}
}
