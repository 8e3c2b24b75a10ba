package dm_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// heard collects what devices raise.
type heard struct {
	mu  sync.Mutex
	all []dm.Event
}

func (h *heard) options() dm.Options {
	return dm.Options{Event: func(_ *dm.Mapped, e dm.Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, e)
	}}
}

// take returns what was raised since the last call, as "device kind number".
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, e := range h.all {
		all = append(all, fmt.Sprintf("%s %s %d", e.Device, e.Kind, e.Number))
	}
	h.all = nil
	return all
}

func (h *heard) want(t *testing.T, after string, want ...string) {
	t.Helper()
	if got := h.take(); !slices.Equal(got, want) {
		t.Errorf("%s: events %q, want %q", after, got, want)
	}
}

// env finds devices that a test made beside those of its world.
type env struct {
	*dmtest.World
	made map[string]*dm.Mapped
}

func (e env) Open(ctx context.Context, name string, readOnly bool) (block.Device, error) {
	if m := e.made[name]; m != nil {
		return m.Open("a table")
	}
	return e.World.Open(ctx, name, readOnly)
}

// TestEventsTellWhatChanged: each change is an event, what a reload does on the
// way is none, and a failure is none (dm-fscrypt.md, invariant 32). The number is
// device-mapper's: suspend, resume, load and clear leave it alone.
func TestEventsTellWhatChanged(t *testing.T) {
	ctx := t.Context()
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	w.Disk("b", 1<<20, 4)
	var h heard
	m := dm.New("m", h.options())
	defer m.Remove(context.WithoutCancel(ctx), dm.RemoveOptions{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.Load(ctx, w.Table("0 2048 linear a 0")))
	h.want(t, "load", "m loaded 0")
	must(m.Clear(ctx))
	h.want(t, "clear", "m cleared 0")
	must(m.Clear(ctx))
	h.want(t, "clear of nothing")
	must(m.Load(ctx, w.Table("0 2048 linear a 0")))
	must(m.Resume(ctx))
	h.want(t, "load and resume", "m loaded 0", "m reloaded 1")
	must(m.Suspend(ctx, dm.SuspendOptions{}))
	must(m.Suspend(ctx, dm.SuspendOptions{}))
	h.want(t, "suspend, twice", "m suspended 1")
	must(m.Reload(ctx, w.Table("0 2048 linear b 0"), dm.SuspendOptions{}))
	h.want(t, "reload of a suspended device", "m profile 2", "m reloaded 3", "m resumed 3")
	must(m.Reload(ctx, w.Table("0 2048 linear b 0"), dm.SuspendOptions{}))
	h.want(t, "reload", "m reloaded 4")
	open, err := m.Open("test")
	must(err)
	if err := m.Remove(ctx, dm.RemoveOptions{}); err == nil {
		t.Error("removed while open")
	}
	h.want(t, "refused removal")
	must(open.Close())
	m.Rename("n")
	h.want(t, "rename", "n renamed 5")
	must(m.Remove(ctx, dm.RemoveOptions{}))
	h.want(t, "remove", "n removed 6")
}

// TestEventsOfTheProfileReachAllAbove: a reload at the bottom is an event of every
// device whose profile it changes, with the profile before and after, and of no
// other (dm-fscrypt.md, invariants 42 to 44).
func TestEventsOfTheProfileReachAllAbove(t *testing.T) {
	ctx := t.Context()
	w := dmtest.New(t)
	w.Disk("soft", 1<<20, 0)
	w.Disk("hard", 1<<20, 4)
	var h heard
	e := env{w, map[string]*dm.Mapped{}}
	table := func(text string) *dm.Table {
		t.Helper()
		table, err := dm.Parse(ctx, text, e, dm.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	make := func(name, text string) *dm.Mapped {
		m := dm.New(name, h.options())
		if err := m.Reload(ctx, table(text), dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		e.made[name] = m
		return m
	}
	bottom := make("bottom", "0 2048 linear soft 0")
	mid := make("mid", "0 2048 linear bottom 0")
	top := make("top", "0 2048 linear mid 0")
	other := make("zero", "0 2048 zero")
	defer func() {
		for _, m := range []*dm.Mapped{other, top, mid, bottom} {
			if err := m.Remove(context.WithoutCancel(ctx), dm.RemoveOptions{}); err != nil {
				t.Error(err)
			}
		}
	}()
	h.take()
	if err := bottom.Reload(ctx, table("0 2048 linear hard 0"), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	for _, e := range h.all {
		if e.Kind == dm.EventProfile && (!e.Old.Empty() || e.New.Empty()) {
			t.Errorf("%s: profile from %v to %v", e.Device, e.Old, e.New)
		}
	}
	h.mu.Unlock()
	got := h.take()
	slices.Sort(got)
	if want := []string{"bottom profile 2", "bottom reloaded 3", "mid profile 2", "top profile 2"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// TestEventBeforeItsWait: what wakes a Wait has been told before, so that who reads
// events after a wake-up finds it; no wake-up is lost while many change the device
// (dm-fscrypt.md, invariant 32 and race 21).
func TestEventBeforeItsWait(t *testing.T) {
	const changes = 200
	var told sync.Map
	m := dm.New("m", dm.Options{Event: func(_ *dm.Mapped, e dm.Event) { told.Store(e.Number, e.Kind) }})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := uint64(0); n < 4*changes; {
				now, err := m.Wait(t.Context(), n)
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok := told.Load(now); !ok {
					t.Errorf("wait says %d, which nobody was told", now)
				}
				n = now
			}
		})
		wg.Go(func() {
			for i := range changes {
				m.Rename(fmt.Sprint("m", i))
			}
		})
	}
	wg.Wait()
	if got := m.Event(); got != 4*changes {
		t.Errorf("%d events, want %d", got, 4*changes)
	}
}

// TestTargetRaises: what a target raises is an event of the device whose table it
// is in, and nothing before that.
func TestTargetRaises(t *testing.T) {
	ctx := t.Context()
	w := dmtest.New(t)
	var h heard
	m := dm.New("m", h.options())
	defer m.Remove(context.WithoutCancel(ctx), dm.RemoveOptions{})
	table := w.Table("0 8 test-raises\n8 8 test-raises")
	raiser.Raise("too early")
	h.want(t, "no owner")
	if err := m.Reload(ctx, table, dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	h.take()
	raiser.Raise("leg 0 is gone")
	h.mu.Lock()
	text := h.all[0].Detail
	h.mu.Unlock()
	h.want(t, "raise", "m target 2")
	if text != "test-raises: leg 0 is gone" {
		t.Errorf("text %q", text)
	}
}

var raiser *dm.Builder

func init() {
	dm.Register(dm.TargetType{Name: "test-raises", New: func(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
		raiser = b
		return nothing{}, a.End()
	}})
}

// nothing is a target that does nothing.
type nothing struct{}

func (nothing) Do(context.Context, block.Request) error { return nil }
func (nothing) Info() block.Info                        { return block.Info{LogicalBlock: 512} }
func (nothing) Close() error                            { return nil }
func (nothing) Under() []block.Span                     { return nil }
func (nothing) Status(dm.StatusKind) string             { return "" }

// TestEngineEventsAreTheLeafs: what its engine tells is an event of the leaf device
// and ends a wait (dm-fscrypt.md, invariant 32).
func TestEngineEventsAreTheLeafs(t *testing.T) {
	var h heard
	fallback := keyslot.New(soft.New("fallback", 1))
	engine := soft.New("an engine", 2)
	slots := keyslot.New(engine)
	m, err := dm.NewLeaf("disk", dm.Leaf{Dev: dmtest.NewRAM(1 << 20), Text: "ram", Engine: slots, Fallback: fallback}, h.options())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Remove(context.WithoutCancel(t.Context()), dm.RemoveOptions{})
	h.take()
	before := m.Event()
	if err := slots.Reset(engine.Lose); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Wait(t.Context(), before); err != nil || n != before+1 {
		t.Errorf("wait after a reset: %d, %v, want %d", n, err, before+1)
	}
	h.want(t, "reset", fmt.Sprint("disk engine-reset ", before+1))
}
