package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc continues a CRC-32C as ext4 keeps it: without the inversions at both ends.
func crc(c uint32, p []byte) uint32 { return ^crc32.Update(^c, castagnoli, p) }

func crc32le(c, v uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return crc(c, b[:])
}

var zeros [4]byte

// crc16 continues the CRC-16 of gdt_csum: polynomial x¹⁶+x¹⁵+x²+1, reflected.
func crc16(c uint16, p []byte) uint16 {
	for _, b := range p {
		c ^= uint16(b)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0xa001
			} else {
				c >>= 1
			}
		}
	}
	return c
}

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

// wide puts a number together whose halves lie apart.
func wide(lo, hi uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }
