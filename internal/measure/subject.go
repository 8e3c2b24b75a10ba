// Package measure is what the benchmarks share: every data-unit cipher in every
// implementation that this CPU has, what bounds them, and how a rate is measured
// on one core and on all.
package measure

import (
	"crypto/rand"
	"fmt"

	"keyway/adiantum"
	"keyway/blkcrypto"
	"keyway/essiv"
	"keyway/hctr2"
	"keyway/internal/cipher"
	"keyway/internal/secret"
	"keyway/sm4xts"
	"keyway/xts"
)

// A Subject is one mode in one implementation.
type Subject struct {
	Mode    blkcrypto.Mode
	Impl    string
	Default bool // what the product uses here
	open    opener
}

type opener func(name string, key []byte, unit int) (cipher.Cipher, error)

// families is one line for each package of ciphers.
var families = []struct {
	modes []blkcrypto.Mode
	names func() []string // of the implementations, the best first
	used  func() string
	open  opener
}{
	{[]blkcrypto.Mode{blkcrypto.AES256XTS, blkcrypto.AES128XTS, blkcrypto.AES192XTS}, xts.Implementations, xts.Implementation, dun128(xts.NewWith)},
	{[]blkcrypto.Mode{blkcrypto.AES128CBCESSIV}, essiv.Implementations, essiv.Implementation, dun128(essiv.NewWith)},
	{[]blkcrypto.Mode{blkcrypto.Adiantum}, adiantum.Implementations, adiantum.Implementation, dun256(adiantum.NewWith)},
	{[]blkcrypto.Mode{blkcrypto.SM4XTS}, sm4xts.Implementations, sm4xts.Implementation, dun128(sm4xts.NewWith)},
	{[]blkcrypto.Mode{HCTR2}, hctr2.Implementations, hctr2.Implementation, dun256(hctr2.NewWith)},
}

// HCTR2 stands for a cipher that no engine has and that is no mode of blkcrypto: tables
// of crypt take it, and fscrypt for names.
const HCTR2 blkcrypto.Mode = 0

const nameHCTR2 = "AES-256-HCTR2"

// Modes are those of blkcrypto, and HCTR2.
func Modes() []blkcrypto.Mode { return append(blkcrypto.Modes(), HCTR2) }

// ParseMode returns the mode that Name has given this name.
func ParseMode(name string) (blkcrypto.Mode, error) {
	if name == nameHCTR2 {
		return HCTR2, nil
	}
	m, err := blkcrypto.ParseMode(name)
	if err != nil {
		err = fmt.Errorf("unknown encryption mode %q (known: %v and %s)", name, blkcrypto.Modes(), nameHCTR2)
	}
	return m, err
}

// Name is what users call a mode.
func Name(m blkcrypto.Mode) string {
	if m == HCTR2 {
		return nameHCTR2
	}
	return m.String()
}

// KeySize is the size of a key in bytes.
func KeySize(m blkcrypto.Mode) int {
	if m == HCTR2 {
		return 32
	}
	return m.KeySize()
}

// Subjects are the implementations of mode m, the best first; none if software
// does not have the mode.
func Subjects(m blkcrypto.Mode) (all []Subject) {
	for _, f := range families {
		for _, of := range f.modes {
			if of != m {
				continue
			}
			for _, name := range f.names() {
				all = append(all, Subject{m, name, name == f.used(), f.open})
			}
		}
	}
	return all
}

// Open makes a cipher with a random key. The caller wipes it.
func (s Subject) Open(unit int) (cipher.Cipher, error) {
	key, err := secret.New(KeySize(s.Mode))
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	rand.Read(key.Bytes())
	return s.OpenKey(key.Bytes(), unit)
}

// OpenKey makes a cipher with this key, which stays the caller's.
func (s Subject) OpenKey(key []byte, unit int) (cipher.Cipher, error) {
	c, err := s.open(s.Impl, key, unit)
	if err != nil {
		return nil, fmt.Errorf("%s by %s: %w", Name(s.Mode), s.Impl, err)
	}
	return c, nil
}

// AESRounds is the number of AES rounds for each 16 bytes of data, 0 for a mode
// that AES does not bound. What each data unit costs beside (a tweak, an IV), and the
// hash of HCTR2, are not in it.
func AESRounds(m blkcrypto.Mode) int {
	switch m {
	case blkcrypto.AES128XTS, blkcrypto.AES128CBCESSIV:
		return 10
	case blkcrypto.AES192XTS:
		return 12
	case blkcrypto.AES256XTS, HCTR2:
		return 14
	}
	return 0
}

// short is a cipher that numbers its data units by 128 bits.
type short interface {
	Encrypt(dst, src []byte, dun [2]uint64)
	Decrypt(dst, src []byte, dun [2]uint64)
	Wipe()
}

type short2dun[C short] struct{ c C }

func (s short2dun[C]) Wipe() { s.c.Wipe() }
func (s short2dun[C]) Encrypt(dst, src []byte, dun blkcrypto.DUN) {
	s.c.Encrypt(dst, src, [2]uint64{dun[0], dun[1]})
}
func (s short2dun[C]) Decrypt(dst, src []byte, dun blkcrypto.DUN) {
	s.c.Decrypt(dst, src, [2]uint64{dun[0], dun[1]})
}

func dun128[C short](open func(name string, key []byte, unit int) (C, error)) opener {
	return func(name string, key []byte, unit int) (cipher.Cipher, error) {
		c, err := open(name, key, unit)
		if err != nil {
			return nil, err
		}
		return short2dun[C]{c}, nil
	}
}

// long is a cipher that numbers them by 256 bits.
type long interface {
	Encrypt(dst, src []byte, dun [4]uint64)
	Decrypt(dst, src []byte, dun [4]uint64)
	Wipe()
}

type long2dun[C long] struct{ c C }

func (l long2dun[C]) Wipe()                                      { l.c.Wipe() }
func (l long2dun[C]) Encrypt(dst, src []byte, dun blkcrypto.DUN) { l.c.Encrypt(dst, src, dun) }
func (l long2dun[C]) Decrypt(dst, src []byte, dun blkcrypto.DUN) { l.c.Decrypt(dst, src, dun) }

func dun256[C long](open func(name string, key []byte, unit int) (C, error)) opener {
	return func(name string, key []byte, unit int) (cipher.Cipher, error) {
		c, err := open(name, key, unit)
		if err != nil {
			return nil, err
		}
		return long2dun[C]{c}, nil
	}
}
