package fscrypt_test

import (
	"bytes"
	"testing"

	"keyway/fscrypt"
	"keyway/internal/dataunit/dataunittest"
)

// Keys and what they are made of are on no stack when a call has returned.
func TestStackHoldsNoKey(t *testing.T) {
	raw := []byte("a master key of sixty-four bytes, which is in no file anywhere..")
	m := master(t, raw)
	parts := func(key []byte) (all [][]byte) {
		for i := 0; i < len(key); i += 16 {
			all = append(all, key[i:][:16])
		}
		return all
	}
	policies := map[string]fscrypt.Policy{
		"per file":       v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0),
		"HCTR2":          v2(m, fscrypt.AES256XTS, fscrypt.AES256HCTR2, fscrypt.InoLblk64),
		"IV_INO_LBLK_32": v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32),
		"SM4":            v2(m, fscrypt.SM4XTS, fscrypt.SM4CBCCTS, 0),
		"DIRECT_KEY":     v2(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey),
		"v1":             v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0),
		"v1, DIRECT_KEY": v1(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey),
	}
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			f := mustOpen(t, m, ext4(), p, 9, 5)
			secrets := append(parts(raw), parts(keyBytes(t, f))...)
			dataunittest.Forgets(t, func() {
				k, err := fscrypt.NewMasterKey(raw)
				if err != nil {
					t.Error(err)
				}
				k.Wipe()
			}, secrets...)
			dataunittest.Forgets(t, func() {
				if _, err := f.NewKey("test"); err != nil {
					t.Error(err)
				}
			}, secrets...)
			dataunittest.Forgets(t, func() {
				n, err := f.Names()
				if err != nil {
					t.Error(err)
					return
				}
				b, err := n.Encrypt(bytes.Repeat([]byte{'n'}, 100))
				if err == nil {
					_, err = n.Decrypt(b)
				}
				if err != nil {
					t.Error(err)
				}
				n.Wipe()
			}, secrets...)
		})
	}
}
