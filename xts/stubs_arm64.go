//go:build arm64 && !purego

package xts

// encryptARMv8 encrypts units data units of unit bytes, 1 to maxUnits of them;
// unit is a multiple of 128. keys are the round keys of the data in order of use,
// tweakKeys those of the tweak, rounds+1 each. hi:lo is the number of the first
// data unit; each has a number step greater than the one before.
//
//go:noescape
func encryptARMv8(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi, step uint64)

// decryptARMv8 is the inverse; keys are those that aes.Invert makes.
//
//go:noescape
func decryptARMv8(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi, step uint64)
