package target_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/point"
)

// mirrorSize is that of the mirrors below, of 16 regions each.
const mirrorSize = 64 << 10

// A mirrorRig is a mirror of two disks that can fail, with what it should hold.
type mirrorRig struct {
	w    *dmtest.World
	dev  *dm.Handle
	legs [2]*faulty
	key  *blkcrypto.Key

	plain   []byte // what has been written
	unknown []bool // by block of 4 KiB: a write of it has failed
}

const blockSize = 4096

func newMirrorRig(t *testing.T, table string) *mirrorRig {
	x := &mirrorRig{w: dmtest.New(t), key: dmtest.NewKey(t, "k", unit4K, 1)}
	for i, name := range []string{"a", "b"} {
		x.legs[i] = newFaulty(mirrorSize)
		x.w.Leaf(name, x.legs[i], engine(name, 1))
	}
	if !strings.Contains(table, "nosync") {
		x.legs[1].Set(bytes.Repeat([]byte("stale"), mirrorSize/5))
	}
	x.w.Disk("log", 4096, 0)
	x.dev = x.w.Map("m", table)
	x.plain, x.unknown = make([]byte, mirrorSize), make([]bool, mirrorSize/blockSize)
	return x
}

// step makes the nth change: all with the key, so that every block is read with
// it, and now and then a flush.
func (x *mirrorRig) step(ctx context.Context, n int) error {
	if n%5 == 4 {
		return x.dev.Do(ctx, block.Request{Op: block.OpFlush})
	}
	off := int64(n*7%15) * blockSize
	data := bytes.Repeat([]byte{byte(n + 1)}, 2*blockSize)
	err := x.dev.Do(ctx, x.request(block.OpWrite, off, bytes.Clone(data)))
	copy(x.plain[off:], data)
	for b := off / blockSize; b < off/blockSize+2; b++ {
		x.unknown[b] = err != nil
	}
	return err
}

func (x *mirrorRig) request(op block.Op, off int64, data []byte) block.Request {
	r := request(op, data)
	r.Off, r.Crypt = off, blkcrypto.Context{Key: x.key, DUN: blkcrypto.DUN64(uint64(off / blockSize))}
	return r
}

// read checks what can be read of what is known, and returns the first error.
func (x *mirrorRig) read(t *testing.T) (err error) {
	t.Helper()
	for b := range x.unknown {
		if want := x.plain[b*blockSize:][:blockSize]; !x.unknown[b] && want[0] != 0 {
			got := make([]byte, blockSize)
			if e := x.dev.Do(t.Context(), x.request(block.OpRead, int64(b*blockSize), got)); e != nil {
				err = errors.Join(err, e)
			} else if !bytes.Equal(got, want) {
				t.Errorf("block %d holds %d…, want %d…", b, got[0], want[0])
			}
		}
	}
	return err
}

// mend makes the legs work again, and copies what one of them lacks: that is done
// when the mirror is resumed, as in the kernel.
func (x *mirrorRig) mend(t *testing.T, want string) {
	t.Helper()
	for _, l := range x.legs {
		l.heal()
	}
	x.again(t)
	x.alike(t, want)
}

// alike waits until the legs are, which says what the status says.
func (x *mirrorRig) alike(t *testing.T, want string) {
	t.Helper()
	untilStatus(t, x.dev, want)
	if a, b := x.legs[0].Bytes(), x.legs[1].Bytes(); !bytes.Equal(a, b) {
		t.Errorf("the legs differ at %d", firstDiff(a, b))
	}
}

