package fscrypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/sm4"

	"keyway/fscrypt"
	"keyway/test/naive"
)

// nameModes are policies by the mode of their names, with a key of what the test
// derives by itself.
func nameModes(m *fscrypt.MasterKey) map[fscrypt.Mode]fscrypt.Policy {
	return map[fscrypt.Mode]fscrypt.Policy{
		fscrypt.AES256CBCCTS: v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0),
		fscrypt.AES128CBCCTS: v2(m, fscrypt.AES128CBCESSIV, fscrypt.AES128CBCCTS, 0),
		fscrypt.SM4CBCCTS:    v2(m, fscrypt.SM4XTS, fscrypt.SM4CBCCTS, 0),
		fscrypt.AES256HCTR2:  v2(m, fscrypt.AES256XTS, fscrypt.AES256HCTR2, fscrypt.InoLblk64),
		fscrypt.Adiantum:     v1(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey),
	}
}

func names(t testing.TB, f *fscrypt.File) *fscrypt.Names {
	t.Helper()
	n, err := f.Names()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Wipe)
	return n
}

// Names of every length under every padding, against ciphers that share no code.
func TestNamesSameAsReference(t *testing.T) {
	raw := counting(1, 64)
	m := master(t, raw)
	nonce := bytes.Repeat([]byte{9}, 16)
	crypt := map[fscrypt.Mode]func(b []byte) []byte{
		fscrypt.Adiantum: func(b []byte) []byte {
			out, tweak := make([]byte, len(b)), append(append(make([]byte, 8), nonce...), make([]byte, 8)...)
			naive.NewAdiantum(raw[:32], 12).Crypt(out, b, tweak, false)
			return out
		},
	}
	fs := ext4()
	key, err := hkdf.Key(sha512.New, raw, nil, "fscrypt\x00\x04\x0a"+string(fs.UUID[:]), 32)
	if err != nil {
		t.Fatal(err)
	}
	crypt[fscrypt.AES256HCTR2] = func(b []byte) []byte {
		out := make([]byte, len(b))
		naive.HCTR2(key, out, b, append([]byte{0, 0, 0, 0, 5}, make([]byte, 27)...), false)
		return out
	}
	for mode, open := range map[fscrypt.Mode]func([]byte) (cipher.Block, error){
		fscrypt.AES256CBCCTS: aes.NewCipher, fscrypt.AES128CBCCTS: aes.NewCipher, fscrypt.SM4CBCCTS: sm4.NewCipher,
	} {
		b, err := open(derivePerFile(t, raw, nonce, mode.KeySize()))
		if err != nil {
			t.Fatal(err)
		}
		crypt[mode] = func(text []byte) []byte { return naive.CTS(b, text, [16]byte{}, false) }
	}
	for mode, p := range nameModes(m) {
		for pad := range fscrypt.Flags(4) {
			p.Flags = p.Flags&^fscrypt.PadMask | pad
			n := names(t, mustOpen(t, m, ext4(), p, 9, 5))
			for size := 1; size <= fscrypt.MaxName; size++ {
				name := bytes.Repeat([]byte{'a' + byte(size%26)}, size)
				multiple := 4 << pad
				padded := make([]byte, min(255, (max(size, 16)+multiple-1)/multiple*multiple))
				copy(padded, name)
				got, err := n.Encrypt(name)
				if err != nil {
					t.Fatal(err)
				}
				if want := crypt[mode](padded); !bytes.Equal(got, want) {
					t.Fatalf("%v, padded to %d, %d bytes: got %x, want %x", mode, multiple, size, got, want)
				}
				if back, err := n.Decrypt(got); err != nil || !bytes.Equal(back, name) {
					t.Fatalf("%v, padded to %d, %d bytes: decrypted to %q (%v)", mode, multiple, size, back, err)
				}
			}
		}
	}
}

func TestNamesRefused(t *testing.T) {
	m := master(t, counting(1, 64))
	for mode, p := range nameModes(m) {
		n := names(t, mustOpen(t, m, ext4(), p, 9, 5))
		for _, c := range []struct {
			name string
			want error
		}{
			{"", fscrypt.ErrName}, {".", fscrypt.ErrName}, {"..", fscrypt.ErrName}, {"a/b", fscrypt.ErrName}, {"a\x00b", fscrypt.ErrName},
			{"a\x00", fscrypt.ErrName}, {strings.Repeat("n", 256), fscrypt.ErrNameTooLong}, {"...", nil}, {"\xff\xfe", nil},
		} {
			if _, err := n.Encrypt([]byte(c.name)); !errors.Is(err, c.want) {
				t.Errorf("%v: %q: %v, want %v", mode, c.name, err, c.want)
			}
		}
		for _, size := range []int{0, 1, 15, 256, 300} {
			if _, err := n.Decrypt(make([]byte, size)); !errors.Is(err, fscrypt.ErrName) {
				t.Errorf("%v: %d bytes are decrypted: %v", mode, size, err)
			}
		}
		// What the padding of another policy made cannot be looked up here.
		long := p
		long.Flags |= 3
		other, err := names(t, mustOpen(t, m, ext4(), long, 9, 5)).Encrypt([]byte("a name"))
		if err != nil {
			t.Fatal(err)
		}
		if name, err := n.Decrypt(other); !errors.Is(err, fscrypt.ErrName) {
			t.Errorf("%v: a name padded to 32 bytes under a policy that pads to 4 is %q (%v)", mode, name, err)
		}
	}
}

