package dmcrypt

import (
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
)

// BitLocker's diffuser: Ferguson, "AES-CBC + Elephant diffuser", 2006. Its words
// are little endian, and indices are modulo their number in the sector.

var (
	turnsA = [4]int{9, 0, 13, 0}
	turnsB = [4]int{0, 10, 0, 25}
)

const (
	roundsA = 5
	roundsB = 3

	sectorKey = 32 // bytes
)

// addSectorKey adds the key of the sector numbered n to every 32 bytes of p.
func (c *Cipher) addSectorKey(p []byte, s *scratch, n uint64) {
	clear(s.number[:])
	binary.LittleEndian.PutUint64(s.number[:], n*uint64(c.sector))
	key := s.masks[:sectorKey]
	c.diffuse.Encrypt(key, s.number[:])
	s.number[blockSize-1] = 0x80
	c.diffuse.Encrypt(key[blockSize:], s.number[:])
	for ; len(p) > 0; p = p[sectorKey:] {
		subtle.XORBytes(p, p, key)
	}
}

func (c *Cipher) diffuseEncrypt(p []byte, s *scratch, n uint64) {
	c.addSectorKey(p, s, n)
	words := len(p) / 4
	for i := roundsA*words - 1; i >= 0; i-- {
		at := i % words
		add(p, at, -mix(p, at-2, at-5, turnsA[at%4]))
	}
	for i := roundsB*words - 1; i >= 0; i-- {
		at := i % words
		add(p, at, -mix(p, at+2, at+5, turnsB[at%4]))
	}
}

func (c *Cipher) diffuseDecrypt(p []byte, s *scratch, n uint64) {
	words := len(p) / 4
	for i := range roundsB * words {
		at := i % words
		add(p, at, mix(p, at+2, at+5, turnsB[at%4]))
	}
	for i := range roundsA * words {
		at := i % words
		add(p, at, mix(p, at-2, at-5, turnsA[at%4]))
	}
	c.addSectorKey(p, s, n)
}

// mix joins two words of p, whose number is a power of two.
func mix(p []byte, i, j, turn int) uint32 {
	mask := len(p)/4 - 1
	return word(p, i&mask) ^ bits.RotateLeft32(word(p, j&mask), turn)
}

func word(p []byte, i int) uint32 { return binary.LittleEndian.Uint32(p[4*i:]) }

func add(p []byte, i int, x uint32) { binary.LittleEndian.PutUint32(p[4*i:], word(p, i)+x) }
