package libcrypto

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

func hexed(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// XTS by ECB is code of ours: libcrypto's own XTS checks it where there is one.
func TestXTSByECBEqualsTheLibrarysXTS(t *testing.T) {
	o := Start(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{32, 64} {
		for _, unit := range []int{16, 17, 31, 32, 33, 47, 48, 100, 512, 1000} {
			key, src := dataunittest.Random(r, size), dataunittest.Random(r, 3*unit)
			ivs := dataunittest.Random(r, 3*16)
			for _, decrypt := range []bool{false, true} {
				c := Call{Op: AESXTS, Key: key, Unit: unit, IVs: ivs, Data: src, Decrypt: decrypt}
				want := o.Do(c)
				c.Op = AESXTSByECB
				if got := o.Do(c); !bytes.Equal(got, want) {
					t.Errorf("key of %d bytes, unit %d, decrypt %t: %x, want %x", size, unit, decrypt, got, want)
				}
			}
		}
	}
}

func TestKnownAnswers(t *testing.T) {
	o := Start(t)
	for _, v := range []struct {
		name             string
		op               Op
		key, iv, in, out string
	}{
		{"FIPS 197, appendix C.1", AESECB, "000102030405060708090a0b0c0d0e0f", "",
			"00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
		{"NIST SP 800-38A, F.2.1", AESCBC, "2b7e151628aed2a6abf7158809cf4f3c", "000102030405060708090a0b0c0d0e0f",
			"6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51", "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"},
		{"IEEE 1619-2018, annex B, vector 15", AESXTS, "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0bfbebdbcbbbab9b8b7b6b5b4b3b2b1b0",
			"9a785634120000000000000000000000", "000102030405060708090a0b0c0d0e0f10", "6c1625db4671522d3d7599601de7ca09ed"},
		{"GB/T 32907-2016, appendix A.1", SM4ECB, "0123456789abcdeffedcba9876543210", "",
			"0123456789abcdeffedcba9876543210", "681edf34d206965e86b3e94f536e4246"},
	} {
		key, in, out := hexed(t, v.key), hexed(t, v.in), hexed(t, v.out)
		if !o.Has(v.op, len(key)) {
			t.Errorf("%s: this libcrypto lacks the cipher", v.name)
			continue
		}
		c := Call{Op: v.op, Key: key, Unit: len(in), IVs: hexed(t, v.iv), Data: in}
		if got := o.Do(c); !bytes.Equal(got, out) {
			t.Errorf("%s: %x, want %x", v.name, got, out)
		}
		c.Data, c.Decrypt = out, true
		if got := o.Do(c); !bytes.Equal(got, in) {
			t.Errorf("%s, decrypted: %x, want %x", v.name, got, in)
		}
	}
}

func TestHasTellsWhatTheLibraryLacks(t *testing.T) {
	o := Start(t)
	for _, c := range []struct {
		op   Op
		key  int
		want bool
	}{{AESXTS, 32, true}, {AESXTS, 64, true}, {AESXTS, 48, false}, {AESXTSByECB, 48, true}, {AESCBC, 24, true}, {AESCBC, 17, false}, {SM4XTS, 32, true}} {
		if got := o.Has(c.op, c.key); got != c.want {
			t.Errorf("op %d with a key of %d bytes: %t, want %t", c.op, c.key, got, c.want)
		}
	}
}
