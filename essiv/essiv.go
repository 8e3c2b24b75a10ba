// Package essiv is AES-CBC-ESSIV with SHA-256 for runs of consecutive data units:
// one call encrypts or decrypts any number of them.
//
// Each data unit is encrypted by AES in CBC mode. Its initialisation vector is its
// number, 128 bits little endian, encrypted by AES-256 under the SHA-256 of the key
// (ESSIV: Fruhwirth, "New Methods in Hard Disk Encryption", 2005). With a key of 16
// bytes this is blk-crypto's and fscrypt's AES-128-CBC-ESSIV; with 16, 24 or 32
// bytes it is dm-crypt's aes-cbc-essiv:sha256. It is here for media that exist and
// for engines that have nothing else: new media are better served by packages xts
// and adiantum, since who can change ciphertext can flip chosen bits of a data unit
// encrypted by CBC.
//
// CBC encrypts the blocks of one data unit strictly one after the other, so the
// speed of encryption is in the run: its data units are encrypted side by side.
// Decryption has no such limit. There are several implementations behind one type,
// with the same results:
//
//	vaes512  VAES and AVX-512, four data units to a register, up to 32 at once (amd64)
//	vaes256  VAES and AVX2, two to a register, up to 16 at once (amd64)
//	aesni    AES-NI and AVX, up to eight at once (amd64)
//	armv8    the AES instructions of ARMv8, up to eight at once (arm64)
//	generic  portable Go, bitsliced, four at once
//
// The first that the CPU supports is chosen when the program starts. The
// environment variable KEYWAY_ESSIV=name chooses another one, for measurements and
// for a CPU that misbehaves; a name that cannot be had makes New fail. The build
// tag purego leaves only generic.
//
// All of them run in constant time and keep every round key in memory outside the
// Go heap that is locked and left out of core dumps, until Wipe erases it.
package essiv

import (
	"fmt"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const (
	blockLen = aes.BlockSize

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
type opener func(key []byte, unit int) (engine, error)

var choice = dataunit.Choose("essiv", append(native(), dataunit.Impl[opener]{
	Name: "generic", Supported: true, Open: newGeneric,
})...)

// Implementations names those that this CPU supports, the best first.
func Implementations() []string { return choice.Names() }

// Implementation names the one that New uses; it is empty if KEYWAY_ESSIV names
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

// New expands key, 16, 24 or 32 bytes (AES-128, AES-192 or AES-256), for data
// units of unit bytes, a multiple of 16, by the best implementation. The key stays
// the caller's.
func New(key []byte, unit int) (*Cipher, error) {
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
	return open(im.Open, key, unit)
}

func open(f opener, key []byte, unit int) (*Cipher, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("essiv: key of %d bytes: must be 16, 24 or 32", len(key))
	}
	if unit <= 0 || unit%blockLen != 0 {
		return nil, fmt.Errorf("essiv: data unit of %d bytes: must be a multiple of %d", unit, blockLen)
	}
	var e engine
	var err error
	secret.Do(func() { e, err = f(key, unit) })
	if err != nil {
		return nil, fmt.Errorf("essiv: %w", err)
	}
	return &Cipher{e, unit}, nil
}

// Encrypt encrypts src, whole data units, into dst, at least as long. They are
// the same memory or do not overlap. dun is the number of the first data unit, low
// half first; unit k has dun+k modulo 2^128. Breaking these rules, or using a
// wiped cipher, panics: going on would lose data.
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
		panic("essiv: cipher used after Wipe")
	}
	return dataunit.Check("essiv", c.unit, dst, src)
}

// Wipe erases the round keys. It may be called again.
func (c *Cipher) Wipe() {
	if c.e != nil {
		c.e.wipe()
		c.e = nil
	}
}
