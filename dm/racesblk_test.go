//go:build invariants || race

package dm_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// The races of blkcrypto.md, section 16, that need a mapped device: R7 to R12, R16 to
// R18, R22 and R23, each in every interleaving of the points that it names. The others
// are in package keyslot.

// A watched engine is the software engine, and remembers what is in its slots.
type watched struct {
	*soft.Engine
	fails int // so many of the next programs, half way
	mu    sync.Mutex
	slots map[int][]byte
}

var errEngine = errors.New("scripted fault of the engine")

func (e *watched) Program(slot int, c blkcrypto.Config, key []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slots[slot] = bytes.Clone(key)
	if e.fails > 0 {
		e.fails--
		return errEngine
	}
	return e.Engine.Program(slot, c, key)
}

func (e *watched) Evict(slot int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.slots, slot)
	return e.Engine.Evict(slot)
}

func (e *watched) has(key []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.slots {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

// A blkWorld is a world of mapped devices in one interleaving.
type blkWorld struct {
	*dmtest.World
	w        *interleave.World
	engines  []*watched
	managers []*keyslot.Manager
}

const blkSize = 64 << 10 // of each disk

func newBlkWorld(w *interleave.World) *blkWorld {
	return &blkWorld{World: dmtest.NewWithFallback(w, 2), w: w}
}

// engine makes an engine with two slots.
func (b *blkWorld) engine() *keyslot.Manager {
	e := &watched{Engine: soft.New("cpu", 2), slots: map[int][]byte{}}
	m := keyslot.New(e)
	b.engines, b.managers = append(b.engines, e), append(b.managers, m)
	return m
}

// disk makes a leaf device on a medium of its own.
func (b *blkWorld) disk(name string, e *keyslot.Manager) *dmtest.RAM {
	d := dmtest.NewRAM(blkSize)
	b.Leaf(name, d, e)
	return d
}

// blkKey is a key whose bytes the test knows.
type blkKey struct {
	*blkcrypto.Key
	bytes []byte
}

func (b *blkWorld) key(name string, c blkcrypto.Config, seed byte) blkKey {
	k := dmtest.NewKey(b.w, name, c, seed)
	b.w.Cleanup(func() { // locked memory is scarce
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = k.Evict(ctx)
	})
	return blkKey{k, rawKey(c, seed)}
}

// request is one of n bytes at off with k, numbered as the data units lie.
func request(op block.Op, k blkKey, off int64, data []byte) block.Request {
	return block.Request{
		Op: op, Off: off, Len: int64(len(data)), Data: block.Bytes(data),
		Crypt: blkcrypto.Context{Key: k.Key, DUN: blkcrypto.DUN64(uint64(off) / 4096)},
	}
}

// write writes plain with k; the error may be one of those that the race allows, and
// then it reports false.
func (b *blkWorld) write(dev block.Device, k blkKey, off int64, plain []byte, allowed ...error) bool {
	err := dev.Do(b.w.Ctx, request(block.OpWrite, k, off, bytes.Clone(plain)))
	if err != nil && !slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) }) {
		b.w.Errorf("write at %d with %v: %v", off, k, err)
	}
	return err == nil
}

// wantMedium checks what lies on a medium against the reference (invariants 1 to 3).
func (b *blkWorld) wantMedium(d *dmtest.RAM, k blkKey, off int64, plain []byte) {
	want := encrypted(k.bytes, k.Config(), blkcrypto.DUN64(uint64(off)/4096), plain)
	if got := d.Bytes()[off:][:len(plain)]; !bytes.Equal(got, want) {
		what := "wrong bytes"
		if bytes.Equal(got, plain) {
			what = "plaintext (invariant 1)"
		}
		b.w.Errorf("%s on the medium at %d", what, off)
	}
}

// wantGone checks that k is in no slot of any engine, nor of the fallback, whichever
// tables they were in (invariant 21).
func (b *blkWorld) wantGone(k blkKey) {
	for i, e := range b.engines {
		if e.has(k.bytes) {
			b.w.Errorf("%v has been evicted and is in engine %d (invariant 21)", k, i)
		}
	}
	for _, m := range append(b.managers, b.Fallback()) {
		for _, r := range m.Residents() {
			if r.ID == k.ID() {
				b.w.Errorf("%v has been evicted and is in slot %d of %s (invariant 21)", k, r.Slot, m.Name())
			}
		}
	}
}

func (b *blkWorld) evict(k blkKey) {
	if _, err := k.Evict(b.w.Ctx); err != nil {
		b.w.Errorf("evict: %v", err)
	}
}