// What is behind the first zero byte is zeroes: the kernel never wrote anything else.
func TestOnlyZeroesArePadding(t *testing.T) {
	raw := counting(1, 64)
	m := master(t, raw)
	n := names(t, mustOpen(t, m, ext4(), nameModes(m)[fscrypt.AES128CBCCTS], 9, 5))
	c, err := aes.NewCipher(derivePerFile(t, raw, bytes.Repeat([]byte{9}, 16), 16))
	if err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{"ab": true, "ab\x00cd": false, "": false, "ab" + strings.Repeat("\x00", 13) + "c": false} {
		b := naive.CTS(c, append([]byte(text), make([]byte, 16-len(text))...), [16]byte{}, false)
		if name, err := n.Decrypt(b); good != (err == nil) || !good && !errors.Is(err, fscrypt.ErrName) {
			t.Errorf("%q is the name %q (%v)", text, name, err)
		}
		data := append([]byte{16, 0}, b...)
		if target, err := n.DecryptTarget(data); good != (err == nil) || !good && !errors.Is(err, fscrypt.ErrName) {
			t.Errorf("%q is the target %q (%v)", text, target, err)
		}
	}
}

// Under a wrong key a name and its padding is garbage: never a name with padding.
func TestWrongKeyMakesNoPaddedNames(t *testing.T) {
	m, wrong := master(t, counting(1, 64)), master(t, counting(2, 64))
	right, other := nameModes(m), nameModes(wrong)
	for mode := range right {
		p, q := right[mode], other[mode]
		p.Flags |= 3
		q.Flags |= 3
		good, bad := names(t, mustOpen(t, m, ext4(), p, 9, 5)), names(t, mustOpen(t, wrong, ext4(), q, 9, 5))
		for i := range 300 {
			b, err := good.Encrypt([]byte("name number " + string(rune('0'+i))))
			if err != nil {
				t.Fatal(err)
			}
			if name, err := bad.Decrypt(b); err == nil && len(name) < 25 {
				t.Errorf("%v: name %d is %q under another key", mode, i, name)
			}
		}
	}
}

func TestTargetsOfSymlinks(t *testing.T) {
	m := master(t, counting(1, 64))
	for mode, p := range nameModes(m) {
		for _, block := range []int{1024, 4096} {
			n := names(t, mustOpen(t, m, fscrypt.Ext4([16]byte{1}, block, true), p, 9, 5))
			for _, size := range []int{1, 14, 16, 17, 255, 300, block - 20, block - 4, block - 3} {
				target := bytes.Repeat([]byte("t/"), size)[:size]
				data, err := n.EncryptTarget(target)
				if err != nil {
					t.Fatal(err)
				}
				want := min(max(16, (size+3)/4*4), block-3)
				if len(data) != want+2 || int(data[0])|int(data[1])<<8 != want {
					t.Errorf("%v: a target of %d bytes takes %d, of which %x; want %d and 2", mode, size, len(data), data[:2], want)
				}
				back, err := n.DecryptTarget(data)
				if err != nil || !bytes.Equal(back, target) {
					t.Errorf("%v: a target of %d bytes is decrypted to %q (%v)", mode, size, back, err)
				}
				if back, err := n.DecryptTarget(append(data, 0, 0, 0)); err != nil || !bytes.Equal(back, target) {
					t.Errorf("%v: with surplus bytes behind: %q (%v)", mode, back, err)
				}
				for _, cut := range []int{0, 1, 2, 17, len(data) - 1} {
					if _, err := n.DecryptTarget(data[:cut]); !errors.Is(err, fscrypt.ErrName) {
						t.Errorf("%v: %d bytes of %d: %v", mode, cut, len(data), err)
					}
				}
			}
			if _, err := n.EncryptTarget(make([]byte, block)); !errors.Is(err, fscrypt.ErrName) {
				t.Errorf("%v: a target of zeroes: %v", mode, err)
			}
			if _, err := n.EncryptTarget(bytes.Repeat([]byte{'t'}, block-2)); !errors.Is(err, fscrypt.ErrNameTooLong) {
				t.Errorf("%v: a target of %d bytes: %v", mode, block-2, err)
			}
			if _, err := n.EncryptTarget(nil); !errors.Is(err, fscrypt.ErrName) {
				t.Errorf("%v: an empty target: %v", mode, err)
			}
		}
	}
}

