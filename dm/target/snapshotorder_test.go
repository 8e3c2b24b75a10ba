package target_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// TestSnapshotWaitsForWritesBefore: a write of the origin that is under way when
// the snapshot begins may be in it or not, but not first one and then the other;
// and a copy of what such a write leaves half done is none.
func TestSnapshotWaitsForWritesBefore(t *testing.T) {
	for _, by := range []string{"read", "write of the origin", "write of the snapshot"} {
		t.Run(by, func(t *testing.T) {
			w := newSnapWorld(t, 64<<10)
			hold, held := make(chan struct{}), make(chan struct{})
			disk := dmtest.NewRAM(64 << 10)
			disk.Before = func(_ context.Context, r block.Request) error {
				if r.Op == block.OpWrite && r.Off == 512 {
					close(held)
					<-hold
				}
				return nil
			}
			w.Leaf("slow", disk, nil)
			origin := w.Map("slow-origin", "0 128 snapshot-origin slow")
			var wg sync.WaitGroup
			wg.Go(func() { dmtest.Write(t, origin, 512, fill(1, 512)) })
			<-held
			snap := w.Map("snap", "0 128 snapshot slow c1 P 8") // it does not wait
			nowait := block.Request{Op: block.OpRead, Flags: block.NoWait, Off: 512, Len: 512, Data: block.Bytes(make([]byte, 512))}
			if err := snap.Do(t.Context(), nowait); err != block.ErrWouldBlock {
				t.Errorf("a read of what is being written, with NoWait: %v", err)
			}
			nowait.Off = 1024
			if err := snap.Do(t.Context(), nowait); err != nil {
				t.Errorf("a read of something else: %v", err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := fmt.Errorf("enough")
			cancel(enough)
			r := nowait
			r.Flags, r.Off = 0, 512
			dev := block.Device(snap)
			switch by {
			case "write of the origin":
				r.Op, dev = block.OpWrite, origin
				r.Off = 2048
			case "write of the snapshot":
				r.Op, r.Off = block.OpWrite, 2048
			}
			if err := dev.Do(ctx, r); !errors.Is(err, enough) {
				t.Errorf("does not wait: %v", err)
			}
			close(hold)
			wg.Wait()
			if err := dev.Do(t.Context(), r); err != nil {
				t.Error(err)
			}
			want := append(make([]byte, 512), fill(1, 512)...)
			sameRead(t, "the snapshot", snap, 0, want)
		})
	}
}

// TestOriginWaitsForReadsOfSnapshots: what a snapshot is reading from the origin
// is not overwritten meanwhile.
func TestOriginWaitsForReadsOfSnapshots(t *testing.T) {
	w := newSnapWorld(t, 64<<10)
	hold, held := make(chan struct{}), make(chan struct{})
	disk := dmtest.NewRAM(64 << 10)
	var reading sync.Once
	disk.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpRead && r.Len == 1024 {
			reading.Do(func() {
				close(held)
				<-hold
			})
		}
		if r.Op == block.OpWrite && r.Off == 0 {
			select {
			case <-hold:
			default:
				t.Error("the origin is written while a snapshot reads there")
			}
		}
		return nil
	}
	w.Leaf("slow", disk, nil)
	origin := w.Map("slow-origin", "0 128 snapshot-origin slow")
	snap := w.Map("snap", "0 128 snapshot slow c1 P 8")
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := dmtest.Read(t, snap, 0, 1024); !bytes.Equal(got, make([]byte, 1024)) {
			t.Error("the snapshot reads what the origin wrote later")
		}
	})
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := block.Request{Op: block.OpWrite, Len: 512, Data: block.Bytes(fill(1, 512))}
	if err := origin.Do(ctx, r); !errors.Is(err, context.Canceled) {
		t.Errorf("a write with an ended context: %v", err)
	}
	r.Flags = block.NoWait
	if err := origin.Do(t.Context(), r); err != block.ErrWouldBlock {
		t.Errorf("a write with NoWait: %v", err)
	}
	r.Flags = 0
	wg.Go(func() {
		if err := origin.Do(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
	dmtest.Write(t, origin, 8192, fill(2, 512)) // others go on
	close(hold)
	wg.Wait()
	sameRead(t, "the snapshot", snap, 0, make([]byte, 1024))
	sameRead(t, "the origin", origin, 0, fill(1, 512))
}

// TestCopyThatIsUnderWay does not count: the snapshot reads the origin, the origin is
// not changed, by whomever, and the snapshot cannot be removed, before it is done.
func TestCopyThatIsUnderWay(t *testing.T) {
	for _, at := range []block.Op{block.OpWrite, block.OpFlush} { // of data, or of metadata
		synctest.Test(t, func(t *testing.T) {
			w := newSnapWorld(t, 64<<10)
			before := w.o.Bytes()
			hold := make(chan struct{})
			disk := dmtest.NewRAM(64 << 10)
			disk.Before = func(_ context.Context, r block.Request) error {
				if r.Op == at {
					<-hold
				}
				return nil
			}
			w.Leaf("slow", disk, nil)
			snap := w.Map("snap", "0 128 snapshot o slow P 8")
			var done [3]bool
			for i := range 2 {
				go func() {
					dmtest.Write(t, w.origin, int64(i)*512, fill(1, 512)) // of one chunk
					done[i] = true
				}()
			}
			synctest.Wait()
			sameRead(t, "the snapshot", snap, 0, before)
			if !bytes.Equal(w.o.Bytes(), before) {
				t.Error("the origin is changed before the copy is made")
			}
			snap.Close()
			go func() {
				if err := w.Device("snap").Remove(context.Background(), dm.RemoveOptions{}); err != nil {
					t.Error(err)
				}
				done[2] = true
			}()
			synctest.Wait()
			if done != [3]bool{} {
				t.Errorf("done while the copy is under way: %v", done)
			}
			close(hold)
			synctest.Wait()
			if done != [3]bool{true, true, true} {
				t.Errorf("done: %v", done)
			}
			sameRead(t, "the snapshot, made again", w.Map("again", "0 128 snapshot o slow P 8"), 0, before)
		})
	}
}

// TestSuspendedCOWDevice holds up what has to be copied there, and nothing else.
func TestSuspendedCOWDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSnapWorld(t, 64<<10)
		before := w.o.Bytes()
		snap := w.Map("snap", "0 128 snapshot o c1 P 8")
		dmtest.Write(t, w.origin, 0, fill(1, 512))
		cow := w.Device("c1")
		if err := cow.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			dmtest.Write(t, w.origin, 4096, fill(2, 512))
			close(done)
		}()
		synctest.Wait()
		dmtest.Write(t, w.origin, 512, fill(3, 512))
		sameRead(t, "the origin", w.origin, 4096, before[4096:8192])
		sameRead(t, "a chunk that is on the origin", snap, 4096, before[4096:])
		select {
		case <-done:
			t.Error("a write of the origin did not wait")
		default:
		}
		if err := cow.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-done
		sameRead(t, "the origin", w.origin, 4096, fill(2, 512))
		sameRead(t, "the snapshot", snap, 0, before)
	})
}
