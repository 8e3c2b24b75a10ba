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

// hashes are those that make a key for essiv, by the kernel's name, with the bytes of
// their result. sum makes it of key in mem, which is all zero.
var hashes = map[string]struct {
	size int
	sum  func(mem, key []byte) []byte
}{
	"md5":    {16, sumMD5},
	"rmd160": {20, sumRIPEMD},
	"sha1":   {20, standard(sha1.New)},
	"sha224": {28, standard(sha256.New224)},
	"sha256": {32, standard(sha256.New)},
	"sha384": {48, standard(sha512.New384)},
	"sha512": {64, standard(sha512.New)},
}

// hashRoom is the memory in bytes that a hash needs beside its padded message, and
// hashPadding the most that its padding takes.
const (
	stateRoom   = 256 // of what a hash marshals
	stateHeader = 4   // of them before the state
	hashPadding = 1 + 16 + 128
)

// newNumber makes the cipher that encrypts numbers for essiv.
func newNumber(p Spec, key []byte) (block, error) {
	mem, err := secret.New(len(key) + hashPadding + stateRoom)
	if err != nil {
		return nil, err
	}
	defer mem.Wipe()
	return newBlock(p.block, hashes[p.hash].sum(mem.Bytes(), key))
}

// pad writes key and the padding of a hash with blocks of size bytes, but for the
// length, to mem, and returns how many bytes that is.
func pad(mem, key []byte, size int) int {
	secret.Move(mem, key)
	mem[len(key)] = 0x80
	return (len(key) + 1 + size/8 + size - 1) &^ (size - 1)
}

// standard is a hash of the standard library. Sum would leave copies of the key and of
// the result on the heap and on the stack. Whole blocks, padded here (FIPS 180-4,
// section 5.1), pass through a hash without being kept there, and its state after them
// is the result.
func standard(open func() hash.Hash) func(mem, key []byte) []byte {
	return func(mem, key []byte) []byte {
		h := open()
		n := pad(mem, key, h.BlockSize())
		binary.BigEndian.PutUint64(mem[n-8:], uint64(len(key))*8)
		h.Write(mem[:n])
		state, err := h.(encoding.BinaryAppender).AppendBinary(mem[n:n])
		if err != nil || len(state) > stateRoom {
			panic("dmcrypt: a hash of the standard library does not tell its state as it used to")
		}
		size := h.Size()
		h.Reset()
		return state[stateHeader:][:size]
	}
}

// words writes the state of a hash with little endian words to mem.
func words(mem []byte, state []uint32) []byte {
	for i, w := range state {
		binary.LittleEndian.PutUint32(mem[4*i:], w)
	}
	return mem[:4*len(state)]
}

// sumMD5 is MD5 (RFC 1321).
func sumMD5(mem, key []byte) []byte {
	n := pad(mem, key, 64)
	binary.LittleEndian.PutUint64(mem[n-8:], uint64(len(key))*8)
	h := md5Start
	for at := 0; at < n; at += 64 {
		md5Block(&h, mem[at:])
	}
	sum := words(mem[n:], h[:])
	wipe(&h)
	return sum
}

// sumRIPEMD is RIPEMD-160.
func sumRIPEMD(mem, key []byte) []byte {
	n := pad(mem, key, 64)
	binary.LittleEndian.PutUint64(mem[n-8:], uint64(len(key))*8)
	h := ripemdStart
	for at := 0; at < n; at += 64 {
		ripemdBlock(&h, mem[at:])
	}
	sum := words(mem[n:], h[:])
	wipe(&h)
	return sum
}
