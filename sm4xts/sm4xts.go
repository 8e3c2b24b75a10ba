// Package sm4xts is SM4-XTS for runs of consecutive data units: one call
// encrypts or decrypts any number of them, many blocks at once, so that short
// data units cost no more than long ones.
//
// SM4 is the block cipher of GB/T 32907-2016. XTS is the mode of IEEE 1619-2018,
// with SM4 in the place of AES, as the Linux kernel's xts(sm4) and dm-crypt's
// sm4-xts-plain64 have it. The mode of the same name in GB/T 17964-2021 numbers
// the bits of a tweak the other way round: its ciphertexts differ from the
// second block on, and this package does not read them.
//
// There are several implementations behind one type, with the same results:
//
//	gfni512   GFNI and AVX-512 (amd64)
//	gfni256   GFNI and AVX2 (amd64)
//	vaes256   VAES and AVX2 (amd64)
//	aesni256  AES-NI and AVX2 (amd64)
//	aesni     AES-NI and AVX (amd64)
//	sm4e      the SM4 instructions of ARMv8.2 (arm64)
//	armv8     the AES instructions of ARMv8 (arm64)
//	generic   portable Go, bitsliced, any data unit size
//
// The first that the CPU supports is chosen when the program starts. The
// environment variable KEYWAY_SM4XTS=name chooses another one, for measurements
// and for a CPU that misbehaves; a name that cannot be had makes New fail. The
// build tag purego leaves only generic. Data units that are not a multiple of
// 512 bytes, or on arm64 of 256 (armv8) or 128 (sm4e), are served by generic.
//
// All of them run in constant time and keep every round key in memory outside
// the Go heap that is locked and left out of core dumps, until Wipe erases it.
package sm4xts

import (
	"crypto/subtle"
	"errors"
	"fmt"

	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const (
	blockLen = 16 // bytes
	keyLen   = 32 // bytes: two SM4 keys, the one for the data first

	// maxStep is the largest step from data unit to data unit that is one call of an
	// engine: 512-byte sectors in 4096 bytes.
	maxStep = 8
)

// engine is one key under one implementation. dst and src are units data units,
// at least one; dun is the number of the first, and from one to the next it grows
// by step, 1 to maxStep.
type engine interface {
	crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool)
	wipe()
}

// opener makes the engines of one implementation.
type opener struct {
	// multiple: unit sizes that are a multiple of this many bytes are served;
	// generic takes the others.
	multiple int
	open     func(key []byte, unit int) (engine, error)
}

var choice = dataunit.Choose("sm4xts", append(native(), dataunit.Impl[opener]{
	Name: "generic", Supported: true, Open: opener{blockLen, newGeneric},
})...)

// Implementations names those that this CPU supports, the best first.
func Implementations() []string { return choice.Names() }

// Implementation names the one that New uses; it is empty if KEYWAY_SM4XTS names
// none that works here.
func Implementation() string {
	im, _ := choice.Best()
	return im.Name
}

// Cipher is an expanded key. Encrypt and Decrypt may be called from many
// goroutines at once; none may be running when Wipe is called, or follow it.
type Cipher struct {
	e    engine // nil once wiped
	unit int
}

// ErrWeakKey: the two halves of a key are equal.
var ErrWeakKey = errors.New("sm4xts: the two halves of the key are equal")

// New expands key for data units of unit bytes, a multiple of 16, by the best
// implementation. The key is 32 bytes, two SM4 keys, the one for the data first,
// and stays the caller's. Equal halves are ErrWeakKey.
func New(key []byte, unit int) (*Cipher, error) {
	if WeakKey(key) {
		return nil, ErrWeakKey
	}
	return NewAllowWeak(key, unit)
}

// NewAllowWeak is New for a medium that exists: dm-crypt takes a key with equal
// halves, so such media must be readable.
func NewAllowWeak(key []byte, unit int) (*Cipher, error) {
	im, err := choice.Best()
	if err != nil {
		return nil, err
	}
	return open(im.Open, key, unit)
}

