// Package hctr2 is the cipher AES-HCTR2 (Crowley, Huckleberry and Biggers,
// "Length-preserving encryption with HCTR2", 2021) for runs of consecutive data
// units, and for single texts of any length from 16 bytes, such as file names.
//
// A data unit is encrypted as one wide block: every bit of the ciphertext depends
// on every bit of the plaintext, the key and the number of the unit, and nothing
// is stored beside it. There is no authentication. The bulk goes through AES in a
// counter mode and twice through the hash POLYVAL, so this is the cipher to take
// where there are instructions for AES and for carry-less multiplication; without,
// package adiantum is faster. Linux has the same cipher as hctr2(aes): dm-crypt
// calls it aes-hctr2-plain64, fscrypt AES-256-HCTR2, for file names.
//
// There are several implementations behind one type, with the same results:
//
//	vaes256  VAES and VPCLMULQDQ on 256-bit registers (amd64)
//	aesni    AES-NI and PCLMULQDQ (amd64)
//	armv8    the AES instructions of ARMv8, the hash in portable Go (arm64)
//	generic  portable Go, bitsliced
//
// The first that the CPU supports is chosen when the program starts. The
// environment variable KEYWAY_HCTR2=name chooses another one, for measurements and
// for a CPU that misbehaves; a name that cannot be had makes New fail. The build
// tag purego leaves only generic.
//
// HCTR2 passes over its input twice and once more over its output. Here the passes
// work on a private copy of a few data units: the source is read once, and the
// destination is written once, with nothing but the result, and never read. So both
// may be memory that somebody else changes or watches meanwhile, a guest's or a
// medium's: he gets the transformation of what the source held when it was read.
//
// All implementations run in constant time. They keep the key and what is expanded
// from it in memory outside the Go heap that is locked and left out of core dumps,
// until Wipe erases it, and erase before a call returns what they derived for
// single data units.
package hctr2

import (
	"fmt"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const (
	// TweakSize is the size of a tweak in bytes: what Linux takes.
	TweakSize = 32

	// MinLen is the shortest text that EncryptBytes takes, in bytes.
	MinLen = blockLen

	// MaxUnit is the largest data unit, and the longest text, in bytes: its private
	// copy is memory.
	MaxUnit = 256 << 10

	blockLen = aes.BlockSize
)

// implementation is who does the work of the hooks in hctr2_*.go.
type implementation int

const (
	generic implementation = iota
	aesni
	vaes256
	armv8
)

var choice = dataunit.Choose("hctr2", append(native(), dataunit.Impl[implementation]{
	Name: "generic", Supported: true, Open: generic,
})...)

// Implementations names those that this CPU supports, the best first.
func Implementations() []string { return choice.Names() }

// Implementation names the one that New uses; it is empty if KEYWAY_HCTR2 names
// none that works here.
func Implementation() string {
	im, _ := choice.Best()
	return im.Name
}

// Cipher is an expanded key. Its methods may be called from many goroutines at
// once; none may be running when Wipe is called, or follow it.
type Cipher struct {
	im     implementation
	mem    *secret.Buffer
	keys   *keys       // in mem; nil once wiped
	wide   []aes.Wide  // bitsliced round keys, in mem; of generic
	block  *aes.Blocks // for the first block of each data unit
	rounds int         // of AES
	unit   int         // bytes
	batch  int         // data units that pass through together
}

// New expands key, 16, 24 or 32 bytes (AES-128, AES-192 or AES-256), for data units
// of unit bytes, a multiple of 16 up to MaxUnit, by the best implementation. The key
// stays the caller's.
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

func open(im implementation, key []byte, unit int) (*Cipher, error) {
	switch len(key) {
	case 16, 24, 32:
	default:
		return nil, fmt.Errorf("hctr2: key of %d bytes: must be 16, 24 or 32", len(key))
	}
	if unit <= 0 || unit%blockLen != 0 || unit > MaxUnit {
		return nil, fmt.Errorf("hctr2: data unit of %d bytes: must be a multiple of %d, at most %d", unit, blockLen, MaxUnit)
	}
	c := &Cipher{im: im, rounds: aes.Rounds(len(key)), unit: unit, batch: max(1, min(maxBatch, maxText/unit))}
	var err error
	secret.Do(func() { err = c.expand(key) })
	if err != nil {
		return nil, fmt.Errorf("hctr2: %w", err)
	}
	return c, nil
}

// Encrypt encrypts src, whole data units, into dst, at least as long. They are the
// same memory or do not overlap. dun is the number of the first data unit, the lowest
// 64 bits first; unit k has dun+k modulo 2^256. As a tweak (the IV of the Linux crypto
// API) the number is 32 bytes, little endian. Breaking these rules, or using a wiped
// cipher, panics: going on would lose data.
//
// Hot: no allocation.
func (c *Cipher) Encrypt(dst, src []byte, dun [4]uint64) {
	if n := c.check(dst, src); n > 0 {
		c.crypt(dst, src, n, dun, 1, false)
	}
}

// Decrypt is the inverse of Encrypt, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) Decrypt(dst, src []byte, dun [4]uint64) {
	if n := c.check(dst, src); n > 0 {
		c.crypt(dst, src, n, dun, 1, true)
	}
}

// EncryptStep is Encrypt with other numbers: data unit k has dun + k·step modulo
// 2^256. dm-crypt and LUKS2 number units of 4096 bytes by the sectors of 512 bytes
// in them, so their step is 8.
//
// Hot: no allocation.
func (c *Cipher) EncryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	if n := c.check(dst, src); n > 0 {
		c.crypt(dst, src, n, dun, step, false)
	}
}

// DecryptStep is the inverse of EncryptStep, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) DecryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	if n := c.check(dst, src); n > 0 {
		c.crypt(dst, src, n, dun, step, true)
	}
}

// check returns the number of data units in src.
func (c *Cipher) check(dst, src []byte) int {
	if c.keys == nil {
		panic("hctr2: cipher used after Wipe")
	}
	return dataunit.Check("hctr2", c.unit, dst, src)
}

// EncryptBytes encrypts src, one text of MinLen to MaxUnit bytes whatever the size
// of the cipher's data units, into dst, at least as long: the same memory or
// disjoint. Equal texts under equal tweaks are equal afterwards. This is fscrypt's
// encryption of file names, which are padded before and have a tweak made of the
// policy's flags and the directory's nonce; see its documentation. Breaking these
// rules panics.
//
// Hot: no allocation.
func (c *Cipher) EncryptBytes(dst, src []byte, tweak *[TweakSize]byte) {
	c.text(dst, src, tweak, false)
}

// DecryptBytes is the inverse of EncryptBytes, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) DecryptBytes(dst, src []byte, tweak *[TweakSize]byte) {
	c.text(dst, src, tweak, true)
}

// Wipe erases everything that holds the key. It may be called again.
func (c *Cipher) Wipe() {
	if c.keys == nil {
		return
	}
	c.keys, c.wide = nil, nil
	c.mem.Wipe()
	c.block.Wipe()
}
