package dmcrypt

import (
	"encoding/binary"
	"hash/crc32"
)

// whiten adds to every eight bytes of a sector what tcw (TrueCrypt before version
// 4.1) makes of its second secret and the number: a CRC32 of each quarter, folded.
func (c *Cipher) whiten(dst, src []byte, n uint64, s *scratch) {
	secret := c.secrets.Bytes()[blockSize:]
	var q [4]uint32
	for i := range q {
		b := s.number[:4]
		binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(secret[4*i:])^uint32(n>>(i%2*32)))
		q[i] = plainCRC(b)
	}
	mask := uint64(q[0]^q[3]) | uint64(q[1]^q[2])<<32
	for i := 0; i < len(src); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(src[i:])^mask)
	}
}

// plainCRC is CRC-32 from zero, without the inversions at its ends.
func plainCRC(b []byte) uint32 { return ^crc32.Update(^uint32(0), crc32.IEEETable, b) }
