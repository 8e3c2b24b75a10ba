package blkcrypto

import (
	"fmt"
	"math/bits"
)

// Limits of a data unit in bytes.
const (
	MinDataUnit = 512
	MaxDataUnit = 65536

	minUnitShift = 9
	numUnitSizes = 8 // 512, 1024, … 65536
)

// MaxDUNBytes is the widest data unit number that any mode takes.
const MaxDUNBytes = 32

// Config says how a key encrypts. Two keys of equal bytes and different
// configs are different keys.
type Config struct {
	Mode         Mode
	KeyType      KeyType
	DataUnitSize int // bytes; a power of two, MinDataUnit to MaxDataUnit
	DUNBytes     int // 1 to the mode's IV size: higher bytes of every DUN are zero
	Numbering    Numbering
}

// A Numbering says by how much the numbers of adjoining data units differ.
type Numbering uint8

const (
	ByUnit   Numbering = iota // by one: blk-crypto, and dm-crypt with iv_large_sectors
	BySector                  // by the unit's size in 512-byte sectors: dm-crypt otherwise, and LUKS2

	numNumberings = iota
)

// Check reports what is wrong with c, or nil.
func (c Config) Check() error {
	switch {
	case !c.Mode.valid():
		return fmt.Errorf("encryption mode %d does not exist", uint8(c.Mode))
	case !c.KeyType.valid():
		return fmt.Errorf("key type %d does not exist", uint8(c.KeyType))
	case c.Mode == DMCrypt && c.KeyType != Raw:
		return fmt.Errorf("a key for ciphers of dm-crypt is raw, not %v", c.KeyType)
	case unitIndex(c.DataUnitSize) < 0:
		return fmt.Errorf("data unit size %d is not a power of two from %d to %d", c.DataUnitSize, MinDataUnit, MaxDataUnit)
	case c.Numbering >= numNumberings:
		return fmt.Errorf("numbering %d does not exist", c.Numbering)
	case c.DUNBytes < 1 || c.DUNBytes > c.Mode.IVSize():
		return fmt.Errorf("%d DUN bytes: %v takes 1 to %d", c.DUNBytes, c.Mode, c.Mode.IVSize())
	}
	return nil
}

// Fits reports whether n data units from d on all have numbers below
// 2^(8·DUNBytes). Linux never checks this, and engines ignore the higher
// bytes, so that IVs would repeat (blkcrypto.md, invariant 4).
func (c Config) Fits(d DUN, n uint64) bool {
	if n == 0 {
		return true
	}
	last, wrapped := d.Add((n - 1) << (c.UnitShift() - c.dunShift()))
	return !wrapped && last.Bytes() <= c.DUNBytes
}

func (c Config) String() string {
	s := fmt.Sprintf("%v, %v, %d-byte units, %d DUN bytes", c.Mode, c.KeyType, c.DataUnitSize, c.DUNBytes)
	if c.Numbering == BySector {
		s += ", numbered by sector"
	}
	return s
}

// DUN returns the number of the data unit n bytes after the one numbered d.
// n is a multiple of the data unit size.
func (c Config) DUN(d DUN, n int64) DUN {
	d, _ = d.Add(uint64(n) >> c.dunShift())
	return d
}

// dunShift is log2 of the bytes by which one number advances.
func (c Config) dunShift() uint {
	if c.Numbering == BySector {
		return minUnitShift
	}
	return c.UnitShift()
}

// UnitShift is log2 of the data unit size.
func (c Config) UnitShift() uint { return uint(bits.TrailingZeros(uint(c.DataUnitSize))) }

// unitIndex returns the index of a data unit size in a profile, -1 for a size
// that no config has.
func unitIndex(size int) int {
	i := bits.TrailingZeros(uint(size)) - minUnitShift
	if size <= 0 || size&(size-1) != 0 || i < 0 || i >= numUnitSizes {
		return -1
	}
	return i
}

// UnitSizes returns every data unit size, ascending.
func UnitSizes() []int {
	s := make([]int, numUnitSizes)
	for i := range s {
		s[i] = MinDataUnit << i
	}
	return s
}
