package fscrypt

import (
	"fmt"
	"math"
	"math/bits"
)

// A FileSystem is what keys and the numbers of data units depend on.
type FileSystem struct {
	UUID          [16]byte
	BlockSize     int   // bytes, a power of two from 512 to 65536
	MaxFileSize   int64 // bytes: how large a file may become
	SubBlockUnits bool  // data units may be smaller than a block
	StableInodes  bool  // inodes keep their numbers
	ShortInodes   bool  // inode numbers have 32 bits
}

// Ext4 is an ext4 with blocks of blockSize bytes; stable says whether it has the
// feature stable_inodes.
func Ext4(uuid [16]byte, blockSize int, stable bool) FileSystem {
	most := int64(math.MaxUint32) // extents have block numbers of 32 bits, and a length
	return FileSystem{
		UUID: uuid, BlockSize: blockSize, MaxFileSize: most * int64(blockSize),
		SubBlockUnits: true, StableInodes: stable, ShortInodes: true,
	}
}

// F2FS is an f2fs with blocks of blockSize bytes, which are 4096 unless it was made
// for larger pages.
func F2FS(uuid [16]byte, blockSize int) FileSystem {
	// Two direct nodes, two indirect and one doubly indirect, with addresses of 4 bytes
	// but for a footer; the few in the inode do not count. The limit keeps IV_INO_LBLK_*
	// possible.
	n := int64(blockSize-24) / 4
	return FileSystem{
		UUID: uuid, BlockSize: blockSize, MaxFileSize: min((2*n+2*n*n+n*n*n)*int64(blockSize), 4096<<32),
		SubBlockUnits: true, StableInodes: true, ShortInodes: true,
	}
}

func (fs FileSystem) check() error {
	switch shift := fs.blockShift(); {
	case fs.BlockSize <= 0 || fs.BlockSize != 1<<shift || shift < minUnitShift || shift > maxUnitShift:
		return fmt.Errorf("fscrypt: a file system with blocks of %d bytes: must be a power of two from %d to %d",
			fs.BlockSize, 1<<minUnitShift, 1<<maxUnitShift)
	case fs.MaxFileSize < int64(fs.BlockSize):
		return fmt.Errorf("fscrypt: a file system with files of at most %d bytes", fs.MaxFileSize)
	}
	return nil
}

func (fs FileSystem) blockShift() int { return bits.TrailingZeros(uint(fs.BlockSize)) }

// unitBits is how many bits the numbers of a file's data units of 1<<shift bytes
// have.
func (fs FileSystem) unitBits(shift int) int {
	return max(1, bits.Len64(uint64(fs.MaxFileSize-1))-shift)
}
