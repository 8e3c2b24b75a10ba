package keyslot_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/race"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
	"keyway/keyslot/soft"
)

// listener is a Tracer that keeps what it is told; its clock ticks at each look.
type listener struct {
	mu       sync.Mutex
	now      int64
	requests []keyslot.Traced
	evicted  []eviction
}

type eviction struct {
	id         uint64
	start, end int64
}

func (l *listener) Now() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now++
	return l.now
}

func (l *listener) Request(r keyslot.Traced) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, r)
}

func (l *listener) Evicted(k *blkcrypto.Key, start, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evicted = append(l.evicted, eviction{k.ID(), start, end})
}

// TestTracerIsTold: each request that used an engine, once, with what it was, also one
// that failed; those without a context and those that are to come again are none.
func TestTracerIsTold(t *testing.T) {
	for name, put := range map[string]func(block.Device, *keyslot.Manager) block.Device{"engine": keyslot.Over, "fallback": keyslot.Fallback} {
		t.Run(name, func(t *testing.T) {
			m, e := newManager(t, 2)
			l := &listener{}
			disk := newRAM(t, 1<<20)
			dev := put(disk, m)
			a, b := newKey(t, "a"), newKey(t, "b")
			send := func(r block.Request, want error) {
				t.Helper()
				if r.Op.HasData() {
					r.Data = block.Bytes(make([]byte, r.Len))
				}
				if err := dev.Do(ctx, r); !errors.Is(err, want) {
					t.Errorf("%+v: %v, want %v", r, err, want)
				}
			}
			write := block.Request{Op: block.OpWrite, Off: 4096, Len: 512, Crypt: blkcrypto.Context{Key: a.Key, DUN: blkcrypto.DUN64(7)}}
			read := block.Request{Op: block.OpRead, Off: 8192, Len: 1024, Crypt: blkcrypto.Context{Key: b.Key, DUN: blkcrypto.DUN{1, 2}}}
			failing := read
			failing.Op, failing.Crypt.Key = block.OpWrite, a.Key
			send(write, nil) // nobody listens
			m.Trace(l)
			send(write, nil)
			again := read
			again.Flags = block.NoWait
			send(again, block.ErrWouldBlock) // its key is in no slot
			send(read, nil)
			send(block.Request{Op: block.OpWrite, Len: 512}, nil)
			send(block.Request{Op: block.OpFlush}, nil)
			e.Fault = fault(enginetest.Crypt, always)
			send(failing, errFault)
			e.Fault = nil
			m.Trace(nil)
			send(write, nil)
			want := []keyslot.Traced{
				{Op: block.OpWrite, Crypt: write.Crypt, Off: 4096, Len: 512, Start: 1, End: 2},
				{Op: block.OpRead, Crypt: read.Crypt, Off: 8192, Len: 1024, Start: 4, End: 5},
				{Op: block.OpWrite, Failed: true, Crypt: failing.Crypt, Off: 8192, Len: 1024, Start: 6, End: 7},
			}
			if !reflect.DeepEqual(l.requests, want) {
				t.Errorf("told of\n%+v, want\n%+v", l.requests, want)
			}
		})
	}
}

// TestTracerIsToldOfEvictions: those that succeeded, of the key, and of nothing that a
// passthrough manager has.
func TestTracerIsToldOfEvictions(t *testing.T) {
	m, e := newManager(t, 2)
	l := &listener{}
	m.Trace(l)
	a, b := newKey(t, "a"), newKey(t, "b")
	use(t, m, a)
	use(t, m, b)
	e.Fault = fault(enginetest.Evict, func(c enginetest.Call) bool { return c.Slot == 0 })
	if err := m.Evict(ctx, a.Key); err == nil {
		t.Error("the engine did what it was told not to")
	}
	if _, err := b.Key.Evict(ctx); err != nil {
		t.Error(err)
	}
	e.Fault = nil
	if err := m.Evict(ctx, a.Key); err != nil {
		t.Error(err)
	}
	want := []eviction{{b.ID(), 2, 3}, {a.ID(), 4, 5}}
	if !reflect.DeepEqual(l.evicted, want) {
		t.Errorf("told of %v, want %v", l.evicted, want)
	}
}

// Requests under way while a trace begins and ends are told of wholly or not at all.
func TestTraceBeginsAndEndsUnderRequests(t *testing.T) {
	m := keyslot.New(nothing{})
	k := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.ByUnit))
	dev := keyslot.Over(nothing{}, m)
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			r := overRequests(k, 4096)["write"]
			r.Flags &^= block.NoWait
			for stop.Err() == nil {
				if err := dev.Do(ctx, r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	l := &listener{}
	for range 100 {
		m.Trace(l)
		for n := 0; n < 2; {
			l.mu.Lock()
			n = len(l.requests)
			l.mu.Unlock()
		}
		m.Trace(nil)
	}
	cancel()
	wg.Wait()
	for _, r := range l.requests {
		if r.Start == 0 || r.End <= r.Start || r.Crypt.Key != k.Key {
			t.Fatalf("told of %+v", r)
		}
	}
}

// quiet is a Tracer that forgets.
type quiet struct{ now int64 }

func (q *quiet) Now() int64                         { return q.now }
func (*quiet) Request(keyslot.Traced)               {}
func (*quiet) Evicted(*blkcrypto.Key, int64, int64) {}

func TestTracingDoesNotAllocate(t *testing.T) {
	m := keyslot.New(soft.New("cpu", 1))
	m.Trace(&quiet{})
	k := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.ByUnit))
	use2(t, m, k)
	dev := keyslot.Over(newRAM(t, 1<<20), m)
	for name, r := range overRequests(k, 4096) {
		n := testing.AllocsPerRun(50, func() {
			if err := dev.Do(ctx, r); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 && !race.Enabled {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// nothing is a medium and an engine that do nothing, so that what lies between shows.
type nothing struct{}

func (nothing) Do(context.Context, block.Request) error { return nil }
func (nothing) Info() block.Info {
	return block.Info{Size: 1 << 20, LogicalBlock: 512, NeverBlocks: true}
}
func (nothing) Close() error               { return nil }
func (nothing) Name() string               { return "nothing" }
func (nothing) Profile() blkcrypto.Profile { return blkcrypto.AllRaw() }
func (nothing) Slots() int                 { return 1 }
func (nothing) Evict(int) error            { return nil }
func (nothing) Program(int, blkcrypto.Config, []byte) error {
	return nil
}
func (nothing) Crypt(int, keyslot.Direction, blkcrypto.DUN, block.Segments, block.Segments) error {
	return nil
}

// BenchmarkOverAlone is what the layer costs by itself, with no tracer and with one.
func BenchmarkOverAlone(b *testing.B) {
	for _, traced := range []bool{false, true} {
		name := "off"
		m := keyslot.New(nothing{})
		if traced {
			name = "on"
			m.Trace(&quiet{})
		}
		k := newKeyOf(b, "k", xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.ByUnit))
		s, err := m.Get(ctx, k.Key, false)
		if err != nil {
			b.Fatal(err)
		}
		s.Put()
		dev := keyslot.Over(nothing{}, m)
		r := overRequests(k, 4096)["read"]
		b.Run("trace="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := dev.Do(ctx, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
