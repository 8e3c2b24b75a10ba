// Package pbkdf2 derives keys of passphrases with PBKDF2 and HMAC (RFC 8018,
// section 5.2; RFC 2104), over any hash function of package digest.
//
// All state is in memory of internal/secret and wiped: that of the hash functions
// before and after the padded passphrase, which every iteration begins with, and of
// the block that is computed. What the hash functions leave on the stack is
// overwritten at the end. Blocks, if the key is longer than a digest, are computed
// in parallel, on as many CPUs as there are.
package pbkdf2

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"keyway/internal/digest"
	"keyway/internal/secret"
)

// slice is the number of iterations after which a block looks whether it is
// cancelled: about a millisecond.
const slice = 2048

// Key fills dst with what PBKDF2 makes of a passphrase and a salt; all three stay
// the caller's. hash is a name that package digest knows, iterations is 1 or more.
// It blocks for as long as that takes, or until ctx is done. On an error dst holds
// zeroes. Errors are of the arguments, of ctx, and of key memory that cannot be had.
func Key(ctx context.Context, dst, passphrase, salt []byte, hash string, iterations int) error {
	clear(dst)
	if iterations < 1 || uint64(iterations) > math.MaxUint32 {
		return fmt.Errorf("pbkdf2: %d iterations are not 1 to %d", iterations, uint32(math.MaxUint32))
	}
	if len(dst) == 0 {
		return errors.New("pbkdf2: a key of no bytes")
	}
	h, err := newHMAC(hash, passphrase)
	if err != nil {
		return fmt.Errorf("pbkdf2: %w", err)
	}
	defer h.wipe()
	size := h.inner.Size()
	blocks := (len(dst) + size - 1) / size
	if uint64(blocks) > math.MaxUint32 {
		return fmt.Errorf("pbkdf2: a key of %d bytes is more than 2^32-1 digests", len(dst))
	}
	errs := make([]error, blocks)
	var rest sync.WaitGroup
	for i := range blocks {
		one := func() {
			errs[i] = h.block(ctx, dst[i*size:min((i+1)*size, len(dst))], salt, i+1, iterations)
		}
		if i < blocks-1 {
			rest.Go(one)
		} else {
			one() // here: a short key needs no other goroutine
		}
	}
	rest.Wait()
	if err := errors.Join(errs...); err != nil {
		clear(dst)
		return errs[blocks-1]
	}
	return nil
}

// hmac is what a passphrase makes of a hash function.
type hmac struct {
	hash         string
	inner, outer *digest.Hash // after one block, and not changed any more
}

func newHMAC(hash string, passphrase []byte) (*hmac, error) {
	pad, err := secret.New(digest.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	defer pad.Wipe()
	h := &hmac{hash: hash}
	if h.inner, err = digest.New(hash); err != nil {
		return nil, err
	}
	if h.outer, err = digest.New(hash); err != nil {
		h.wipe()
		return nil, err
	}
	key := pad.Bytes()[:h.inner.BlockSize()]
	digest.Do(func() {
		if len(passphrase) > len(key) {
			h.inner.Write(passphrase)
			copy(key, h.inner.Digest())
			h.inner.Reset()
		} else {
			copy(key, passphrase)
		}
		for i := range key {
			key[i] ^= 0x36
		}
		h.inner.Write(key)
		for i := range key {
			key[i] ^= 0x36 ^ 0x5c
		}
		h.outer.Write(key)
	})
	return h, nil
}

func (h *hmac) wipe() {
	h.inner.Wipe()
	h.outer.Wipe()
}

// block computes block i of the key, or the first bytes of it.
func (h *hmac) block(ctx context.Context, dst, salt []byte, i, iterations int) error {
	w, err := digest.New(h.hash)
	if err != nil {
		return err
	}
	defer w.Wipe()
	mem, err := secret.New(w.Size())
	if err != nil {
		return err
	}
	defer mem.Wipe()
	sum := mem.Bytes()
	state, inner, outer := w.State(), h.inner.State(), h.outer.State()
	var u []byte
	finish := func() { // the outer hash of what w has hashed
		u = w.Digest()
		copy(state, outer)
		w.Write(u)
		u = w.Digest()
		subtle.XORBytes(sum, sum, u)
	}
	digest.Do(func() {
		copy(state, inner)
		w.Write(salt)
		var number [4]byte
		binary.BigEndian.PutUint32(number[:], uint32(i))
		w.Write(number[:])
		finish()
	})
	for left := iterations - 1; left > 0; left -= slice {
		if err := ctx.Err(); err != nil {
			return err
		}
		digest.Do(func() {
			for range min(left, slice) {
				copy(state, inner)
				w.Write(u)
				finish()
			}
		})
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	digest.Do(func() { copy(dst, sum) }) // through registers
	return nil
}