// reload replaces a table; the error may be one of those that the race allows.
func (b *blkWorld) reload(name, table string, allowed ...error) bool {
	t, err := b.Parse(table)
	if err == nil {
		err = b.Device(name).Reload(b.w.Ctx, t, dm.SuspendOptions{})
	}
	if err != nil && !slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) }) {
		b.w.Errorf("reload of %s: %v", name, err)
	}
	return err == nil
}

var block4k = bytes.Repeat([]byte("some data"), 4096)[:4096]

// R7: an eviction races a reload that takes the engine with the key out of the table
// (Linux evicts from the live table only: gap G2), with requests that bring the key to
// either engine (invariants 21, 22, 25).
func TestRaceBlk07EvictAgainstReloadAndRequests(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"blkcrypto: closed", "keyslot: leaving", "dm: suspended", "dm: swapped", "dm: admitted"},
		Outcomes: []string{"served", "refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", b.engine())
			b.disk("b", b.engine())
			vol := b.Map("vol", "0 128 linear a 0")
			k := b.key("k", xts4k, 9)
			b.write(vol, k, 0, block4k)
			w.Go("evict", func() { b.evict(k); b.wantGone(k) })
			w.Go("reload", func() { b.reload("vol", "0 128 linear b 0") })
			w.Go("write", func() {
				if b.write(vol, k, 4096, block4k, blkcrypto.ErrKeyEvicted) {
					w.Outcome("served")
				} else {
					w.Outcome("refused")
				}
			})
			w.Check(func() { b.wantGone(k) })
		},
	})
}

// R7 with the removal of the device in place of requests.
func TestRaceBlk07EvictAgainstReloadAndRemove(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: evicting", "keyslot: leaving", "dm: suspended", "dm: swapped", "dm: discarding", "dm: removing"},
		Outcomes: []string{"reloaded", "removed first"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", b.engine())
			b.disk("b", b.engine())
			vol := b.Map("vol", "0 128 linear a 0")
			k := b.key("k", xts4k, 9)
			b.write(vol, k, 0, block4k)
			if err := vol.Close(); err != nil {
				w.Fatal(err)
			}
			w.Go("evict", func() { b.evict(k); b.wantGone(k) })
			w.Go("reload", func() {
				if b.reload("vol", "0 128 linear b 0", dm.ErrRemoved) {
					w.Outcome("reloaded")
				} else {
					w.Outcome("removed first")
				}
			})
			w.Go("remove", func() {
				if err := b.Device("vol").Remove(w.Ctx, dm.RemoveOptions{}); err != nil {
					w.Errorf("remove: %v", err)
				}
			})
			w.Check(func() { b.wantGone(k) })
		},
	})
}

// R7 for an eviction from the device, which leaves the key usable: whatever table it
// met, what it found beneath is gone when it ends.
func TestRaceBlk07EvictFromTheDeviceAgainstReload(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"dm: evicting beneath", "keyslot: evicting", "dm: suspended", "dm: swapping", "dm: swapped"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", b.engine())
			b.disk("b", b.engine())
			vol := b.Map("vol", "0 128 linear a 0")
			k := b.key("k", xts4k, 9)
			b.write(vol, k, 0, block4k)
			w.Go("evict", func() {
				if p := vol.Keyslots().EvictKey(w.Ctx, k.Key); p.Err != nil {
					w.Errorf("evict: %v", p.Err)
				}
			})
			w.Go("reload", func() { b.reload("vol", "0 128 linear b 0") })
			w.Check(func() {
				b.wantGone(k) // also from a, which is in no table any more
				b.write(vol, k, 4096, block4k)
			})
		},
	})
}

