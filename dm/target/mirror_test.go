package target_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/soft"
	"keyway/test/fixtures"
)

// untilStatus waits for events until the status of the first row ends with want.
func untilStatus(t testing.TB, dev *dm.Handle, want string) {
	t.Helper()
	until(t, dev, func(status string) bool { return strings.HasSuffix(status, want) }, want)
}

// untilStatusHas waits until want is in it.
func untilStatusHas(t testing.TB, dev *dm.Handle, want string) {
	t.Helper()
	until(t, dev, func(status string) bool { return strings.Contains(status, want) }, want)
}

func until(t testing.TB, dev *dm.Handle, is func(status string) bool, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		n := dev.Event()
		if is(firstStatus(dev)) {
			return
		}
		if _, err := dev.Wait(ctx, n); err != nil {
			t.Fatalf("status %q, and no event makes it %q", firstStatus(dev), want)
		}
	}
}

func firstStatus(dev *dm.Handle) string {
	line, _, _ := strings.Cut(dev.TableText(false, dm.StatusInfo), "\n")
	return line
}

// TestKernelMirrors meets the kernel's verdict on every mirror, and comes to its
// status.
func TestKernelMirrors(t *testing.T) {
	n := 0
	for _, c := range fixtures.Tables(t) {
		if c.Targets()[0] != "mirror" {
			continue
		}
		n++
		w := dmtest.New(t)
		w.Disk("@", c.DiskSectors*512, 0)
		if !c.Accepted {
			if tab, err := w.Parse(c.Table); err == nil {
				tab.Close(t.Context())
				t.Errorf("%q is taken; the kernel says %s", c.Table, c.Error)
			}
			continue
		}
		dev := w.Map("d", c.Table)
		untilStatus(t, dev, strings.TrimSpace(c.Status[0]))
		if got := strings.TrimSpace(dev.TableText(false, dm.StatusTable)); got != c.Printed[0] {
			t.Errorf("table %q, want %q", got, c.Printed[0])
		}
		remove(t, w, "d", dev)
	}
	if n != 11 {
		t.Errorf("%d mirrors among the kernel's tables, want 11", n)
	}
}

