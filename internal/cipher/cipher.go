// Package cipher makes the data-unit ciphers of package blkcrypto: one
// interface, one file for each family of modes. A family registers itself, so a
// new one only adds a file.
package cipher

import (
	"fmt"

	"keyway/blkcrypto"
)

// A Cipher transforms runs of consecutive data units under one key. dst and src
// are the same memory or do not overlap; len(src) is a multiple of the data unit
// size and len(dst) at least as much. dun numbers the first unit; unit k has
// dun+k, with carry. Breaking these rules panics.
//
// Encrypt and Decrypt may be called from many goroutines at once and do not
// allocate. None may be running when Wipe is called, or follow it.
type Cipher interface {
	Encrypt(dst, src []byte, dun blkcrypto.DUN)
	Decrypt(dst, src []byte, dun blkcrypto.DUN)
	// Wipe erases what was derived from the key. It may be called again.
	Wipe()
}

// A Stepper is a Cipher that can number the units of a run otherwise than one by
// one: unit k has dun + k·step, with carry. All of this package are.
type Stepper interface {
	EncryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64)
	DecryptStep(dst, src []byte, dun blkcrypto.DUN, step uint64)
}

type constructor func(unit int, key []byte) (Cipher, error)

// families is filled by the init functions of this package only.
var families = map[blkcrypto.Mode]constructor{}

func register(m blkcrypto.Mode, f constructor) {
	if families[m] != nil {
		panic("cipher: " + m.String() + " registered twice")
	}
	families[m] = f
}

// Supported reports whether New makes ciphers of mode m.
func Supported(m blkcrypto.Mode) bool { return families[m] != nil }

// New expands key, of m.KeySize() bytes, for data units of unit bytes. The key
// stays the caller's; what is derived from it lies in locked memory until Wipe.
// Weak keys are the caller's to refuse.
func New(m blkcrypto.Mode, unit int, key []byte) (Cipher, error) {
	f := families[m]
	if f == nil {
		return nil, fmt.Errorf("cipher: no software implementation of %v", m)
	}
	if len(key) != m.KeySize() {
		return nil, fmt.Errorf("cipher: %v: key of %d bytes: must be %d", m, len(key), m.KeySize())
	}
	c, err := f(unit, key)
	if err != nil {
		return nil, fmt.Errorf("cipher: %v: %w", m, err)
	}
	return c, nil
}
