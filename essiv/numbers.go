package essiv

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// numbers makes initialisation vectors of the numbers of data units.
type numbers struct{ key *aes.Blocks }

func newNumbers(key []byte) (numbers, error) {
	mem, err := secret.New(digestRoom)
	if err != nil {
		return numbers{}, err
	}
	defer mem.Wipe()
	b, err := aes.NewBlocks(digest(mem.Bytes(), key))
	return numbers{b}, err
}

func (n numbers) wipe() { n.key.Wipe() }

// fill writes the initialisation vectors of units data units, the numbers of which
// begin with dun and grow by step, to ivs, and repeats the last one up to its end.
//
// Hot: no allocation.
func (n numbers) fill(ivs []byte, dun [2]uint64, step uint64, units int) {
	for k := range len(ivs) / blockLen {
		binary.LittleEndian.PutUint64(ivs[k*blockLen:], dun[0])
		binary.LittleEndian.PutUint64(ivs[k*blockLen+8:], dun[1])
		if k < units-1 {
			dun = dataunit.Add128(dun, int(step))
		}
	}
	n.key.Encrypt(ivs, ivs)
}

const (
	digestRoom  = sha256.BlockSize + 128
	digestState = 4 // bytes before the state in what sha256 marshals
)

// digest returns the SHA-256 of key, which fits into one block together with the
// padding, in mem, of digestRoom bytes. Sum would leave copies of the key and of
// the result on the heap and on the stack. A whole block, padded here, passes
// through the hash without being kept there, and its state after that is the
// result.
func digest(mem, key []byte) []byte {
	block := mem[:sha256.BlockSize]
	copy(block, key)
	block[len(key)] = 0x80
	binary.BigEndian.PutUint64(block[sha256.BlockSize-8:], uint64(len(key))*8)

	h := sha256.New()
	h.Write(block)
	state, err := h.(encoding.BinaryAppender).AppendBinary(mem[sha256.BlockSize:sha256.BlockSize])
	if err != nil || len(state) > digestRoom-sha256.BlockSize {
		panic("essiv: crypto/sha256 does not tell its state as it used to")
	}
	h.Reset()
	return state[digestState:][:sha256.Size]
}
