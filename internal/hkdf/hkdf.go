// Package hkdf derives keys by HKDF with SHA-512 and without salt (RFC 5869), and
// keeps whatever it computes on the way in locked memory: the input, the states of
// HMAC and the hash's own. fscrypt derives all keys of its second version so.
package hkdf

import (
	"fmt"
	"sync"
	"unsafe"

	"keyway/internal/secret"
)

// MaxOutput is the most that Expand makes, in bytes.
const MaxOutput = 255 * hashSize

// A Key is a pseudorandom key that other keys are made of. Expand may be called
// from many goroutines at once; none may be running when Wipe is called, or follow
// it.
type Key struct {
	mem *secret.Buffer

	mu   sync.Mutex
	work *work // in mem; guarded by mu; nil once wiped
}

// work lies in locked memory and holds no pointers.
type work struct {
	inner, outer [8]uint64 // states after the padded key
	d            digest
	sum          [hashSize]byte
}

// Extract makes a key of the secret bytes in, of any length, which stay the
// caller's. The salt is as many zeroes as a hash has bytes, as with no salt at all.
func Extract(in []byte) (*Key, error) {
	k, err := allocate()
	if err != nil {
		return nil, err
	}
	secret.Do(func() {
		w := k.work
		var salt [hashSize]byte
		w.setKey(&salt)
		w.begin()
		w.d.write(in)
		w.end()
		w.setKey(&w.sum)
		w.forget()
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
	secret.Do(func() {
		w := k.work
		for i := byte(1); len(dst) > 0; i++ {
			w.begin()
			if i > 1 {
				w.d.write(w.sum[:])
			}
			w.d.write(info)
			w.d.write([]byte{i})
			w.end()
			dst = dst[copy(dst, w.sum[:]):]
		}
		w.forget()
	})
}

// Wipe erases the key. It may be called again, and on a nil key.
func (k *Key) Wipe() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.work = nil
	k.mem.Wipe()
}

// SHA512 writes the hash of in, which is secret, to sum, and leaves nothing of it
// anywhere else.
func SHA512(sum *[hashSize]byte, in []byte) error {
	k, err := allocate()
	if err != nil {
		return err
	}
	defer k.Wipe()
	secret.Do(func() {
		k.work.d.start(&initial, 0)
		k.work.d.write(in)
		k.work.d.finish(sum)
	})
	return nil
}

func allocate() (*Key, error) {
	mem, err := secret.New(int(unsafe.Sizeof(work{})))
	if err != nil {
		return nil, fmt.Errorf("hkdf: %w", err)
	}
	return &Key{mem: mem, work: (*work)(unsafe.Pointer(&mem.Bytes()[0]))}, nil
}

// setKey prepares for HMAC (RFC 2104) with a key of the size of a hash. key may be
// w.sum.
func (w *work) setKey(key *[hashSize]byte) {
	for _, s := range []struct {
		state *[8]uint64
		pad   byte
	}{{&w.inner, 0x36}, {&w.outer, 0x5c}} {
		w.d.start(&initial, 0)
		for i := range w.d.block {
			w.d.block[i] = s.pad
		}
		for i, x := range key {
			w.d.block[i] ^= x
		}
		w.d.compress()
		*s.state = w.d.h
	}
}

// begin and end enclose the message of one HMAC, whose result is in w.sum.
func (w *work) begin() { w.d.start(&w.inner, blockSize) }

func (w *work) end() {
	w.d.finish(&w.sum)
	w.d.start(&w.outer, blockSize)
	w.d.write(w.sum[:])
	w.d.finish(&w.sum)
}

// forget erases all but the key.
//
//go:noinline
func (w *work) forget() {
	w.d = digest{}
	w.sum = [hashSize]byte{}
}
