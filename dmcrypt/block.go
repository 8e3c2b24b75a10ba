package dmcrypt

import (
	"fmt"

	"keyway/internal/aes"
	"keyway/internal/camellia"
	"keyway/sm4xts"
)

const blockSize = 16 // bytes, of every cipher here

// A block is a key of a block cipher. src is whole blocks, each on its own; dst is
// as long and the same memory or disjoint. Many goroutines may call it at once.
type block interface {
	Encrypt(dst, src []byte)
	Decrypt(dst, src []byte)
	Wipe()
}

var normalSizes = []int{16, 24, 32}

// blocks are the block ciphers by the kernel's name.
var blocks = map[string]struct {
	sizes []int // of keys, in bytes
	open  func(key []byte) (block, error)
}{
	"aes":         {normalSizes, func(key []byte) (block, error) { return aes.NewBlocks(key) }},
	"camellia":    {normalSizes, func(key []byte) (block, error) { return camellia.NewBlocks(key) }},
	"serpent":     {normalSizes, newSerpent},
	"twofish":     {normalSizes, newTwofish},
	"sm4":         {[]int{16}, func(key []byte) (block, error) { return sm4xts.NewBlocks(key) }},
	"cipher_null": {[]int{0}, func([]byte) (block, error) { return null{}, nil }},
}

// hashedSizes are those of keys that essiv makes of a hash: Serpent takes any.
func hashedSizes(block string) []int {
	if block == "serpent" {
		return []int{16, 20, 24, 28, 32}
	}
	return blocks[block].sizes
}

func newBlock(name string, key []byte) (block, error) {
	b, err := blocks[name].open(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// null is cipher_null, which leaves data as it is.
type null struct{}

func (null) Encrypt(dst, src []byte) { copy(dst, src) }
func (null) Decrypt(dst, src []byte) { copy(dst, src) }
func (null) Wipe()                   {}

// wipe clears what held key bytes; the compiler neither inlines nor removes it.
//
//go:noinline
func wipe[T any](p *T) {
	var zero T
	*p = zero
}
