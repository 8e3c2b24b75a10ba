//go:build invariants || race

package dm_test

import (
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// R18: a leaf with a key in its engine is removed while somebody has it open, at the
// last close or before it. Requests of an open handle are served, and in the end the
// key is gone and the disk is closed, whoever came first (invariants 15, 21).
func TestRaceBlk18RemovalWithKeysResidentAndHandlesOpen(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: admitted", "dm: removing", "dm: discarding", "keyslot: closed", "keyslot: leaving", "blkcrypto: closed"},
		Outcomes: []string{"removed at once", "removed at the last close", "served", "refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			e := b.engine()
			disk := b.disk("a", e)
			dev := b.Handle("a")
			k := b.key("k", xts4k, 9)
			b.write(dev, k, 0, block4k)
			w.Go("user", func() {
				if b.write(dev, k, 4096, block4k, blkcrypto.ErrKeyEvicted) {
					w.Outcome("served")
				} else {
					w.Outcome("refused")
				}
				if err := dev.Close(); err != nil {
					w.Error(err)
				}
			})
			w.Go("remove", func() {
				err := b.Device("a").Remove(w.Ctx, dm.RemoveOptions{})
				if err == nil {
					w.Outcome("removed at once")
					return
				}
				if !errors.Is(err, block.ErrBusy) {
					w.Errorf("remove: %v, want %v", err, block.ErrBusy)
				}
				if err := b.Device("a").Remove(w.Ctx, dm.RemoveOptions{Deferred: true}); err != nil {
					w.Errorf("deferred removal: %v", err)
				}
				w.Outcome("removed at the last close")
			})
			w.Go("evict", func() { b.evict(k); b.wantGone(k) })
			w.Check(func() {
				b.wantGone(k)
				if !disk.Closed() {
					w.Error("the device is removed and the disk is open")
				}
				if st := e.Stats(); st.Busy != 0 || st.Resident != 0 {
					w.Errorf("the engine of a removed device has %d slots in use and %d with a key (invariant 15)", st.Busy, st.Resident)
				}
			})
		},
	})
}

// R22: no request is merged with another here: each goes down with its own context, so
// there is no absorbed request whose slot could be lost. What comes nearest: two
// adjacent writes with contiguous DUNs, while one's key is evicted. The other one's
// bytes are right, and each request to the disk is the image of one (invariants 11, 25).
func TestRaceBlk22AdjacentWritesAgainstEvictOfOneKey(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keyslot: transforming", "keyslot: encrypted", "blkcrypto: closed", "keyslot: leaving"},
		Outcomes: []string{"served", "refused"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disk := b.disk("a", b.engine())
			vol := b.Map("vol", "0 128 linear a 0")
			k, gone := b.key("k", xts4k, 9), b.key("gone", xts4k, 10)
			served := false
			w.Go("write", func() { b.write(vol, k, 0, block4k) })
			w.Go("adjacent", func() {
				if served = b.write(vol, gone, 4096, block4k, blkcrypto.ErrKeyEvicted); served {
					w.Outcome("served")
				} else {
					w.Outcome("refused")
				}
			})
			w.Go("evict", func() { b.evict(gone); b.wantGone(gone) })
			w.Check(func() {
				b.wantGone(gone)
				b.wantMedium(disk, k, 0, block4k)
				want := int64(1)
				if served {
					b.wantMedium(disk, gone, 4096, block4k)
					want = 2
				}
				if n := disk.Count(block.OpWrite); n != want {
					w.Errorf("%d requests to the disk, want %d: one for each", n, want)
				}
			})
		},
	})
}

// R23: two disks share a controller, so they share its profile and keyslots. An eviction
// by one while the other does I/O with the key waits for it; a refusal says busy and
// changes nothing; no data is lost (invariants 13, 22).
func TestRaceBlk23TwoDevicesShareAController(t *testing.T) {
	for name, c := range map[string]struct {
		points   []string
		outcomes []string
		evict    func(b *blkWorld, one *dm.Handle, k blkKey)
		lost     bool // the key is dead in the end, or may be
	}{
		"evict from one device": {
			[]string{"keyslot: found", "keyslot: referenced", "keyslot: transforming", "keyslot: evicting", "keyslot: leaving", "keyslot: emptying"},
			[]string{"served"},
			func(b *blkWorld, one *dm.Handle, k blkKey) {
				if p := one.Keyslots().EvictKey(b.w.Ctx, k.Key); p.Err != nil {
					b.w.Errorf("evict: %v", p.Err)
				}
			}, false,
		},
		"evict the key if idle": {
			[]string{"blkcrypto: entering", "keyslot: transforming", "blkcrypto: retired", "keyslot: leaving", "blkcrypto: left"},
			[]string{"served", "refused", "busy", "evicted"},
			func(b *blkWorld, _ *dm.Handle, k blkKey) {
				switch _, err := k.EvictIdle(b.w.Ctx); {
				case err == nil:
					b.w.Outcome("evicted")
					b.wantGone(k)
				case errors.Is(err, blkcrypto.ErrKeyBusy):
					b.w.Outcome("busy")
				default:
					b.w.Errorf("evict: %v", err)
				}
			}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{Points: c.points, Outcomes: c.outcomes, World: func(w *interleave.World) {
				b := newBlkWorld(w)
				e := b.engine()
				b.disk("a", e)
				b.Leaf("b", dmtest.NewRAM(blkSize), e)
				one, other := b.Handle("a"), b.Handle("b")
				k := b.key("k", xts4k, 9)
				b.write(one, k, 0, block4k)
				var allowed []error
				if c.lost {
					allowed = append(allowed, blkcrypto.ErrKeyEvicted)
				}
				w.Go("evict by one", func() { c.evict(b, one, k) })
				w.Go("write to the other", func() {
					for i := range int64(2) {
						if !b.write(other, k, i*4096, block4k, allowed...) {
							w.Outcome("refused")
							return
						}
					}
					w.Outcome("served")
				})
				w.Check(func() {
					if k.Evicted() {
						b.wantGone(k)
						return
					}
					got := dmtest.Read(w, other, 0, 4096)
					if string(got) == string(block4k) {
						w.Error("plaintext on the medium (invariant 1)")
					}
					b.write(one, k, 8192, block4k)
				})
			}})
		})
	}
}
