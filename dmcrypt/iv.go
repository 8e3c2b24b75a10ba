package dmcrypt

import "encoding/binary"

// An ivMode writes the IV of the sector numbered n, into s.iv, which is zero. n is
// in sectors of 512 bytes, or in larger ones with iv_large_sectors. The modes and
// what they write are those of dm-crypt.
type ivMode func(c *Cipher, s *scratch, n uint64)

// ivs are the IV modes by name.
var ivs = map[string]ivMode{
	"plain":     func(_ *Cipher, s *scratch, n uint64) { binary.LittleEndian.PutUint32(s.iv[:], uint32(n)) },
	"plain64":   func(_ *Cipher, s *scratch, n uint64) { binary.LittleEndian.PutUint64(s.iv[:], n) },
	"plain64be": func(c *Cipher, s *scratch, n uint64) { binary.BigEndian.PutUint64(s.iv[c.ivSize-8:], n) },
	"benbi":     benbi,
	"null":      func(*Cipher, *scratch, uint64) {},
	"essiv":     essivIV,
	"eboiv":     eboiv,
	"elephant":  eboiv,
	"lmk":       func(*Cipher, *scratch, uint64) {}, // depends on the data: see lmk.go
	"tcw":       tcwIV,
}

// benbi is the number of the sector's first block among all blocks, from 1.
func benbi(c *Cipher, s *scratch, n uint64) {
	const blocksShift = 9 - 4 // log2 of the blocks in 512 bytes
	binary.BigEndian.PutUint64(s.iv[c.ivSize-8:], n<<blocksShift+1)
}

// essivIV encrypts the number under a hash of the key.
func essivIV(c *Cipher, s *scratch, n uint64) {
	binary.LittleEndian.PutUint64(s.iv[:], n)
	c.number[c.chosen(n)].Encrypt(s.iv[:blockSize], s.iv[:blockSize])
}

// eboiv encrypts the offset in bytes under the first key of the data.
func eboiv(c *Cipher, s *scratch, n uint64) {
	binary.LittleEndian.PutUint64(s.iv[:], n*uint64(c.sector))
	c.bulks[0].(*cbc).b.Encrypt(s.iv[:blockSize], s.iv[:blockSize])
}

// tcwIV is the secret seed with the number in both halves.
func tcwIV(c *Cipher, s *scratch, n uint64) {
	seed := c.secrets.Bytes()
	for i := 0; i < blockSize; i += 8 {
		binary.LittleEndian.PutUint64(s.iv[i:], binary.LittleEndian.Uint64(seed[i:])^n)
	}
}
