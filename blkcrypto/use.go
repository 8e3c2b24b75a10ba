package blkcrypto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"

	"keyway/internal/plural"
	"keyway/internal/point"
)

// ErrKeyBusy refuses the eviction of a key that requests use.
var ErrKeyBusy = errors.New("the key is in use")

// The states of a key, in the order in which they come.
const (
	keyLive   = iota
	keyAsked  // Retire looks whether it is idle; Enter waits for the answer
	keyClosed // an eviction waits for the requests under way; there are no new ones
	keyDead   // nobody gets a keyslot for it any more
)

// useShards is the number of counters of a key, a power of two: one for each
// core that may carry requests, so that no two write one cache line.
var useShards = 1 << bits.Len(uint(min(runtime.NumCPU(), 32)-1))

// A useShard is on two cache lines of its own: adjacent ones are fetched in pairs.
type useShard struct {
	inside           atomic.Int64 // requests that use the key
	engine, software atomic.Uint64
	_                [104]byte
}

func (k *Key) shard(lane uint16) *useShard { return &k.uses[int(lane)&(len(k.uses)-1)] }

// Enter counts a request that is going to use k, from its attachment to its
// end, wherever it waits meanwhile: an eviction waits for its Leave. It fails
// with ErrKeyEvicted once the eviction of k has begun. Requests with the flag
// block.KeyHeld have been counted already.
//
// Hot: no allocation.
func (k *Key) Enter(lane uint16) error {
	k.shard(lane).inside.Add(1)
	point.At("blkcrypto: entering")
	if k.state.Load() == keyLive {
		return nil
	}
	return k.enterSlow(lane)
}

func (k *Key) enterSlow(lane uint16) error {
	for {
		k.Leave(lane)
		k.mu.Lock() // whoever asks decides before he gives it back
		closed := k.state.Load() >= keyClosed
		k.mu.Unlock()
		if closed {
			return ErrKeyEvicted
		}
		k.shard(lane).inside.Add(1)
		if k.state.Load() == keyLive {
			return nil
		}
	}
}

// Leave ends what Enter, with the same lane, began.
func (k *Key) Leave(lane uint16) {
	if k.shard(lane).inside.Add(-1) < 0 {
		panic("blkcrypto: a request left a key that it had not entered")
	}
	point.At("blkcrypto: left")
	if k.state.Load() != keyLive {
		k.notify()
	}
}

// notify makes drain look again.
func (k *Key) notify() {
	select {
	case k.left <- struct{}{}:
	default: // one notice is enough: it looks at every shard
	}
}

// InUse is the number of requests that use k, for people: it may be out of date.
func (k *Key) InUse() (n int64) {
	for i := range k.uses {
		n += k.uses[i].inside.Load()
	}
	return n
}

// idle reports whether no request uses a key that is not live. Shards may be
// read one after the other: who enters one that was seen empty leaves again.
func (k *Key) idle() bool {
	for i := range k.uses {
		if k.uses[i].inside.Load() != 0 {
			return false
		}
	}
	return true
}

// Evicted reports whether the eviction of k has begun: no new request may use it.
func (k *Key) Evicted() bool { return k.state.Load() >= keyClosed }

// Dead reports whether k is lost to the requests that use it too.
func (k *Key) Dead() bool { return k.state.Load() == keyDead }

// Served counts a request whose data an engine transformed, or software in its
// place.
//
// Hot: no allocation.
func (k *Key) Served(lane uint16, software bool) {
	if s := k.shard(lane); software {
		s.software.Add(1)
	} else {
		s.engine.Add(1)
	}
}

// ServedBy is how many requests engines have served so far, and how many software
// in their place.
func (k *Key) ServedBy() (engine, software uint64) {
	for i := range k.uses {
		engine += k.uses[i].engine.Load()
		software += k.uses[i].software.Load()
	}
	return engine, software
}

// close lets no new requests in; with dead it takes the key away from those
// that are in. Called without mu.
func (k *Key) close(state int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Load() < state {
		k.state.Store(state)
	}
	k.notify()
}

// drain waits until no request uses k, which is closed, or somebody else has
// declared it dead.
func (k *Key) drain(ctx context.Context) error {
	for !k.idle() && !k.Dead() {
		select {
		case <-k.left:
		case <-ctx.Done():
			return fmt.Errorf("%w by %s: %w", ErrKeyBusy, plural.Of(k.InUse(), "request"), context.Cause(ctx))
		}
	}
	return nil
}

// Retire lets no new requests use keys, if none uses any of them now: an Evict
// of each that follows need not wait. If one is busy it returns ErrKeyBusy, and
// all are as they were: a request that comes at that moment waits for the
// answer, it does not fail.
func Retire(keys ...*Key) error {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.id, b.id) })
	keys = slices.Compact(keys)
	for _, k := range keys {
		k.mu.Lock()
		defer k.mu.Unlock()
	}
	var busy error
	for _, k := range keys {
		if k.state.Load() != keyLive {
			continue
		}
		k.state.Store(keyAsked)
		if !k.idle() && busy == nil {
			busy = fmt.Errorf("key %q: %w by %s", k.name, ErrKeyBusy, plural.Of(k.InUse(), "request"))
		}
	}
	next := int32(keyClosed)
	if busy != nil {
		next = keyLive
	}
	for _, k := range keys {
		if k.state.Load() == keyAsked {
			k.state.Store(next)
		}
	}
	return busy
}
