//go:build arm64 && !purego

package sm4xts

// cryptSM4E transforms units data units of unit bytes, 1 to maxUnits of them; unit is
// a multiple of 128. keys are the round keys of the data in order of use, tweakKeys
// those of the tweak. hi:lo is the number of the first data unit; each has one that is
// step greater than the one before.
//
//go:noescape
func cryptSM4E(keys, tweakKeys *uint32, dst, src *byte, unit, units int, lo, hi, step uint64)

// cryptARMv8 is the same for units of a multiple of 256 bytes and for keys with the
// constants of the S-box in them (see fold).
//
//go:noescape
func cryptARMv8(keys, tweakKeys *uint32, dst, src *byte, unit, units int, lo, hi, step uint64)
