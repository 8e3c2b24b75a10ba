// Package hkdf derives keys by HKDF with SHA-512 and without salt (RFC 5869), and
// keeps whatever it computes on the way in key memory: the input, the states of HMAC
// and the hash's own. fscrypt derives all keys of its second version so.
package hkdf

import (
	"fmt"
	"sync"

	"keyway/internal/digest"
	"keyway/internal/secret"
)

const (
	function  = "sha512"
	hashSize  = 64  // bytes of a hash
	blockSize = 128 // bytes that the function takes at once
)

// MaxOutput is the most that Expand makes, in bytes.
const MaxOutput = 255 * hashSize

// A Key is a pseudorandom key that other keys are made of. Expand may be called
// from many goroutines at once; none may be running when Wipe is called, or follow
// it.
type Key struct {
	mu   sync.Mutex     // guards all that follows
	work *digest.Hash   // nil once wiped
	mem  *secret.Buffer // of the slices

	inner, outer []byte // states of work after the padded key
	last         []byte // result of HMAC
	pad          []byte
}

// Extract makes a key of the secret bytes in, of any length, which stay the
// caller's. The salt is as many zeroes as a hash has bytes, as with no salt at all.
func Extract(in []byte) (*Key, error) {
	work, err := digest.New(function)
	if err != nil {
		return nil, fmt.Errorf("hkdf: %w", err)
	}
	n := len(work.State())
	mem, err := secret.New(2*n + hashSize + blockSize)
	if err != nil {
		work.Wipe()
		return nil, fmt.Errorf("hkdf: %w", err)
	}
	b := mem.Bytes()
	k := &Key{work: work, mem: mem, inner: b[:n], outer: b[n:][:n], last: b[2*n:][:hashSize], pad: b[2*n+hashSize:]}
	digest.Do(func() {
		k.setKey()
		k.begin()
		work.Write(in)
		k.end()
		copy(k.pad, k.last)
		k.setKey()
		k.forget()
	})
	return k, nil
}

// Expand fills dst with the key that belongs to info. It panics beyond MaxOutput
// bytes: a mistake of the caller's, since lengths are constants of a format.
func (k *Key) Expand(dst, info []byte) {
	if len(dst) > MaxOutput {
		panic("hkdf: more output than there is")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.work == nil {
		panic("hkdf: key used after Wipe")
	}
	digest.Do(func() {
		var counter [1]byte
		for len(dst) > 0 {
			k.begin()
			if counter[0]++; counter[0] > 1 {
				k.work.Write(k.last)
			}
			k.work.Write(info)
			k.work.Write(counter[:])
			k.end()
			dst = dst[copy(dst, k.last):]
		}
		k.forget()
	})
}

// Wipe erases the key. It may be called again, and on a nil key.
func (k *Key) Wipe() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.work.Wipe()
	k.mem.Wipe()
	k.work = nil
}

// SHA512 writes the hash of in, which is secret, to sum, and leaves nothing of it
// anywhere else.
func SHA512(sum *[hashSize]byte, in []byte) error {
	h, err := digest.New(function)
	if err != nil {
		return fmt.Errorf("hkdf: %w", err)
	}
	defer h.Wipe()
	digest.Do(func() {
		h.Write(in)
		copy(sum[:], h.Digest())
	})
	return nil
}

// setKey prepares for HMAC (RFC 2104) with the key in pad, which has zeroes up to
// its end, and clears it.
func (k *Key) setKey() {
	for _, s := range []struct {
		state []byte
		pad   byte
	}{{k.inner, 0x36}, {k.outer, 0x36 ^ 0x5c}} { // the second undoes the first
		for i := range k.pad {
			k.pad[i] ^= s.pad
		}
		k.work.Reset()
		k.work.Write(k.pad)
		copy(s.state, k.work.State())
	}
	clear(k.pad)
}

// begin and end enclose the message of one HMAC, whose result is in last.
func (k *Key) begin() { copy(k.work.State(), k.inner) }

func (k *Key) end() {
	copy(k.last, k.work.Digest())
	copy(k.work.State(), k.outer)
	k.work.Write(k.last)
	copy(k.last, k.work.Digest())
}

// forget erases all but the key.
func (k *Key) forget() {
	copy(k.work.State(), k.inner)
	clear(k.work.Digest()) // the memory that it returns has had the last result
	clear(k.last)
}
