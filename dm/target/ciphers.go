package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/dmcrypt"
)

// ciphers are the ciphers of each target that encrypts that are modes of blk-crypto,
// as tables spell them in full, and the modes they mean by the size of the key in
// bytes. Engines and fallbacks serve these.
var ciphers = map[string]map[string]map[int]blkcrypto.Mode{
	"crypt": {
		"aes-xts-plain64":                {32: blkcrypto.AES128XTS, 48: blkcrypto.AES192XTS, 64: blkcrypto.AES256XTS},
		"aes-cbc-essiv:sha256":           {16: blkcrypto.AES128CBCESSIV},
		"xchacha12,aes-adiantum-plain64": {32: blkcrypto.Adiantum},
		"sm4-xts-plain64":                {32: blkcrypto.SM4XTS},
	},
	"inlinecrypt": {
		"aes-xts-plain64": {64: blkcrypto.AES256XTS},
	},
	"default-key": {
		"aes-xts-plain64":                {64: blkcrypto.AES256XTS},
		"xchacha12,aes-adiantum-plain64": {32: blkcrypto.Adiantum},
	},
}

// ModeOf is the mode that a cipher with a key of size bytes means in a row of the
// target typ: blkcrypto.DMCrypt if crypt has it and blk-crypto does not.
func ModeOf(typ, cipher string, size int) (blkcrypto.Mode, error) {
	if typ == "crypt" {
		p, err := dmcrypt.Parse(cipher)
		if err != nil {
			return 0, err
		}
		return modeOfSpec(p, size)
	}
	sizes := ciphers[typ][cipher]
	if sizes == nil {
		return 0, fmt.Errorf("cipher %q is not one of those that %s has: %s", cipher, typ, strings.Join(slices.Sorted(maps.Keys(ciphers[typ])), ", "))
	}
	if m := sizes[size]; m != 0 {
		return m, nil
	}
	return 0, fmt.Errorf("a key of %d bytes does not fit cipher %s (sizes: %v)", size, cipher, slices.Sorted(maps.Keys(sizes)))
}

func modeOfSpec(p dmcrypt.Spec, size int) (blkcrypto.Mode, error) {
	if err := p.CheckKey(size); err != nil {
		return 0, err
	}
	if m := ciphers["crypt"][p.String()][size]; m != 0 {
		return m, nil
	}
	return blkcrypto.DMCrypt, nil
}
