package dmcrypt

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, out, err string }{
		{"aes-cbc-plain64", "aes-cbc-plain64", ""},
		{"aes", "aes-cbc-plain", ""},
		{"aes-plain", "aes-cbc-plain", ""},
		{"aes-ecb", "aes-ecb", ""},
		{"aes-ecb-nosuch", "aes-ecb", ""}, // a chain without IV ignores it, as the kernel does
		{"aes:64-cbc-lmk", "aes:64-cbc-lmk", ""},
		{"aes:1-xts-plain64", "aes-xts-plain64", ""},
		{"aes-cbc-essiv:sha256", "aes-cbc-essiv:sha256", ""},
		{"xchacha12,aes-adiantum-plain64", "xchacha12,aes-adiantum-plain64", ""},
		{"cipher_null-ecb", "cipher_null-ecb", ""},
		{"capi:xts(aes)-plain64", "aes-xts-plain64", ""},
		{"capi:ecb(aes)", "aes-ecb", ""},
		{"capi:essiv(cbc(aes),sha256)-plain64", "aes-cbc-essiv:sha256", ""},
		{"capi:cbc(aes)-essiv:sha256", "aes-cbc-essiv:sha256", ""},
		{"capi:cbc(aes)-lmk", "aes:64-cbc-lmk", ""},
		{"capi:adiantum(xchacha20,aes)-plain64", "xchacha20,aes-adiantum-plain64", ""},
		{"", "", `no block cipher ""`},
		{"capi:", "", "not an algorithm"},
		{"capi:)", "", "not an algorithm"},
		{"capi:essiv(", "", "not an algorithm"},
		{"capi:essiv()-plain64", "", "names no hash"},
		{"capi:essiv(cbc(aes),sha256)-benbi", "", "plain64"},
		{"capi:xts(ecb(aes))-plain64", "", "not an algorithm"},
		{"capi:gcm(aes)-random", "", "gcm is authenticated"},
		{"capi:authenc(hmac(sha256),xts(aes))-plain64", "", "authenc is authenticated"},
		{"capi:rfc7539(chacha20,poly1305)-random", "", "rfc7539 is authenticated"},
		{"capi:xts(aes)", "", "needs an IV mode"},
		{"capi:xts(aes)plain64", "", "not an IV mode"},
		{"aes-cbc", "", "needs an IV mode"},
		{"aes(cbc)-plain", "", "parentheses"},
		{"aes:3-cbc-plain64", "", "power of two"},
		{"aes:0-cbc-plain64", "", "power of two"},
		{"aes:2048-cbc-plain64", "", "power of two"},
		{"aes-xts-random", "", "integrity metadata"},
		{"aes-cbc-essiv", "", `no hash ""`},
		{"aes-cbc-essiv:sha1", "", "no key of aes"},
		{"aes-cbc-plain64:7", "", "takes no option"},
		{"aes-xts-eboiv", "", "goes with cbc"},
		{"aes-xts-tcw", "", "goes with cbc"},
		{"aes:2-cbc-elephant", "", "one key"},
		{"cipher_null-cbc-plain", "", "goes with ecb"},
		{"aes-adiantum-plain64", "", "adiantum is over"},
		{"rot13-cbc-plain", "", `no block cipher "rot13"`},
		{"aes-hctr2-plain64", "aes-hctr2-plain64", ""},
		{"capi:hctr2(aes)-plain64", "aes-hctr2-plain64", ""},
		{"serpent-hctr2-plain64", "", "over aes"},
		{"aes-hctr2-essiv:sha256", "", "32 bytes"},
		{"aes-hctr3-plain64", "", `no chain "hctr3"`},
		{"camellia-xts-plain64", "camellia-xts-plain64", ""},
		{"capi:xts(camellia)-plain64", "camellia-xts-plain64", ""},
		{"aes-lrw-benbi", "aes-lrw-benbi", ""},
		{"capi:lrw(aes)-benbi", "aes-lrw-benbi", ""},
		{"twofish-lrw-plain64", "twofish-lrw-plain64", ""},
		{"aes-lrw-essiv:sha256", "", "public"},
		{"aes-cbc-essiv:md5", "aes-cbc-essiv:md5", ""},
		{"aes-cbc-essiv:sha224", "", "no key of aes"},
		{"aes-cbc-essiv:sha512", "", "no key of aes"},
		{"aes-cbc-essiv:wp256", "", `no hash "wp256"`},
		{"serpent-cbc-essiv:sha1", "serpent-cbc-essiv:sha1", ""},
		{"serpent-cbc-essiv:rmd160", "serpent-cbc-essiv:rmd160", ""},
		{"capi:essiv(cbc(aes),md5)-plain64", "aes-cbc-essiv:md5", ""},
		{strings.Repeat("a", MaxSpec+1), "", "are the most"},
	} {
		p, err := Parse(c.in)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%q: %v", c.in, err)
		case c.err == "" && p.String() != c.out:
			t.Errorf("%q means %q, want %q", c.in, p, c.out)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: error %v, want one with %q", c.in, err, c.err)
		}
	}
}

