package keystore

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"keyway/blkcrypto"
)

// dm-fscrypt.md invariants 51 and 52: a key that tables use in several ways is
// closed to all of them at once. Its eviction must not wait for the requests of one
// while the others go on, nor they use up the time of each other.
func TestEvictClosesAllWaysToUseAKeyAtOnce(t *testing.T) {
	s := &Store{}
	add(t, s, "a")
	var keys []*blkcrypto.Key
	for _, unit := range []int{512, 1024, 2048, 4096} {
		k, _ := use(t, s, "a", unit)
		if err := k.Enter(0); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	evicted := make(chan error, 1)
	go func() {
		_, err := s.Evict(t.Context(), "a", EvictOptions{})
		evicted <- err
	}()
	open := len(keys)
	for end := time.Now().Add(time.Minute); open > 0 && time.Now().Before(end); runtime.Gosched() {
		open = 0
		for _, k := range keys {
			if !k.Evicted() {
				open++
			}
		}
	}
	if open > 0 {
		t.Errorf("the eviction waits for requests, and %d of %d keys take new ones", open, len(keys))
	}
	for _, k := range keys {
		k.Leave(0)
	}
	if err := <-evicted; err != nil {
		t.Error(err)
	}
}

// With IfIdle nothing is waited for, also if another eviction has been waiting and
// gave up.
func TestEvictIfIdleAfterAnEvictionThatGaveUp(t *testing.T) {
	s := &Store{}
	add(t, s, "a")
	k, _ := use(t, s, "a", 4096)
	if err := k.Enter(0); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Evict(ended, "a", EvictOptions{}); !errors.Is(err, blkcrypto.ErrKeyBusy) {
		t.Fatalf("evict: %v, want %v", err, blkcrypto.ErrKeyBusy)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Evict(short, "a", EvictOptions{IfIdle: true}); !errors.Is(err, blkcrypto.ErrKeyBusy) || short.Err() != nil {
		t.Errorf("evict if idle: %v, want %v at once", err, blkcrypto.ErrKeyBusy)
	}
	k.Leave(0)
	if _, err := s.Evict(t.Context(), "a", EvictOptions{IfIdle: true}); err != nil {
		t.Errorf("evict if idle, when it is: %v", err)
	}
}
