package target_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// raising makes a device that collects what its target raises.
func raising(t *testing.T, w *dmtest.World, table string) (m *dm.Mapped, take func() []string) {
	t.Helper()
	w.Disk("a", 1<<20, 0)
	var mu sync.Mutex
	var all []string
	m = dm.New("d", dm.Options{Event: func(_ *dm.Mapped, e dm.Event) {
		if e.Kind == dm.EventTarget {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, e.Detail)
		}
	}})
	if err := m.Reload(t.Context(), w.Table(table), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Remove(context.WithoutCancel(t.Context()), dm.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	return m, func() []string {
		mu.Lock()
		defer mu.Unlock()
		was := all
		all = nil
		return was
	}
}

// TestFlakeyRaisesAtEachTurn: once an interval, by its first request, however many
// come at that moment; an interval without requests is no event.
func TestFlakeyRaisesAtEachTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, take := raising(t, dmtest.New(t), "0 8 flakey a 0 2 1 1 error_reads")
		for second, want := range [][]string{nil, nil, {"flakey: down: error_reads"}, {"flakey: up"}, nil, {"flakey: down: error_reads"}} {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					m.Do(t.Context(), block.Request{Op: block.OpRead, Len: 512, Data: block.Bytes(make([]byte, 512))})
				})
			}
			wg.Wait()
			if got := take(); !slices.Equal(got, want) {
				t.Errorf("second %d: raised %q, want %q", second, got, want)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(3 * time.Second)
		if got := take(); got != nil {
			t.Errorf("raised %q without a request", got)
		}
	})
}

// TestDustRaisesWhatTheKernelLogs, and nothing while it is quiet.
func TestDustRaisesWhatTheKernelLogs(t *testing.T) {
	m, take := raising(t, dmtest.New(t), "0 1024 dust a 0 4096")
	write := func() {
		t.Helper()
		if err := m.Do(t.Context(), block.Request{Op: block.OpWrite, Len: 4096, Data: block.Bytes(make([]byte, 4096))}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		message string
		want    []string
	}{
		{"addbadblock 0", []string{"dust: block 0 added, 0 writes to it fail"}},
		{"queryblock 0", nil},
		{"disable", nil}, // as it was
		{"enable", []string{"dust: enabled"}},
		{"enable", nil},
		{"write", []string{"dust: block 0 healed by a write"}},
		{"write", nil},
		{"addbadblock 5 2", []string{"dust: block 5 added, 2 writes to it fail"}},
		{"removebadblock 5", []string{"dust: block 5 removed"}},
		{"clearbadblocks", nil},
		{"quiet", nil},
		{"addbadblock 0", nil},
		{"disable", nil},
		{"quiet", nil},
		{"clearbadblocks", []string{"dust: all blocks removed"}},
	} {
		if c.message == "write" {
			write()
		} else if _, err := m.Message(t.Context(), 0, strings.Fields(c.message)); err != nil {
			t.Fatal(err)
		}
		if got := take(); !slices.Equal(got, c.want) {
			t.Errorf("%s: raised %q, want %q", c.message, got, c.want)
		}
	}
}