func TestNoKeyNames(t *testing.T) {
	for _, size := range []int{16, 32, 148, 149, 150, 160, 255} {
		encrypted := counting(3, size)
		n, err := fscrypt.NoKey(0x01020304, 0x05060708, encrypted)
		if err != nil {
			t.Fatal(err)
		}
		s := n.String()
		if len(s) > fscrypt.MaxNoKeyName || strings.ContainsAny(s, "/=+") {
			t.Errorf("%d bytes are shown as %q", size, s)
		}
		if size > 149 && len(s) != fscrypt.MaxNoKeyName {
			t.Errorf("%d bytes are shown as %d", size, len(s))
		}
		back, err := fscrypt.ParseNoKey(s)
		if err != nil || back.String() != s || back.Hash != 0x01020304 || back.MinorHash != 0x05060708 || !back.Matches(encrypted) {
			t.Errorf("%s is read as %+v (%v)", s, back, err)
		}
		if all, ok := back.Encrypted(); ok != (size <= 149) || ok && !bytes.Equal(all, encrypted) {
			t.Errorf("%s stands for all of %x: %v", s, all, ok)
		}
		for i := range encrypted {
			other := bytes.Clone(encrypted)
			other[i] ^= 1
			if back.Matches(other) {
				t.Errorf("%s matches with byte %d changed", s, i)
			}
		}
		if back.Matches(encrypted[:size-1]) || back.Matches(append(encrypted, 0)) || back.Matches(nil) {
			t.Errorf("%s matches another length", s)
		}
	}
	for _, size := range []int{0, 15} {
		if _, err := fscrypt.NoKey(0, 0, make([]byte, size)); !errors.Is(err, fscrypt.ErrName) {
			t.Errorf("%d encrypted bytes: %v", size, err)
		}
	}
	enc := base64.RawURLEncoding.EncodeToString
	for _, name := range []string{
		"", ".", "..", "name", enc(make([]byte, 23)), enc(make([]byte, 158)), enc(make([]byte, 188)), enc(make([]byte, 190)),
		enc(make([]byte, 24)) + "\n", enc(make([]byte, 24)) + "=", enc(make([]byte, 24)) + "A", enc(make([]byte, 25))[:33] + "B",
		strings.Replace(enc(bytes.Repeat([]byte{0xff}, 24)), "_", "/", 1), strings.Repeat("A", 253),
	} {
		if n, err := fscrypt.ParseNoKey(name); !errors.Is(err, fscrypt.ErrNoKeyName) {
			t.Errorf("%q is read as %+v (%v)", name, n, err)
		}
	}
}

func FuzzNoKeyName(f *testing.F) {
	for _, size := range []int{16, 149, 150} {
		n, _ := fscrypt.NoKey(1, 2, counting(1, size))
		f.Add(n.String())
	}
	f.Fuzz(func(t *testing.T, name string) {
		n, err := fscrypt.ParseNoKey(name)
		if err != nil {
			return
		}
		if n.String() != name {
			t.Fatalf("%q is read as %+v, which is %q", name, n, n)
		}
		if all, ok := n.Encrypted(); ok && !n.Matches(all) {
			t.Fatalf("%q does not match itself", name)
		}
	})
}

// FuzzNames takes any bytes for a name and for an encrypted one.
func FuzzNames(f *testing.F) {
	f.Add(uint8(0), []byte("name"))
	f.Add(uint8(13), []byte(strings.Repeat("n", 255)))
	f.Add(uint8(255), make([]byte, 4093))
	raw := counting(1, 64)
	m, err := fscrypt.NewMasterKey(raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(m.Wipe)
	var all []*fscrypt.Names
	for mode := range fscrypt.Mode(20) {
		p, ok := nameModes(m)[mode]
		for pad := range fscrypt.Flags(4) {
			if !ok {
				break
			}
			p.Flags = p.Flags&^3 | pad
			file, err := fscrypt.Open(m, ext4(), fscrypt.Context{Policy: p}, 5)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, names(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		n := all[int(which)%len(all)]
		if encrypted, err := n.Encrypt(b); err == nil {
			if back, err := n.Decrypt(encrypted); err != nil || !bytes.Equal(back, b) {
				t.Fatalf("%q is decrypted to %q (%v)", b, back, err)
			}
		}
		if name, err := n.Decrypt(b); err == nil {
			if back, err := n.Encrypt(name); err != nil || !bytes.Equal(back, b) {
				t.Fatalf("%x is %q, and encrypted %x (%v)", b, name, back, err)
			}
		}
		if data, err := n.EncryptTarget(b); err == nil {
			if back, err := n.DecryptTarget(data); err != nil || !bytes.Equal(back, b) {
				t.Fatalf("target %q is decrypted to %q (%v)", b, back, err)
			}
		}
		if target, err := n.DecryptTarget(b); err == nil {
			if back, err := n.EncryptTarget(target); err != nil || !bytes.HasPrefix(b, back) {
				t.Fatalf("%x is %q, and encrypted %x (%v)", b, target, back, err)
			}
		}
	})
}
