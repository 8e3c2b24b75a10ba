// Package adiantum is the Adiantum cipher (Crowley and Biggers, "Adiantum:
// length-preserving encryption for entry-level processors", 2018) for runs of
// consecutive data units: disk sectors, file system blocks, records of one size.
//
// A data unit is encrypted as one wide block: every bit of the ciphertext depends
// on every bit of the plaintext, the key and the number of the unit, and nothing
// is stored beside it. There is no authentication. The bulk goes through XChaCha12
// and the hash NHPoly1305, so AES, used for one block in each data unit, need not
// be fast. New20 makes the variant with XChaCha20. Linux has the same ciphers as
// adiantum(xchacha12,aes) and adiantum(xchacha20,aes), for fscrypt, dm-crypt and
// blk-crypto.
//
// There are several implementations behind one type, with the same results:
//
//	avx512   sixteen blocks of the stream in flight (amd64)
//	avx2     eight blocks of the stream in flight (amd64)
//	neon     four or six blocks of the stream in flight (arm64)
//	generic  portable Go
//
// The first that the CPU supports is chosen when the program starts. The
// environment variable KEYWAY_ADIANTUM=name chooses another one, for measurements
// and for a CPU that misbehaves; a name that cannot be had makes New fail. The
// build tag purego leaves only generic.
//
// Adiantum passes over its input twice and once more over its output. Here the
// passes work on a private copy of a few data units: the source is read once, and
// the destination is written once, with nothing but the result, and never read. So
// both may be memory that somebody else changes or watches meanwhile, a guest's or
// a medium's: he gets the transformation of what the source held when it was read.
//
// All implementations run in constant time. They keep the key and what is
// expanded from it in memory outside the Go heap that is locked and left out of
// core dumps, until Wipe erases it, and erase before a call returns what they
// derived for single data units.
package adiantum

import (
	"fmt"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

const (
	// KeySize is the size of a key in bytes.
	KeySize = 32

	// MaxUnit is the largest data unit in bytes.
	MaxUnit = 256 << 10 // the assembly cannot be preempted: about 50 µs for this

	blockLen = aes.BlockSize

	// maxStep is the largest step from data unit to data unit with which they pass in
	// batches: 512-byte sectors in 4096 bytes.
	maxStep = 8
)

// implementation is who does the work of the hooks in adiantum_*.go.
type implementation int

const (
	generic implementation = iota
	avx2
	avx512
	neon
)

var choice = dataunit.Choose("adiantum", append(native(), dataunit.Impl[implementation]{
	Name: "generic", Supported: true, Open: generic,
})...)

// Implementations names those that this CPU supports, the best first.
func Implementations() []string { return choice.Names() }

// Implementation names the one that New uses; it is empty if KEYWAY_ADIANTUM
// names none that works here.
func Implementation() string {
	im, _ := choice.Best()
	return im.Name
}

// Cipher is an expanded key. Encrypt and Decrypt may be called from many
// goroutines at once; none may be running when Wipe is called, or follow it.
type Cipher struct {
	im     implementation
	mem    *secret.Buffer
	keys   *keys       // in mem; nil once wiped
	block  *aes.Blocks // for the one block of each data unit
	rounds int         // of ChaCha
	unit   int         // bytes
	batch  int         // data units that pass through together
}

// New expands key, 32 bytes, for data units of unit bytes, a multiple of 16 up to
// MaxUnit, by the best implementation. The stream cipher is XChaCha12. The key
// stays the caller's.
func New(key []byte, unit int) (*Cipher, error) { return best(key, unit, 12) }

// New20 is New with XChaCha20, for media that were made so: slower, with a larger
// margin.
func New20(key []byte, unit int) (*Cipher, error) { return best(key, unit, 20) }

// NewWith is New with the named implementation.
func NewWith(name string, key []byte, unit int) (*Cipher, error) { return named(name, key, unit, 12) }

// New20With is New20 with the named implementation.
func New20With(name string, key []byte, unit int) (*Cipher, error) {
	return named(name, key, unit, 20)
}

func best(key []byte, unit, rounds int) (*Cipher, error) {
	im, err := choice.Best()
	if err != nil {
		return nil, err
	}
	return open(im.Open, key, unit, rounds)
}

func named(name string, key []byte, unit, rounds int) (*Cipher, error) {
	im, err := choice.Named(name)
	if err != nil {
		return nil, err
	}
	return open(im.Open, key, unit, rounds)
}

func open(im implementation, key []byte, unit, rounds int) (*Cipher, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("adiantum: key of %d bytes: must be %d", len(key), KeySize)
	}
	if unit <= 0 || unit%blockLen != 0 || unit > MaxUnit {
		return nil, fmt.Errorf("adiantum: data unit of %d bytes: must be a multiple of %d, at most %d", unit, blockLen, MaxUnit)
	}
	c := &Cipher{im: im, rounds: rounds, unit: unit, batch: max(1, min(lanes(im), maxText/unit))}
	var err error
	secret.Do(func() { err = c.expand(key) })
	if err != nil {
		return nil, fmt.Errorf("adiantum: %w", err)
	}
	return c, nil
}

// Encrypt encrypts src, whole data units, into dst, at least as long. They are
// the same memory or do not overlap. dun is the number of the first data unit,
// the lowest 64 bits first; unit k has dun+k modulo 2^256. As a tweak (the IV of
// the Linux crypto API) the number is 32 bytes, little endian. Breaking these
// rules, or using a wiped cipher, panics: going on would lose data.
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
// in them, so their step is 8. Steps of 1 to 8 are as fast as Encrypt, for any other
// each data unit is a call of its own.
//
// Hot: no allocation.
func (c *Cipher) EncryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	c.step(dst, src, dun, step, false)
}

// DecryptStep is the inverse of EncryptStep, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) DecryptStep(dst, src []byte, dun [4]uint64, step uint64) {
	c.step(dst, src, dun, step, true)
}

func (c *Cipher) step(dst, src []byte, dun [4]uint64, step uint64, decrypt bool) {
	n := c.check(dst, src)
	if n == 0 {
		return
	}
	if step-1 < maxStep {
		c.crypt(dst, src, n, dun, step, decrypt)
		return
	}
	for ; len(src) > 0; dst, src = dst[c.unit:], src[c.unit:] {
		c.crypt(dst[:c.unit], src[:c.unit], 1, dun, 1, decrypt)
		dun = dataunit.Plus256(dun, step)
	}
}

// check returns the number of data units in src.
func (c *Cipher) check(dst, src []byte) int {
	if c.keys == nil {
		panic("adiantum: cipher used after Wipe")
	}
	return dataunit.Check("adiantum", c.unit, dst, src)
}

// Wipe erases everything that holds the key. It may be called again.
func (c *Cipher) Wipe() {
	if c.keys == nil {
		return
	}
	c.keys = nil
	c.mem.Wipe()
	c.block.Wipe()
}