func TestMirrorArguments(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	w.Disk("tiny", 1024, 0)
	big := dmtest.NewRAM(1 << 20)
	big.SetInfo(func(i *block.Info) { i.LogicalBlock, i.PhysicalBlock = 4096, 4096 })
	w.Leaf("big", big, nil)
	for _, c := range []struct{ args, want string }{
		{"core 1 64 9 a 0 a 0 a 0 a 0 a 0 a 0 a 0 a 0 a 0", ""},
		{"core 1 2 2 a 0 a 0 0", ""},
		{"core 2 2048 sync 2 a 0 a 0", ""},
		{"core 1 64 2 a 0 a 0 3 handle_errors handle_errors keep_log", ""},
		{"core 1 64 10 a 0 a 0 a 0 a 0 a 0 a 0 a 0 a 0 a 0 a 0", "argument 4 (number of legs): 10 is not from 2 to 9"},
		{"userspace 2 64 x 2 a 0 a 0", `argument 1 (log type): "userspace" is not core or disk`},
		{"core 0 2 a 0 a 0", "argument 2 (number of log arguments): 0 is not from 1 to 2"},
		{"core 1 1 2 a 0 a 0", "argument 3 (region size, in sectors): 1 is not from 2"},
		{"core 1 4096 2 a 0 a 0", "4096 is more than the 2048 of the row"},
		{"core 1 96 2 a 0 a 0", "96 is not a power of two"},
		{"core 2 64 later 2 a 0 a 0", `argument 4 (sync or nosync): "later" is neither`},
		{"disk 1 a 64 2 a 0 a 0", "1 is not from 2 to 3"},
		{"disk 2 tiny 64 2 a 0 a 0", `log device "tiny" is too small: 32 regions need 3 sectors, it has 2`},
		{"disk 2 nowhere 64 2 a 0 a 0", `no device "nowhere"`},
		{"core 1 64 2 a 0 a 1", `device "a" is too small`},
		{"core 1 4 2 a 0 big 0", `regions of 4 sectors are not whole blocks of device "big", which has 4096 bytes in one`},
		{"core 1 64 2 a 0", "argument 7 (device): missing"},
		{"core 1 64 2 a 0 a 0 1 keep_log", "keep_log needs handle_errors"},
		{"core 1 64 2 a 0 a 0 1 handle_errors:1", `"handle_errors" is not`},
		{"core 1 64 2 a 0 a 0 3 handle_errors", "3, but 1 words follow"},
		{"core 1 64 2 a 0 a 0 1 handle_errors x", "surplus argument"},
	} {
		tab, err := w.Parse("0 2048 mirror " + c.args)
		switch {
		case err == nil && c.want != "":
			t.Errorf("%q is taken", c.args)
		case err != nil && (c.want == "" || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
		if err == nil {
			tab.Close(t.Context())
		}
	}
}

// A faulty disk fails requests as its rule says, and keeps the medium as it is.
type faulty struct {
	*dmtest.RAM
	rule atomic.Pointer[func(block.Request) error]
}

func newFaulty(n int64) *faulty {
	f := &faulty{RAM: dmtest.NewRAM(n)}
	f.Before = func(_ context.Context, r block.Request) error {
		if rule := f.rule.Load(); rule != nil {
			return (*rule)(r)
		}
		return nil
	}
	return f
}

func (f *faulty) fail(rule func(block.Request) error) { f.rule.Store(&rule) }
func (f *faulty) heal()                               { f.rule.Store(nil) }

// failingOps is a rule that fails requests of the given kinds.
func failingOps(ops ...block.Op) func(block.Request) error {
	return func(r block.Request) error {
		if slices.Contains(ops, r.Op) {
			return block.ErrIO
		}
		return nil
	}
}

// engine is one of so many slots, or none.
func engine(name string, slots int) *keyslot.Manager {
	if slots == 0 {
		return nil
	}
	return keyslot.New(soft.New(name+"'s engine", slots))
}

var unit4K = blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}

// TestMirrorLegsStayIdentical: writes with and without keys, of several writers at
// the same place, zeroes, discards, and data that changes while it is written, all
// while one leg is still being filled from another and the legs' engines come and
// go (dm-fscrypt.md, invariants 1 and 37, race 29).
func TestMirrorLegsStayIdentical(t *testing.T) {
	const size = 1 << 20
	for _, engines := range [][]int{{1, 1, 1}, {2, 0, 1}, {0, 0, 0}} {
		t.Run(fmt.Sprint(engines), func(t *testing.T) {
			w := dmtest.New(t)
			var disks []*dmtest.RAM
			for i, slots := range engines {
				d := w.Disk(fmt.Sprint("disk", i), size, slots)
				w.Disk(fmt.Sprint("plain", i), size, 0)
				d.Set(bytes.Repeat([]byte{byte(0xa0 + i)}, size))
				disks = append(disks, d)
				w.Map(fmt.Sprint("leg", i), fmt.Sprintf("0 2048 linear disk%d 0", i))
			}
			dev := w.Map("m", "0 2048 mirror core 1 8 3 leg0 0 leg1 0 leg2 0 1 handle_errors")
			keys := []*blkcrypto.Key{nil, dmtest.NewKey(t, "k1", unit4K, 1), dmtest.NewKey(t, "k2", unit4K, 2)}
			var wg sync.WaitGroup
			for lane := range 4 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(lane), 29))
					for range 300 {
						if err := scribble(t.Context(), dev, rnd, keys, size); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			untilStatus(t, dev, "256/256 1 AAA 1 core")
			first := disks[0].Bytes()
			for i, d := range disks[1:] {
				if at := firstDiff(d.Bytes(), first); at >= 0 {
					t.Errorf("leg %d differs from the first at %d", i+1, at)
				}
			}
			remove(t, w, "m", dev)
		})
	}
}