// NewWith is New with the named implementation.
func NewWith(name string, key []byte, unit int) (*Cipher, error) {
	im, err := choice.Named(name)
	if err != nil {
		return nil, err
	}
	if WeakKey(key) {
		return nil, ErrWeakKey
	}
	return open(im.Open, key, unit)
}

func open(im opener, key []byte, unit int) (*Cipher, error) {
	if len(key) != keyLen {
		return nil, fmt.Errorf("sm4xts: key of %d bytes: must be %d", len(key), keyLen)
	}
	if unit <= 0 || unit%blockLen != 0 {
		return nil, fmt.Errorf("sm4xts: data unit of %d bytes: must be a multiple of %d", unit, blockLen)
	}
	if unit%im.multiple != 0 {
		im.open = newGeneric
	}
	var e engine
	var err error
	secret.Do(func() { e, err = im.open(key, unit) })
	if err != nil {
		return nil, fmt.Errorf("sm4xts: %w", err)
	}
	return &Cipher{e, unit}, nil
}

// WeakKey reports in constant time whether the two halves of key are equal,
// which lets an attacker forge (Rogaway 2004; the kernel refuses such keys in
// FIPS mode and in fscrypt). A key of odd length is weak too.
func WeakKey(key []byte) bool {
	half := len(key) / 2
	return len(key)%2 != 0 || subtle.ConstantTimeCompare(key[:half], key[half:]) == 1
}

// Encrypt encrypts src, whole data units, into dst, at least as long. They are
// the same memory or do not overlap. dun is the number of the first data unit,
// low half first; unit k has dun+k modulo 2^128. Breaking these rules, or using
// a wiped cipher, panics: going on would lose data.
//
// Hot: no allocation.
func (c *Cipher) Encrypt(dst, src []byte, dun [2]uint64) {
	if n := c.check(dst, src); n > 0 {
		c.e.crypt(dst, src, n, dun, 1, false)
	}
}

// Decrypt is the inverse of Encrypt, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) Decrypt(dst, src []byte, dun [2]uint64) {
	if n := c.check(dst, src); n > 0 {
		c.e.crypt(dst, src, n, dun, 1, true)
	}
}

// EncryptStep is Encrypt with other numbers: data unit k has dun + k·step modulo
// 2^128. dm-crypt and LUKS2 number units of 4096 bytes by the sectors of 512 bytes
// in them, so their step is 8. Steps of 1 to 8 are as fast as Encrypt, for any other
// each data unit is a call of its own.
//
// Hot: no allocation.
func (c *Cipher) EncryptStep(dst, src []byte, dun [2]uint64, step uint64) {
	c.step(dst, src, dun, step, false)
}

// DecryptStep is the inverse of EncryptStep, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) DecryptStep(dst, src []byte, dun [2]uint64, step uint64) {
	c.step(dst, src, dun, step, true)
}

func (c *Cipher) step(dst, src []byte, dun [2]uint64, step uint64, decrypt bool) {
	n := c.check(dst, src)
	if n == 0 {
		return
	}
	if step-1 < maxStep {
		c.e.crypt(dst, src, n, dun, step, decrypt)
		return
	}
	for ; len(src) > 0; dst, src = dst[c.unit:], src[c.unit:] {
		c.e.crypt(dst[:c.unit], src[:c.unit], 1, dun, 1, decrypt)
		dun = dataunit.Plus128(dun, step)
	}
}

// check returns the number of data units in src.
func (c *Cipher) check(dst, src []byte) int {
	if c.e == nil {
		panic("sm4xts: cipher used after Wipe")
	}
	return dataunit.Check("sm4xts", c.unit, dst, src)
}

// Wipe erases the round keys. It may be called again.
func (c *Cipher) Wipe() {
	if c.e != nil {
		c.e.wipe()
		c.e = nil
	}
}
