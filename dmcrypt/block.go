package dmcrypt

import (
	"fmt"
	"unsafe"

	"golang.org/x/crypto/twofish"

	"keyway/internal/aes"
	"keyway/internal/secret"
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
	"serpent":     {normalSizes, newSerpent},
	"twofish":     {normalSizes, newTwofish},
	"sm4":         {[]int{16}, func(key []byte) (block, error) { return sm4xts.NewBlocks(key) }},
	"cipher_null": {[]int{0}, func([]byte) (block, error) { return null{}, nil }},
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

// twofishKey is an expanded key of golang.org/x/crypto, which has no pointers in it,
// moved to locked memory.
type twofishKey struct {
	mem *secret.Buffer
	c   *twofish.Cipher // in mem
}

func newTwofish(key []byte) (block, error) {
	mem, err := secret.New(int(unsafe.Sizeof(twofish.Cipher{})))
	if err != nil {
		return nil, err
	}
	made, err := twofish.NewCipher(key)
	if err != nil {
		mem.Wipe()
		return nil, err
	}
	c := (*twofish.Cipher)(unsafe.Pointer(&mem.Bytes()[0]))
	*c = *made
	wipe(made)
	return &twofishKey{mem, c}, nil
}

func (t *twofishKey) Encrypt(dst, src []byte) {
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		t.c.Encrypt(dst, src)
	}
}

func (t *twofishKey) Decrypt(dst, src []byte) {
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		t.c.Decrypt(dst, src)
	}
}

func (t *twofishKey) Wipe() {
	t.mem.Wipe()
	t.c = nil
}

// wipe clears what held key bytes; the compiler neither inlines nor removes it.
//
//go:noinline
func wipe[T any](p *T) {
	var zero T
	*p = zero
}
