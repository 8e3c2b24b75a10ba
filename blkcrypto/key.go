package blkcrypto

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"keyway/internal/point"
	"keyway/internal/secret"
)

// MaxWrapped is the largest hardware-wrapped key in bytes.
const MaxWrapped = 128

// ErrKeyEvicted answers the use of a key whose eviction has begun.
var ErrKeyEvicted = errors.New("the key has been evicted")

// ErrWeakKey refuses an XTS key whose halves are equal: it would encrypt each
// data unit's number with the key of its data.
var ErrWeakKey = errors.New("weak key: the two halves of the XTS key are equal")

var lastID atomic.Uint64

// A Key is immutable and shared by all requests that use it. Its identity is
// a number that is never used again in the life of the process: equal bytes
// added twice are two keys, and nothing that remembers an old key can meet a
// new one at its place (Linux identifies keys by address, which can).
type Key struct {
	id    uint64
	shift uint8 // log2 of the bytes by which a DUN advances
	cfg   Config
	name  string
	bytes *secret.Buffer

	state atomic.Int32 // keyLive and so on; changed with mu held
	uses  []useShard
	left  chan struct{} // a Leave while not live
	slots slotCounts

	mu      sync.Mutex
	holders []Holder // every place that was ever told the key; guarded by mu
	gone    bool     // every holder confirmed and the bytes are wiped; guarded by mu

	evicting chan struct{} // holds one token: evictions of one key run one at a time
}

// A Holder is a place that keeps a key or something made of it: a keyslot
// manager, a cipher of a target.
type Holder interface {
	// EvictKey returns when no request uses k at this place and nothing of k
	// is left there, or says why it could not. It is called again until it
	// succeeds, and for a key that the holder no longer has.
	EvictKey(ctx context.Context, k *Key) Place
}

// NewKey makes a key of the bytes in b and owns b from then on, also when it
// fails. name is for people; it need not be unique.
// It refuses what Check of the config refuses, a wrong length, and an XTS key
// with equal halves (blkcrypto.md, section 1: Linux's engines take such a key
// and its fallback fails at the first request).
func NewKey(name string, c Config, b *secret.Buffer) (*Key, error) {
	return newKey(name, c, b, false)
}

// NewDMCryptKey is NewKey without the check for weak XTS keys, which dm-crypt
// takes: a disk that was written with one must remain readable.
func NewDMCryptKey(name string, c Config, b *secret.Buffer) (*Key, error) {
	return newKey(name, c, b, true)
}

func newKey(name string, c Config, b *secret.Buffer, weak bool) (*Key, error) {
	if err := checkKey(c, b, weak); err != nil {
		b.Wipe()
		return nil, fmt.Errorf("key %q: %w", name, err)
	}
	k := &Key{
		id: lastID.Add(1), shift: uint8(c.dunShift()), cfg: c, name: name, bytes: b,
		uses: make([]useShard, useShards), left: make(chan struct{}, 1), evicting: make(chan struct{}, 1),
	}
	return k, nil
}

func checkKey(c Config, b *secret.Buffer, weak bool) error {
	if err := c.Check(); err != nil {
		return err
	}
	n := b.Len()
	if c.KeyType == HWWrapped {
		if n < c.Mode.Strength() || n > MaxWrapped {
			return fmt.Errorf("a wrapped key of %d bytes: %v takes %d to %d", n, c.Mode, c.Mode.Strength(), MaxWrapped)
		}
		return nil
	}
	if c.Mode == DMCrypt {
		return nil // its user knows
	}
	if n != c.Mode.KeySize() {
		return fmt.Errorf("a key of %d bytes: %v takes exactly %d", n, c.Mode, c.Mode.KeySize())
	}
	if half := n / 2; !weak && modes[c.Mode].xts &&
		subtle.ConstantTimeCompare(b.Bytes()[:half], b.Bytes()[half:]) == 1 {
		return ErrWeakKey
	}
	return nil
}

// ID returns the number of the key, never 0.
func (k *Key) ID() uint64 { return k.id }

// Name returns the name that the key was given.
func (k *Key) Name() string { return k.name }

// Config returns how the key encrypts.
func (k *Key) Config() Config { return k.cfg }

// String names the key without a byte of it.
func (k *Key) String() string { return fmt.Sprintf("%q (%v)", k.name, k.cfg) }

// Program records h as a holder of k and calls use with the bytes of k, which
// are valid until use returns. The record is made first and stays whatever
// use returns, so that the holders are never fewer than the places of the key
// (dm-fscrypt.md, invariant 50). It fails with ErrKeyEvicted, without calling
// use, once k is dead.
func (k *Key) Program(h Holder, use func(bytes []byte) error) error {
	if err := k.hold(h); err != nil {
		return err
	}
	point.At("blkcrypto: held")
	return use(k.bytes.Bytes())
}

// Use calls use with the bytes of k, which are valid until use returns, for a
// holder of k that has not confirmed an eviction: also while one waits for it.
func (k *Key) Use(h Holder, use func(bytes []byte) error) error {
	k.mu.Lock()
	held := slices.Contains(k.holders, h)
	k.mu.Unlock()
	if !held {
		return ErrKeyEvicted
	}
	return use(k.bytes.Bytes())
}

func (k *Key) hold(h Holder) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Dead() {
		return ErrKeyEvicted
	}
	for _, old := range k.holders {
		if old == h {
			return nil
		}
	}
	k.holders = append(k.holders, h)
	return nil
}

// Release takes h off the holders, once nothing of k is left in it.
func (k *Key) Release(h Holder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, old := range k.holders {
		if old == h {
			k.holders = append(k.holders[:i:i], k.holders[i+1:]...)
			return
		}
	}
}
