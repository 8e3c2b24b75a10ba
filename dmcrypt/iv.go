package dmcrypt

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/binary"
	"hash"

	"keyway/internal/secret"
)

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
	"essiv":     essiv,
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

// essiv encrypts the number under a hash of the key.
func essiv(c *Cipher, s *scratch, n uint64) {
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

// hashes are those that make a key for essiv.
var hashes = map[string]func() hash.Hash{
	"sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
}

// newNumber makes the cipher that encrypts numbers for essiv.
func newNumber(p Spec, key []byte) (block, error) {
	h := hashes[p.hash]()
	size := h.BlockSize()
	padded := (len(key) + 1 + size/8 + size - 1) &^ (size - 1)
	mem, err := secret.New(padded + stateRoom)
	if err != nil {
		return nil, err
	}
	defer mem.Wipe()
	return newBlock(p.block, digest(h, mem.Bytes(), key, padded))
}

const (
	stateRoom   = 256 // bytes, of what a hash marshals
	stateHeader = 4   // of them before the state
)

// digest returns the hash of key in mem, of padded+stateRoom bytes. Sum would leave
// copies of the key and of the result on the heap and on the stack. Whole blocks,
// padded here (FIPS 180-4, section 5.1), pass through a hash without being kept
// there, and its state after them is the result.
func digest(h hash.Hash, mem, key []byte, padded int) []byte {
	copy(mem, key)
	mem[len(key)] = 0x80
	binary.BigEndian.PutUint64(mem[padded-8:], uint64(len(key))*8)
	h.Write(mem[:padded])
	state, err := h.(encoding.BinaryAppender).AppendBinary(mem[padded:padded])
	if err != nil || len(state) > stateRoom {
		panic("dmcrypt: a hash of the standard library does not tell its state as it used to")
	}
	n := h.Size()
	h.Reset()
	return state[stateHeader:][:n]
}
