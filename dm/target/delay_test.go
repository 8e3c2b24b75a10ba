package target_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

func status(dev *dm.Handle) string {
	return strings.TrimSpace(dev.TableText(false, dm.StatusInfo))
}

// TestDelayKeepsEachKindAsLong: by its own time, and counts what it keeps.
func TestDelayKeepsEachKindAsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dmtest.New(t)
		a, b := w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0)
		dev := w.Map("d", "0 8 delay a 0 200 b 8 600 b 8 900")
		start := time.Now()
		for _, c := range []struct {
			op   block.Op
			want time.Duration
		}{
			{block.OpRead, 200 * time.Millisecond}, {block.OpWrite, 600 * time.Millisecond},
			{block.OpDiscard, 600 * time.Millisecond}, {block.OpFlush, 900 * time.Millisecond},
		} {
			go func() {
				r := block.Request{Op: c.op, Len: 512}
				if c.op.HasData() {
					r.Data = block.Bytes(bytes.Repeat([]byte{9}, 512))
				}
				if err := dev.Do(t.Context(), r); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != c.want {
					t.Errorf("%v took %v, want %v", c.op, took, c.want)
				}
			}()
		}
		synctest.Wait()
		for _, c := range []struct {
			at   time.Duration
			want string
		}{{0, "0 8 delay 1 2 1"}, {300, "0 8 delay 0 2 1"}, {700, "0 8 delay 0 0 1"}, {1000, "0 8 delay 0 0 0"}} {
			time.Sleep(c.at*time.Millisecond - time.Since(start))
			if got := status(dev); got != c.want {
				t.Errorf("after %v: %q, want %q", c.at, got, c.want)
			}
		}
		synctest.Wait()
		if a.Count(block.OpRead) != 1 || b.Count(block.OpWrite) != 1 || a.Count(block.OpWrite) != 0 {
			t.Error("requests went to the wrong disk")
		}
		if a.Count(block.OpFlush) != 1 || b.Count(block.OpFlush) != 1 {
			t.Errorf("%d and %d flushes, want one each (invariant 12)", a.Count(block.OpFlush), b.Count(block.OpFlush))
		}
	})
}

// TestSuspendLetsDelayedRequestsGo at once, and later ones are kept again.
func TestSuspendLetsDelayedRequestsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dmtest.New(t)
		a := w.Disk("a", 1<<20, 0)
		dev := w.Map("d", "0 8 delay a 0 3600000")
		done := make(chan error, 2)
		write := func() { done <- dev.Do(t.Context(), request(block.OpWrite, make([]byte, 512))) }
		go write()
		synctest.Wait()
		start := time.Now()
		if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || time.Since(start) != 0 || a.Count(block.OpWrite) != 1 {
			t.Errorf("after %v the write: %v, and %d of them on the disk", time.Since(start), err, a.Count(block.OpWrite))
		}
		go write() // waits at the gate, and is delayed after resume
		synctest.Wait()
		if err := dev.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := status(dev); got != "0 8 delay 0 1 0" {
			t.Errorf("after resume %q", got)
		}
		if err := <-done; err != nil || time.Since(start) != time.Hour {
			t.Errorf("the second write: %v after %v", err, time.Since(start))
		}
	})
}

// TestDelayAfterASuspensionThatFailed is as before, and requests that may not
// wait, or not so long, do not.
func TestDelayAfterASuspensionThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := dmtest.New(t)
		held := make(chan struct{})
		a := dmtest.NewRAM(1 << 20)
		a.Before = func(_ context.Context, r block.Request) error {
			if r.Op == block.OpRead {
				<-held
			}
			return nil
		}
		w.Leaf("a", a, nil)
		dev := w.Map("d", "0 8 delay a 0 1000")
		done := make(chan error, 1)
		go func() { done <- dev.Do(t.Context(), request(block.OpRead, make([]byte, 512))) }()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := dev.Suspend(short, dm.SuspendOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("suspend with a read under way: %v", err)
		}
		close(held)
		if err := <-done; err != nil {
			t.Error(err)
		}
		r := request(block.OpWrite, make([]byte, 512))
		r.Flags = block.NoWait
		if err := dev.Do(t.Context(), r); err != block.ErrWouldBlock {
			t.Errorf("NoWait: %v", err)
		}
		if i := dev.Info(); i.NeverBlocks || !i.WritesBlock {
			t.Errorf("NeverBlocks %v, WritesBlock %v", i.NeverBlocks, i.WritesBlock)
		}
		short, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		r.Flags = 0
		if err := dev.Do(short, r); !errors.Is(err, context.DeadlineExceeded) || a.Count(block.OpWrite) != 0 {
			t.Errorf("with a deadline: %v, %d writes", err, a.Count(block.OpWrite))
		}
		start := time.Now()
		if err := dev.Do(t.Context(), r); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestDelayPassesContexts: the engine of the device that gets the request
// serves them, if all devices have one that does.
func TestDelayPassesContexts(t *testing.T) {
	for _, c := range []struct {
		name   string
		slotsB int
		native bool
	}{{"both have an engine", 2, true}, {"one has none", 0, false}} {
		t.Run(c.name, func(t *testing.T) {
			w := dmtest.New(t)
			w.Disk("a", 1<<20, 2)
			b := w.Disk("b", 1<<20, c.slotsB)
			checkContexts(t, w, "0 64 delay a 0 0 b 8 1", "0 64 linear b 8", c.native)
			if b.Count(block.OpWrite) == 0 {
				t.Error("nothing was written")
			}
		})
	}
}

// checkContexts writes with a key through table, and reads through the table
// like, which is to give the same plaintext. Nothing but ciphertext reaches a
// disk, and the profile tells whether engines beneath do the work.
func checkContexts(t *testing.T, w *dmtest.World, table, like string, native bool) {
	t.Helper()
	dev, from := w.Map("written", table), w.Map("read", like)
	config := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}
	profile := dev.Info().Crypto
	if got := profile.Supports(config); got != native {
		t.Errorf("supports the config: %v, want %v", got, native)
	}
	key := dmtest.NewKey(t, "k", config, 3)
	defer func() {
		if _, err := key.Evict(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	n := min(dev.Info().Size, 256<<10)
	plain := make([]byte, n)
	for i := range plain {
		plain[i] = byte(i>>9 + i)
	}
	r := request(block.OpWrite, bytes.Clone(plain))
	r.Crypt = blkcrypto.Context{Key: key, DUN: blkcrypto.DUN64(99)}
	if err := dev.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, n)
	r = request(block.OpRead, got)
	if err := from.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	runs := map[[32]byte]bool{}
	for i := 0; i < len(plain); i += 32 {
		runs[[32]byte(plain[i:])] = true
	}
	for i := 0; i < len(got); i += 32 {
		if runs[[32]byte(got[i:])] {
			t.Fatalf("plaintext on the medium at %d", i)
		}
	}
	r.Crypt = blkcrypto.Context{Key: key, DUN: blkcrypto.DUN64(99)}
	if err := from.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if d := differ(got, plain); d != 0 {
		t.Errorf("%d of %d bytes differ, the first at %d", d, n, firstDiff(got, plain))
	}
}
