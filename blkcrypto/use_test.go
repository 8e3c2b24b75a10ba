package blkcrypto

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dm-fscrypt.md invariant 52: busy, with a count, or a wait, but never a
// request that loses its key in silence.
func TestEvictionsOfAKeyInUse(t *testing.T) {
	ctx := context.Background()
	for name, tt := range map[string]struct {
		evict func(*Key, context.Context) (Eviction, error)
		want  error
		state int32 // afterwards, with the request still there
	}{
		"idle only": {(*Key).EvictIdle, ErrKeyBusy, keyLive},
		"waiting":   {(*Key).Evict, context.DeadlineExceeded, keyClosed},
		"revoking":  {(*Key).Revoke, nil, keyDead},
	} {
		synctest.Test(t, func(t *testing.T) {
			k, b := testKey(t)
			if err := k.Enter(70); err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			receipt, err := tt.evict(k, short)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil || k.state.Load() != tt.state || k.InUse() != 1 {
				t.Errorf("%s: %v, state %d, %d in use; want %v, %d and 1", name, err, k.state.Load(), k.InUse(), tt.want, tt.state)
			}
			if tt.state == keyClosed && (len(receipt.Places) != 1 || !errors.Is(receipt.Places[0].Err, ErrKeyBusy)) {
				t.Errorf("%s: receipt %+v, want the request that it waited for", name, receipt)
			}
			if b.Wiped() != (tt.state == keyDead) {
				t.Errorf("%s: wiped %v", name, b.Wiped())
			}
			if err := k.Enter(0); errors.Is(err, ErrKeyEvicted) != (tt.state != keyLive) {
				t.Errorf("%s: a new request: %v", name, err)
			} else if err == nil {
				k.Leave(0)
			}
			k.Leave(70)
			if _, err := k.Evict(ctx); err != nil || !b.Wiped() {
				t.Errorf("%s: eviction once it is idle: %v, wiped %v", name, err, b.Wiped())
			}
		})
	}
}

// A Revoke does not stand behind an Evict that waits, and lets it go on.
func TestRevokeEndsAWaitingEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, b := testKey(t)
		if err := k.Enter(1); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { _, err := k.Evict(context.Background()); done <- err }()
		synctest.Wait()
		if _, err := k.Revoke(context.Background()); err != nil || !b.Wiped() {
			t.Errorf("revoke: %v, wiped %v", err, b.Wiped())
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		k.Leave(1)
	})
}

// Retire of several keys closes all or none, and no request fails because of
// one that is refused.
func TestRetireIsAllOrNothing(t *testing.T) {
	a, _ := testKey(t)
	b, _ := testKey(t)
	if err := b.Enter(0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for lane := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := a.Enter(uint16(lane)); err != nil {
					t.Errorf("a request failed while an eviction was refused: %v", err)
					return
				}
				a.Leave(uint16(lane))
			}
		})
	}
	for range 2000 {
		if err := Retire(b, a, b); !errors.Is(err, ErrKeyBusy) || a.Evicted() || b.Evicted() {
			t.Fatalf("%v, evicted %v and %v; want %v and no change", err, a.Evicted(), b.Evicted(), ErrKeyBusy)
		}
	}
	close(stop)
	wg.Wait()
	b.Leave(0)
	if err := Retire(a, b); err != nil || !a.Evicted() || !b.Evicted() {
		t.Errorf("idle keys: %v, evicted %v and %v", err, a.Evicted(), b.Evicted())
	}
	if err := Retire(a); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestLeavingTwicePanics(t *testing.T) {
	k, _ := testKey(t)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	k.Leave(0)
}

func BenchmarkEnterLeave(b *testing.B) {
	k, _ := testKey(b)
	for b.Loop() {
		if err := k.Enter(0); err != nil {
			b.Fatal(err)
		}
		k.Leave(0)
	}
}
