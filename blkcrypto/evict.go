package blkcrypto

import (
	"context"
	"fmt"
	"sync"

	"keyway/internal/point"
)

// A Place is one line of the receipt of an eviction.
type Place struct {
	Holder string // which engine or target, in words of its owner
	Detail string // where in it: "keyslot 3", "in no keyslot"
	Err    error  // nil: the key is gone from there
}

// An Eviction is the receipt of Evict: every place that was ever told the key.
type Eviction struct {
	Key    string // the key's name
	ID     uint64
	Places []Place
}

// Err returns nil if the key is gone from every place, else an error that
// names the first place where it is not.
func (e Eviction) Err() error {
	for _, p := range e.Places {
		if p.Err != nil {
			return fmt.Errorf("key %q is not evicted from %s: %w", e.Key, p.Holder, p.Err)
		}
	}
	return nil
}

// Evict makes every new use of k fail with ErrKeyEvicted, waits for the
// requests that use it, and wipes it from every holder and then from memory.
// All holders are tried, whatever the others answer. The error is nil only if
// the key is gone from all; otherwise the key stays unusable and Evict may be
// called again: also if ctx ended while requests were using it, which then
// still may. Evict of a key that is gone is a success without places.
func (k *Key) Evict(ctx context.Context) (Eviction, error) {
	k.close(keyClosed)
	point.At("blkcrypto: closed")
	return k.evict(ctx)
}

// EvictIdle is Evict if no request uses k; otherwise it returns ErrKeyBusy, and
// k is as usable as it was.
func (k *Key) EvictIdle(ctx context.Context) (Eviction, error) {
	if err := Retire(k); err != nil {
		return Eviction{Key: k.name, ID: k.id}, err
	}
	point.At("blkcrypto: retired")
	return k.evict(ctx)
}

// Revoke is Evict that waits for no more than the keyslots in use: requests that
// use k and wait for something else, a device or the end of a suspension, will
// fail with ErrKeyEvicted. An Evict that waits for them goes on at once.
func (k *Key) Revoke(ctx context.Context) (Eviction, error) {
	k.close(keyDead)
	return k.evict(ctx)
}

// evict is what all have in common; k is closed or dead.
func (k *Key) evict(ctx context.Context) (Eviction, error) {
	receipt := Eviction{Key: k.name, ID: k.id}
	if err := k.takeTurn(ctx); err != nil {
		return receipt, fmt.Errorf("key %q: another eviction of it is under way: %w", k.name, err)
	}
	defer func() { <-k.evicting }()
	if err := k.drain(ctx); err != nil {
		receipt.Places = []Place{{Holder: "requests", Detail: "which use it", Err: err}}
		return receipt, receipt.Err()
	}
	k.close(keyDead)
	point.At("blkcrypto: dead")

	k.mu.Lock()
	holders := k.holders
	k.mu.Unlock()
	receipt.Places = make([]Place, len(holders))
	var wg sync.WaitGroup
	for i, h := range holders {
		wg.Go(func() {
			point.AtIndex("blkcrypto: asking holder", i)
			receipt.Places[i] = h.EvictKey(ctx, k)
		})
	}
	wg.Wait()
	point.At("blkcrypto: asked")

	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders = nil
	for i, p := range receipt.Places {
		if p.Err != nil {
			k.holders = append(k.holders, holders[i])
		}
	}
	if len(k.holders) == 0 && !k.gone {
		k.bytes.Wipe()
		k.gone = true
	}
	return receipt, receipt.Err()
}

// takeTurn waits for the end of another eviction of k, also with no time to wait.
func (k *Key) takeTurn(ctx context.Context) error {
	select {
	case k.evicting <- struct{}{}:
		return nil
	default:
	}
	select {
	case k.evicting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
