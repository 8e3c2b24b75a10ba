//go:build arm64 && !purego

package essiv

// encryptARMv8 encrypts blocks blocks, at least one, of each of units data units,
// 1 to 8, which are stride bytes apart. keys are rounds+1 round keys in order of
// use. ivs are eight initialisation vectors, the last one of a data unit repeated;
// each becomes the last block of ciphertext of its data unit.
//
//go:noescape
func encryptARMv8(keys *byte, rounds int, dst, src *byte, stride, blocks, units int, ivs *byte)

// decryptARMv8 decrypts units data units of blocks blocks each, one behind the
// other, at least one of both. keys are rounds+1 round keys in order of use. ivs
// are the initialisation vectors; each becomes the last block of ciphertext of its
// data unit.
//
//go:noescape
func decryptARMv8(keys *byte, rounds int, dst, src *byte, blocks, units int, ivs *byte)