func (x *mirrorRig) again(t *testing.T) {
	t.Helper()
	if err := x.dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := x.dev.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestMirrorLegFailsAtEachPoint: whichever request of a leg is the first that
// fails, of a mirror in sync no request fails and nothing is lost; of one that is
// being filled the leg that has everything cannot be done without, but what is read
// is right. The legs are alike again once the leg works and the mirror is resumed.
func TestMirrorLegFailsAtEachPoint(t *testing.T) {
	for _, c := range []struct {
		table  string
		filled bool // from the first leg to the second
	}{
		{"0 128 mirror core 1 8 2 a 0 b 0 2 handle_errors keep_log", false},
		{"0 128 mirror core 1 8 2 a 0 b 0", false},
		{"0 128 mirror core 1 8 2 a 0 b 0 1 handle_errors", true},
		{"0 128 mirror disk 2 log 8 2 a 0 b 0 1 handle_errors", false},
		{"0 128 mirror disk 2 log 8 2 a 0 b 0", true},
	} {
		for leg := range 2 {
			for at, hit := int64(0), true; hit && !t.Failed(); at += stride() {
				synctest.Test(t, func(t *testing.T) { hit = failFrom(t, c.table, c.filled, leg, at) })
			}
		}
	}
}

// stride is 1, so that every request is tried, and more where each takes ten times
// as long.
func stride() int64 {
	if point.Enabled {
		return 5
	}
	return 1
}

// failFrom has a leg fail everything after so many requests, and reports whether it
// came to that.
func failFrom(t *testing.T, table string, filled bool, leg int, at int64) bool {
	what := fmt.Sprintf("%q, leg %d fails after %d requests", table, leg, at)
	x := newMirrorRig(t, table)
	if !filled {
		untilSynced(t, x.dev)
	}
	var n atomic.Int64
	x.legs[leg].fail(func(block.Request) error {
		if n.Add(1) > at {
			return block.ErrIO
		}
		return nil
	})
	safe := !filled || leg == 1
	for i := range 20 {
		if err := x.step(t.Context(), i); err != nil && safe {
			t.Fatalf("%s: change %d: %v", what, i, err)
		}
	}
	if err := x.read(t); err != nil && safe {
		t.Fatalf("%s: read: %v", what, err)
	}
	hit := n.Load() > at
	if hit == strings.Contains(firstStatus(x.dev), " 1 AA ") {
		t.Errorf("%s: status %s", what, firstStatus(x.dev))
	}
	x.legs[leg].heal()
	x.again(t)
	untilSynced(t, x.dev)
	if err := x.read(t); err != nil {
		t.Errorf("%s, then is mended: %v", what, err)
	}
	if a, b := x.legs[0].Bytes(), x.legs[1].Bytes(); !bytes.Equal(a, b) {
		t.Errorf("%s, then is mended: the legs differ at %d", what, firstDiff(a, b))
	}
	remove(t, x.w, "m", x.dev)
	return hit
}

// untilSynced waits until all 16 regions are in sync.
func untilSynced(t testing.TB, dev *dm.Handle) {
	t.Helper()
	untilStatusHas(t, dev, " 16/16 1 ")
}

// TestMirrorLettersAndEvents: what a leg has failed in, the worst of it, and an
// event for each kind of failure if errors are handled.
func TestMirrorLettersAndEvents(t *testing.T) {
	for _, handle := range []bool{false, true} {
		table := "0 128 mirror core 2 8 nosync 2 a 0 b 0"
		if handle {
			table += " 1 handle_errors"
		}
		x := newMirrorRig(t, table)
		untilStatus(t, x.dev, "mirror 2 a b 16/16 1 AA 1 core")
		x.again(t) // the event of that is over when a suspension is
		events := x.dev.Event()
		b := x.legs[1]
		for _, c := range []struct {
			fails  func(block.Request) error
			do     block.Request
			status string
			told   uint64
		}{
			{failingOps(block.OpWrite), x.request(block.OpWrite, 0, make([]byte, blockSize)), "15/16 1 AD 1 core", 1},
			{failingOps(block.OpWrite), x.request(block.OpWrite, 0, make([]byte, blockSize)), "15/16 1 AD 1 core", 1},
			{failingOps(block.OpWrite), x.request(block.OpWrite, 7*blockSize, make([]byte, 2*blockSize)), "13/16 1 AD 1 core", 1},
			{failingOps(block.OpWriteZeroes), block.Request{Op: block.OpWriteZeroes, Off: 3 * blockSize, Len: blockSize}, "12/16 1 AD 1 core", 1},
			{failingOps(block.OpFlush), block.Request{Op: block.OpFlush}, "12/16 1 AF 1 core", 2},
		} {
			b.fail(c.fails)
			if err := x.dev.Do(t.Context(), c.do); err != nil {
				t.Errorf("%v that one leg took: %v", c.do.Op, err)
			}
			if got := firstStatus(x.dev); !strings.HasSuffix(got, c.status) {
				t.Errorf("status %s, want %s", got, c.status)
			}
			if told := x.dev.Event() - events; handle && told != c.told || !handle && told != 0 {
				t.Errorf("%d events, want %d, handle_errors %v", told, c.told, handle)
			}
		}
		said, err := x.dev.Explain(dm.Question{Sector: 1})
		if err != nil || said.Steps[0].Says != "region 1 of 16, of 8 sectors, is not in sync: reads and writes are for leg 1 of 2" {
			t.Errorf("explained as %q, %v", said.Steps[0].Says, err)
		}
		x.mend(t, "16/16 1 AF 1 core")
	}
}

// TestMirrorWithoutAnyLeg fails what no leg takes, of the kinds that legs fail.
func TestMirrorWithoutAnyLeg(t *testing.T) {
	x := newMirrorRig(t, "0 128 mirror core 2 8 nosync 2 a 0 b 0 1 handle_errors")
	for _, l := range x.legs {
		l.fail(func(block.Request) error { return block.ErrIO })
	}
	for _, r := range []block.Request{
		x.request(block.OpWrite, 0, make([]byte, blockSize)), x.request(block.OpRead, 0, make([]byte, blockSize)),
		{Op: block.OpFlush}, {Op: block.OpWriteZeroes, Len: blockSize}, {Op: block.OpDiscard, Len: blockSize},
	} {
		if err := x.dev.Do(t.Context(), r); err == nil {
			t.Errorf("%v that no leg took succeeds", r.Op)
		}
	}
	x.mend(t, "16/16 1 FF 1 core")
}

// TestMirrorFlushReachesAllLegs, and one that fails on a leg means that this leg
// may lack all that was written since the last one, and nothing older.
func TestMirrorFlushReachesAllLegs(t *testing.T) {
	x := newMirrorRig(t, "0 128 mirror disk 2 log 8 2 a 0 b 0 1 handle_errors")
	untilSynced(t, x.dev)
	do := func(r block.Request) {
		t.Helper()
		if err := x.dev.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	write := func(b int64) { do(x.request(block.OpWrite, b*blockSize, make([]byte, blockSize))) }
	flush := block.Request{Op: block.OpFlush}
	write(1)
	before := [2]int64{x.legs[0].Count(block.OpFlush), x.legs[1].Count(block.OpFlush)}
	do(flush)
	for i, l := range x.legs {
		if n := l.Count(block.OpFlush) - before[i]; n < 1 {
			t.Errorf("leg %d: no flush", i)
		}
	}
	write(2)
	write(3)
	x.legs[1].fail(failingOps(block.OpFlush))
	do(flush)
	if got := firstStatus(x.dev); !strings.HasSuffix(got, "14/16 1 AF 3 disk log A") {
		t.Errorf("status %s", got)
	}
	x.mend(t, "16/16 1 AF 3 disk log A")
}

// TestMirrorKeepsLegsThatRefuse: an answer that is the request's own, or the end
// of its context, is no fault of the leg. What it leaves in doubt is copied.
func TestMirrorKeepsLegsThatRefuse(t *testing.T) {
	for leg := range 2 {
		x := newMirrorRig(t, "0 128 mirror core 1 8 2 a 0 b 0 1 handle_errors")
		untilSynced(t, x.dev)
		for _, refusal := range []error{block.ErrNoCrypto, block.ErrNotSupported, blkcrypto.ErrKeyEvicted, fmt.Errorf("wrapped: %w", block.ErrInvalid)} {
			x.legs[leg].fail(func(r block.Request) error {
				if r.Op == block.OpWrite {
					x.legs[leg].heal()
					return refusal
				}
				return nil
			})
			if err := x.dev.Do(t.Context(), x.request(block.OpWrite, 0, bytes.Repeat([]byte("x"), blockSize))); !errors.Is(err, refusal) {
				t.Errorf("leg %d refuses with %v: %v", leg, refusal, err)
			}
			x.alike(t, "16/16 1 AA 1 core")
		}

		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		suspended := x.w.Device([]string{"a", "b"}[leg])
		if err := suspended.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		x.legs[1-leg].fail(func(r block.Request) error {
			if r.Op == block.OpWrite {
				cancel(cause)
			}
			return nil
		})
		if err := x.dev.Do(ctx, x.request(block.OpWrite, blockSize, bytes.Repeat([]byte("y"), blockSize))); !errors.Is(err, cause) {
			t.Errorf("a write that was called off: %v", err)
		}
		if err := suspended.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.alike(t, "16/16 1 AA 1 core")
		remove(t, x.w, "m", x.dev)
	}
}

// TestMirrorDiscardThatALegFails is not supported, as in the kernel, and the leg
// stays.
func TestMirrorDiscardThatALegFails(t *testing.T) {
	x := newMirrorRig(t, "0 128 mirror core 1 8 2 a 0 b 0 1 handle_errors")
	untilSynced(t, x.dev)
	x.legs[1].fail(failingOps(block.OpDiscard))
	if err := x.dev.Do(t.Context(), block.Request{Op: block.OpDiscard, Len: blockSize}); !errors.Is(err, block.ErrNotSupported) {
		t.Errorf("discard: %v", err)
	}
	x.mend(t, "16/16 1 AA 1 core")
}

// TestMirrorIsSuspendedWithoutALeg that has failed, so that it can be reloaded
// without it; where a flush is safe on no leg it is not.
func TestMirrorIsSuspendedWithoutALeg(t *testing.T) {
	x := newMirrorRig(t, "0 128 mirror disk 2 log 8 2 a 0 b 0 1 handle_errors")
	untilSynced(t, x.dev)
	for leg := range 2 {
		if err := x.step(t.Context(), leg); err != nil {
			t.Fatal(err)
		}
		x.legs[leg].fail(func(block.Request) error { return block.ErrIO })
		err := x.dev.Suspend(t.Context(), dm.SuspendOptions{})
		if leg == 0 && err != nil || leg == 1 && !errors.Is(err, block.ErrIO) {
			t.Errorf("suspended without %d legs: %v", leg+1, err)
		}
		if err := x.dev.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	x.legs[0].heal()
	x.legs[1].heal()
	x.w.Reload("m", "0 128 linear b 0")
	if err := x.read(t); err != nil {
		t.Error(err)
	}
}

// TestMirrorRefusesWhatALegWould before any leg begins it.
func TestMirrorRefusesWhatALegWould(t *testing.T) {
	w := dmtest.New(t)
	a, b := w.Disk("a", mirrorSize, 0), dmtest.NewRAM(mirrorSize)
	b.SetInfo(func(i *block.Info) { i.Discard, i.Zeroes = block.None, block.None })
	w.Leaf("b", b, nil)
	dev := w.Map("m", "0 128 mirror core 2 8 nosync 2 a 0 b 0")
	for _, r := range []block.Request{{Op: block.OpDiscard, Len: 4096}, {Op: block.OpWriteZeroes, Flags: block.FastZero, Len: 4096}} {
		if err := dev.Do(t.Context(), r); !errors.Is(err, block.ErrNotSupported) {
			t.Errorf("%v: %v", r.Op, err)
		}
		if n := a.Count(r.Op); n != 0 {
			t.Errorf("the other leg has got the %v", r.Op)
		}
	}
	if got := firstStatus(dev); !strings.HasSuffix(got, "16/16 1 AA 1 core") {
		t.Errorf("status %s", got)
	}
}