func TestKeySizes(t *testing.T) {
	for _, c := range []struct {
		cipher  string
		fit, no []int
	}{
		{"aes-cbc-plain64", []int{16, 24, 32}, []int{-1, 0, 15, 17, 33, 64}},
		{"aes-xts-plain64", []int{32, 48, 64}, []int{0, 16, 63, 128}},
		{"sm4-cbc-plain64", []int{16}, []int{0, 24, 32}},
		{"xchacha12,aes-adiantum-plain64", []int{32}, []int{0, 16, 64}},
		{"aes:64-cbc-lmk", []int{1024, 1040, 1560, 2048, 2080}, []int{0, 16, 1025, 1039, 1056}},
		{"aes-cbc-tcw", []int{48, 56, 64}, []int{0, 16, 32, 49}},
		{"aes-cbc-elephant", []int{32, 48, 64}, []int{0, 16, 33, 128}},
		{"aes:2-cbc-plain64", []int{32, 48, 64}, []int{16, 33}},
		{"cipher_null-ecb", []int{0}, []int{1, 16}},
		{"aes-lrw-benbi", []int{32, 40, 48}, []int{0, 15, 16, 24, 64}},
		{"camellia-xts-plain64", []int{32, 48, 64}, []int{0, 16, 24, 80}},
		{"aes-hctr2-plain64", []int{16, 24, 32}, []int{0, 15, 48, 64}},
		{"serpent-cbc-essiv:sha1", []int{16, 24, 32}, []int{0, 20}},
	} {
		p, err := Parse(c.cipher)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.fit {
			if err := p.CheckKey(n); err != nil {
				t.Errorf("%s: %v", c.cipher, err)
			}
		}
		for _, n := range c.no {
			if p.CheckKey(n) == nil {
				t.Errorf("%s takes a key of %d bytes", c.cipher, n)
			}
		}
	}
}

// FuzzParse: what is taken prints in full, and that means the same; every key that
// fits makes a cipher that undoes what it does.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"aes-cbc-essiv:sha256", "capi:essiv(cbc(aes),sha256)-plain64", "aes:64-cbc-lmk", "xchacha20,aes-adiantum-plain64",
		"serpent-xts-benbi", "cipher_null-ecb", "aes", "capi:lmk(-", "aes-lrw-benbi", "camellia-cbc-essiv:md5", "capi:hctr2(aes)-plain64", "capi:authenc(", "twofish:2-cbc-tcw", "aes-cbc-elephant"} {
		f.Add(s, 64)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		p, err := Parse(s)
		if err != nil {
			if p != (Spec{}) {
				t.Errorf("%q: a spec and an error", s)
			}
			return
		}
		again, err := Parse(p.String())
		if err != nil || again != p {
			t.Fatalf("%q prints as %q, which is %+v, %v", s, p, again, err)
		}
		if n > 4096 || p.CheckKey(n) != nil {
			return
		}
		c, err := New(p, Options{SectorSize: 512}, make([]byte, n))
		if err != nil {
			t.Fatalf("%q with %d bytes: %v", s, n, err)
		}
		defer c.Wipe()
		plain := []byte(strings.Repeat("0123456789abcdef", 32))
		got := make([]byte, 512)
		c.Encrypt(got, plain, 77)
		c.Decrypt(got, got, 77)
		if string(got) != string(plain) {
			t.Errorf("%q does not undo what it does", s)
		}
	})
}