// R8, seed problem 1: a key is started on a device whose engine serves it, and the table
// becomes one without. Check, load, swap and first request in every order: the request
// succeeds, and the bytes are the same (invariants 2, 29, 30).
func TestRaceBlk08StartUsingAgainstShrinkingReload(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"block: entering", "dm: admitted", "dm: rechecked", "dm: suspended", "dm: swapping", "dm: swapped"},
		Outcomes: []string{"engine", "software", "checked with", "checked without"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			medium := dmtest.NewRAM(blkSize)
			b.Leaf("plain", medium, nil)
			b.Leaf("engine", shared{medium}, b.engine())
			vol := b.Map("vol", "0 128 linear engine 0")
			k := b.key("k", xts4k, 9)
			w.Go("user", func() {
				if p := vol.Info().Crypto; p.Supports(xts4k) {
					w.Outcome("checked with")
				} else {
					w.Outcome("checked without")
				}
				w.At("checked")
				stop, err := vol.StartKey(k.Key, "the test")
				if err != nil {
					w.Errorf("start: %v (invariant 29)", err)
					return
				}
				defer stop()
				w.At("started")
				b.write(vol, k, 0, block4k)
				if engine, _ := k.ServedBy(); engine == 1 {
					w.Outcome("engine")
				} else {
					w.Outcome("software")
				}
			})
			w.Go("reload", func() { b.reload("vol", "0 128 linear plain 0") })
			w.Check(func() {
				b.wantMedium(medium, k, 0, block4k)
				got := make([]byte, len(block4k))
				if err := vol.Do(w.Ctx, request(block.OpRead, k, 0, got)); err != nil || !bytes.Equal(got, block4k) {
					w.Errorf("read: %v, equal %v (invariant 5)", err, bytes.Equal(got, block4k))
				}
			})
		},
	})
}

// R8 with a wrapped key, which no software serves: either the start is refused or the
// reload is, and no request of a started key fails (invariants 29, 30, 34).
func TestRaceBlk08StartUsingAWrappedKeyAgainstShrinkingReload(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: admitted", "dm: rechecked", "dm: suspended", "dm: swapping", "dm: swapped"},
		Outcomes: []string{"start refused", "reload refused"},
		World: func(w *interleave.World) {
			p := newPhone(w.T)
			vol := p.Map("vol", over("ufs1"))
			k := p.wrapped(w.T, 4096)
			w.Cleanup(func() { _, _ = k.Evict(context.Background()) })
			w.Go("user", func() {
				_, err := vol.StartKey(k, "the test")
				if err != nil {
					if !errors.Is(err, block.ErrNoCrypto) {
						w.Errorf("start: %v", err)
					}
					w.Outcome("start refused")
					return
				}
				w.At("started")
				if err := vol.Do(w.Ctx, withKey(block.OpWrite, k, bytes.Clone(block4k))); err != nil {
					w.Errorf("write with a key that was started: %v (invariant 29)", err)
				}
			})
			w.Go("reload", func() {
				err := p.Device("vol").Reload(w.Ctx, p.Table(over("plain")), dm.SuspendOptions{})
				if err != nil {
					if !errors.Is(err, dm.ErrStrands) {
						w.Errorf("reload: %v", err)
					}
					w.Outcome("reload refused")
				}
			})
		},
	})
}

// R9, seed problem 2: a key is used in software when the table grows an engine, and
// then evicted: it is in the fallback and in the engine, and gone from both
// (invariants 21, 31; gap G1).
func TestRaceBlk09StartUsingAgainstGrowingReloadThenEvict(t *testing.T) {
	for name, race := range map[string]struct {
		points   []string
		concurrs bool // the eviction comes when it likes
	}{
		"evict at the end": {[]string{"dm: admitted", "dm: suspended", "dm: swapping", "dm: swapped", "keyslot: encrypted"}, false},
		"evict":            {[]string{"dm: swapping", "dm: swapped", "keyslot: encrypted", "blkcrypto: closed", "blkcrypto: asking holder"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes := []string{"both software", "both engine", "one each"}
			if race.concurrs {
				outcomes = append(outcomes, "refused")
			}
			interleave.Run(t, interleave.Race{Points: race.points, Outcomes: outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				medium := dmtest.NewRAM(blkSize)
				b.Leaf("plain", medium, nil)
				b.Leaf("engine", shared{medium}, b.engine())
				vol := b.Map("vol", "0 128 linear plain 0")
				k := b.key("k", xts4k, 9)
				var allowed []error
				if race.concurrs {
					allowed = append(allowed, blkcrypto.ErrKeyEvicted)
				}
				w.Go("user", func() {
					for i := range int64(2) {
						if !b.write(vol, k, i*4096, block4k, allowed...) {
							w.Outcome("refused")
							return
						}
						b.wantMedium(medium, k, i*4096, block4k)
					}
					switch engine, _ := k.ServedBy(); engine {
					case 0:
						w.Outcome("both software")
					case 1:
						w.Outcome("one each")
					case 2:
						w.Outcome("both engine")
					}
				})
				w.Go("reload", func() { b.reload("vol", "0 128 linear engine 0") })
				if race.concurrs {
					w.Go("evict", func() { b.evict(k); b.wantGone(k) })
				}
				w.Check(func() { b.evict(k); b.wantGone(k) })
			}})
		})
	}
}
