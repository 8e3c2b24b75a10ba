package blkcrypto

import "fmt"

// A Mode is a cipher with its mode of operation. The numbers 1 to 4 follow
// blk-crypto; they are not part of any format.
type Mode uint8

const (
	AES256XTS      Mode = 1 + iota // two 32-byte AES keys
	AES128CBCESSIV                 // CBC, the IV encrypted under SHA-256 of the key
	Adiantum                       // XChaCha12, AES-256, NHPoly1305
	SM4XTS                         // two 16-byte SM4 keys

	// Not modes of the kernel's blk-crypto, and of no inline engine: dm-crypt
	// tables may name them, and software serves them.
	AES128XTS
	AES192XTS

	// DMCrypt is the mode of a key whose cipher is none of those above: the row of
	// a crypt target that uses it says which (package dmcrypt), and serves it
	// itself. Its keys are raw and of any length. No engine has it, nor software
	// in place of one, so it is not among Modes, and in no profile but that of
	// the row's own cipher.
	DMCrypt

	numModes = iota + 1 // the zero Mode is no mode
)

var modes = [numModes]struct {
	name                   string
	key, strength, ivBytes int // bytes
	xts                    bool
}{
	AES256XTS:      {"AES-256-XTS", 64, 32, 16, true},
	AES128CBCESSIV: {"AES-128-CBC-ESSIV", 16, 16, 16, false},
	Adiantum:       {"Adiantum", 32, 32, 32, false},
	SM4XTS:         {"SM4-XTS", 32, 16, 16, true},
	AES128XTS:      {"AES-128-XTS", 32, 16, 16, true},
	AES192XTS:      {"AES-192-XTS", 48, 24, 16, true},
	DMCrypt:        {"dm-crypt", 0, 0, 8, false},
}

// Modes returns every mode that says by itself how data is encrypted, in order of
// number: all but DMCrypt.
func Modes() []Mode {
	all := make([]Mode, 0, DMCrypt-1)
	for m := Mode(1); m < DMCrypt; m++ {
		all = append(all, m)
	}
	return all
}

// ParseMode returns the mode with the given name, as sysfs spells it
// ("AES-256-XTS"), and DMCrypt for "dm-crypt".
func ParseMode(name string) (Mode, error) {
	for _, m := range append(Modes(), DMCrypt) {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("unknown encryption mode %q (known: %v)", name, Modes())
}

func (m Mode) valid() bool { return m > 0 && m < numModes }

func (m Mode) String() string {
	if !m.valid() {
		return fmt.Sprintf("mode(%d)", uint8(m))
	}
	return modes[m].name
}

// KeySize is the length of a raw key in bytes, 0 for DMCrypt, which takes any, and
// for an invalid mode.
func (m Mode) KeySize() int {
	if !m.valid() {
		return 0
	}
	return modes[m].key
}

// Strength is the security strength in bytes: the least length of a
// hardware-wrapped key.
func (m Mode) Strength() int {
	if !m.valid() {
		return 0
	}
	return modes[m].strength
}

// WideBlock reports whether every byte of a data unit depends on all of it. Such a
// cipher reads its source more than once: one that changes meanwhile makes garbage
// of the whole data unit, and not only of what has changed.
// DMCrypt may stand for one that does.
func (m Mode) WideBlock() bool { return m == Adiantum || m == DMCrypt }

// IVSize is the length of the IV in bytes: the most DUN bytes of the mode.
func (m Mode) IVSize() int {
	if !m.valid() {
		return 0
	}
	return modes[m].ivBytes
}

// A KeyType says in which form an engine takes a key.
type KeyType uint8

const (
	Raw       KeyType = 1 + iota // the key itself
	HWWrapped                    // wrapped by the engine's own hardware; has no software form

	numKeyTypes = iota
)

// ParseKeyType returns the key type with the given name: "raw", and "hw-wrapped" or
// short "wrapped".
func ParseKeyType(name string) (KeyType, error) {
	switch name {
	case "raw":
		return Raw, nil
	case "hw-wrapped", "wrapped":
		return HWWrapped, nil
	}
	return 0, fmt.Errorf("unknown key type %q (known: raw, wrapped)", name)
}

func (t KeyType) valid() bool { return t >= Raw && t <= numKeyTypes }

func (t KeyType) String() string {
	switch t {
	case Raw:
		return "raw"
	case HWWrapped:
		return "hw-wrapped"
	}
	return fmt.Sprintf("key type(%d)", uint8(t))
}