// scribble makes one random change.
func scribble(ctx context.Context, dev block.Device, rnd *rand.Rand, keys []*blkcrypto.Key, size int64) error {
	r := block.Request{Op: block.OpWrite, Off: rnd.Int64N(size/4096) * 4096}
	r.Len = min(4096*(1+rnd.Int64N(5)), size-r.Off)
	data := make([]byte, r.Len)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	r.Data = block.Bytes(data)
	switch rnd.IntN(10) {
	case 0:
		r.Op, r.Data = block.OpWriteZeroes, block.Segments{}
	case 1:
		r.Op, r.Data = block.OpDiscard, block.Segments{}
	case 2:
		return dev.Do(ctx, block.Request{Op: block.OpFlush})
	case 3:
		r.Flags |= block.Scratch
		fallthrough
	default:
		if k := keys[rnd.IntN(len(keys))]; k != nil {
			r.Crypt = blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(rnd.Uint64() >> 16)}
		}
	}
	return dev.Do(ctx, r)
}

// TestMirrorReadsDataThatChangesOnce: what a guest changes while it is being
// written may come out as anything, but on all legs as the same.
func TestMirrorReadsDataThatChangesOnce(t *testing.T) {
	w := dmtest.New(t)
	data := make([]byte, 3<<20)
	a, b := dmtest.NewRAM(4<<20), dmtest.NewRAM(4<<20)
	b.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpWrite {
			for i := range data { // the guest, between the two legs
				data[i]++
			}
		}
		return nil
	}
	w.Leaf("a", a, nil)
	w.Leaf("b", b, nil)
	dev := w.Map("m", "0 8192 mirror core 2 64 nosync 2 a 0 b 0")
	r := request(block.OpWrite, data)
	r.Flags = block.Shared
	if err := dev.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if at := firstDiff(a.Bytes(), b.Bytes()); at >= 0 {
		t.Errorf("the legs differ at %d", at)
	}
}

// TestMirrorReadsElsewhere: a read that fails on a leg is made again on another,
// with the same key and number, also after part of it has arrived (dm-fscrypt.md,
// race 29). The leg gets an R, and reads go elsewhere from then on.
func TestMirrorReadsElsewhere(t *testing.T) {
	for _, slots := range []int{0, 1} {
		for _, handle := range []bool{false, true} {
			w := dmtest.New(t)
			a, b := newFaulty(1<<20), newFaulty(1<<20)
			w.Leaf("a", a, engine("a", slots))
			w.Leaf("b", b, engine("b", slots))
			table := "0 2048 mirror core 2 64 nosync 2 a 0 b 0"
			if handle {
				table += " 1 handle_errors"
			}
			dev := w.Map("m", table)
			untilStatus(t, dev, "32/32 1 AA 1 core")
			want := bytes.Repeat([]byte("plaintext"), 8192)[:16<<12]
			r := request(block.OpWrite, bytes.Clone(want))
			r.Off = 5 << 12
			r.Crypt = blkcrypto.Context{Key: dmtest.NewKey(t, "k", unit4K, 1), DUN: blkcrypto.DUN64(77)}
			if err := dev.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			a.fail(func(r block.Request) error {
				if r.Op == block.OpRead {
					r.Data.CopyFrom(bytes.Repeat([]byte{0xee}, int(r.Len)))
					return block.ErrIO
				}
				return nil
			})
			// The event of being in sync is over when a suspension is.
			if err := errors.Join(dev.Suspend(t.Context(), dm.SuspendOptions{}), dev.Resume(t.Context())); err != nil {
				t.Fatal(err)
			}
			events := dev.Event()
			for range 2 {
				got := make([]byte, len(want))
				r.Op, r.Data = block.OpRead, block.Bytes(got)
				if err := dev.Do(t.Context(), r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("slots %d: read by the other leg: %v, the data is right: %v", slots, err, bytes.Equal(got, want))
				}
			}
			if n := a.Count(block.OpRead); n != 1 {
				t.Errorf("the leg that failed was read %d times, want 1", n)
			}
			untilStatus(t, dev, "32/32 1 RA 1 core")
			if told := dev.Event() - events; told != map[bool]uint64{true: 1}[handle] {
				t.Errorf("%d events, handle_errors %v", told, handle)
			}
			b.fail(failingOps(block.OpRead))
			if err := dev.Do(t.Context(), r); !errors.Is(err, block.ErrIO) {
				t.Errorf("read that no leg can do: %v", err)
			}
			a.heal()
			if err := dev.Do(t.Context(), r); err != nil {
				t.Errorf("read of a leg that works again, where no other does: %v", err)
			}
		}
	}
}
