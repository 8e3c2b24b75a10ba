package fscrypt

import (
	"fmt"

	"keyway/blkcrypto"
)

// A Mode is a cipher of contents or names, numbered as in policies on disk.
type Mode uint8

const (
	AES256XTS      Mode = 1  // contents
	AES256CBCCTS   Mode = 4  // names
	AES128CBCESSIV Mode = 5  // contents
	AES128CBCCTS   Mode = 6  // names
	SM4XTS         Mode = 7  // contents
	SM4CBCCTS      Mode = 8  // names
	Adiantum       Mode = 9  // contents and names
	AES256HCTR2    Mode = 10 // names
)

type modeInfo struct {
	name              string
	key, strength, iv int            // bytes
	block             blkcrypto.Mode // of contents; 0: none
	names             openName       // of names; nil: none
}

var modes = map[Mode]modeInfo{
	AES256XTS:      {name: "AES-256-XTS", key: 64, strength: 32, iv: 16, block: blkcrypto.AES256XTS},
	AES256CBCCTS:   {name: "AES-256-CBC-CTS", key: 32, strength: 32, iv: 16, names: newAESCTS},
	AES128CBCESSIV: {name: "AES-128-CBC-ESSIV", key: 16, strength: 16, iv: 16, block: blkcrypto.AES128CBCESSIV},
	AES128CBCCTS:   {name: "AES-128-CBC-CTS", key: 16, strength: 16, iv: 16, names: newAESCTS},
	SM4XTS:         {name: "SM4-XTS", key: 32, strength: 16, iv: 16, block: blkcrypto.SM4XTS},
	SM4CBCCTS:      {name: "SM4-CBC-CTS", key: 16, strength: 16, iv: 16, names: newSM4CTS},
	Adiantum:       {name: "Adiantum", key: 32, strength: 32, iv: 32, block: blkcrypto.Adiantum, names: newAdiantum},
	AES256HCTR2:    {name: "AES-256-HCTR2", key: 32, strength: 32, iv: 32, names: newHCTR2},
}

// pairs are the modes of contents and names that go together, and from which
// version of policies on.
var pairs = map[[2]Mode]int{
	{AES256XTS, AES256CBCCTS}:      1,
	{AES128CBCESSIV, AES128CBCCTS}: 1,
	{Adiantum, Adiantum}:           1,
	{AES256XTS, AES256HCTR2}:       2,
	{SM4XTS, SM4CBCCTS}:            2,
}

// ParseMode returns the mode of a name as String gives it.
func ParseMode(name string) (Mode, error) {
	for m, i := range modes {
		if i.name == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("unknown fscrypt mode %q", name)
}

func (m Mode) String() string {
	if i, ok := modes[m]; ok {
		return i.name
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// KeySize is the length of the mode's keys in bytes, 0 for an unknown mode.
func (m Mode) KeySize() int { return modes[m].key }

// Strength is the mode's security strength in bytes: the least length of a master
// key of a v2 policy.
func (m Mode) Strength() int { return modes[m].strength }

// IVSize is the length of the IV in bytes.
func (m Mode) IVSize() int { return modes[m].iv }

// Block returns the same cipher as a mode of blkcrypto; false for a mode that
// encrypts names only.
func (m Mode) Block() (blkcrypto.Mode, bool) {
	b := modes[m].block
	return b, b != 0
}
