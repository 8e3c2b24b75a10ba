package dm_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// stall makes a disk hold requests of one kind until release is called.
func stall(d *dmtest.RAM, op block.Op) (entered chan struct{}, release func()) {
	entered = make(chan struct{}, 100)
	gate := make(chan struct{})
	d.Before = func(_ context.Context, r block.Request) error {
		if r.Op == op {
			entered <- struct{}{}
			<-gate
		}
		return nil
	}
	return entered, sync.OnceFunc(func() { close(gate) })
}

func write(dev block.Device, off int64, b []byte) error {
	return dev.Do(context.Background(), block.Request{Op: block.OpWrite, Off: off, Len: int64(len(b)), Data: block.Bytes(b)})
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// TestSuspendDrains: after suspend nothing is under way below, what comes
// waits, and is served by the table that resume brings (invariants 18 to 20).
func TestSuspendDrains(t *testing.T) {
	w := dmtest.New(t)
	a, b := w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0)
	entered, release := stall(a, block.OpWrite)
	dev := w.Map("d", "0 2048 linear a 0")
	first := make(chan error, 1)
	go func() { first <- write(dev, 0, make([]byte, 4096)) }()
	<-entered

	suspended := make(chan error, 1)
	go func() { suspended <- dev.Suspend(context.Background(), dm.SuspendOptions{}) }()
	select {
	case err := <-suspended:
		t.Fatalf("suspend returned %v with a write under way", err)
	case <-time.After(20 * time.Millisecond):
	}
	release()
	if err := <-suspended; err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if n := a.Inside(); n != 0 {
		t.Errorf("%d requests inside the disk after suspend", n)
	}

	data := []byte(strings.Repeat("x", 512))
	second := make(chan error, 1)
	go func() { second <- write(dev, 512, data) }()
	for dev.State().Waiting != 1 {
		time.Sleep(time.Millisecond)
	}
	if err := dev.Load(t.Context(), w.Table("0 2048 linear b 0")); err != nil {
		t.Fatal(err)
	}
	before := a.Count(block.OpWrite)
	if err := dev.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if a.Count(block.OpWrite) != before || string(b.Bytes()[512:1024]) != string(data) {
		t.Error("the write that waited did not go to the new table")
	}
}

// TestNoWaitAtASuspendedDevice: would-block, and nothing else fails
// (invariant 17).
func TestNoWaitAtASuspendedDevice(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 2048 linear a 0")
	if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	r := block.Request{Op: block.OpRead, Flags: block.NoWait, Len: 512, Data: block.Bytes(make([]byte, 512))}
	if err := dev.Do(t.Context(), r); err != block.ErrWouldBlock {
		t.Errorf("NoWait: %v, want ErrWouldBlock", err)
	}
	r.Flags = 0
	if err := dev.Do(soon(t), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Errorf("suspend of a suspended device: %v", err)
	}
	for range 2 {
		if err := dev.Resume(t.Context()); err != nil {
			t.Errorf("resume: %v", err)
		}
	}
	if err := dev.Do(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// TestSuspendNamesWhatHoldsItUp, and the device runs on (invariant 22).
func TestSuspendNamesWhatHoldsItUp(t *testing.T) {
	w := dmtest.New(t)
	a := w.Disk("a", 1<<20, 0)
	w.Map("low", "0 2048 linear a 0")
	top := w.Map("top", "0 2048 linear low 0")
	low := w.Device("low")
	if err := low.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- write(top, 0, make([]byte, 512)) }()
	for low.State().Waiting != 1 {
		time.Sleep(time.Millisecond)
	}
	err := top.Suspend(soon(t), dm.SuspendOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `device "low" is suspended, with 1 request waiting there`) {
		t.Errorf("suspend over a suspended device: %v", err)
	}
	if top.State().Suspended {
		t.Error("the device stayed suspended")
	}
	if err := low.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}

	entered, release := stall(a, block.OpWrite)
	defer release()
	go func() { done <- write(top, 0, make([]byte, 512)) }()
	<-entered
	err = top.Suspend(soon(t), dm.SuspendOptions{})
	if err == nil || !strings.Contains(err.Error(), `1 request in progress in device "a"`) {
		t.Errorf("suspend over a slow disk: %v", err)
	}
	if err := write(top, 4096, nil); err != nil {
		t.Errorf("the device does not run on: %v", err)
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLoadChangesNothing: not the size, not the profile, not the first table
// either; clear undoes it (invariants 30 and 31).
func TestLoadChangesNothing(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 4)
	w.Disk("b", 2<<20, 0)
	dev := w.Map("d", "0 1024 linear a 0")
	was := dev.Info()
	if was.Crypto.Empty() {
		t.Fatal("a linear row over an engine advertises nothing")
	}
	for range 2 {
		if err := dev.Load(t.Context(), w.Table("0 4096 linear b 0")); err != nil {
			t.Fatal(err)
		}
		if dev.Info() != was {
			t.Errorf("load changed the device: %+v, was %+v", dev.Info(), was)
		}
	}
	if got := dev.TableText(true, dm.StatusTable); got != "0 4096 linear b 0\n" {
		t.Errorf("inactive table %q", got)
	}
	if err := dev.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := dev.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dev.Info() != was || dev.TableText(true, dm.StatusTable) != "" {
		t.Error("clear did not undo load")
	}
	if s := w.Device("b").State(); s.Open != 0 {
		t.Errorf("b is still held by %v", s.Holders)
	}

	fresh := dm.New("fresh", dm.Options{})
	if err := fresh.Load(t.Context(), w.Table("0 1024 linear a 0")); err != nil {
		t.Fatal(err)
	}
	if i := fresh.Info(); i.Size != 0 || !i.Crypto.Empty() {
		t.Errorf("the first load is observable: %+v", i)
	}
	if err := fresh.Load(t.Context(), w.Table("0 4096 linear b 0")); err != nil {
		t.Errorf("a poorer table in place of a loaded one: %v", err)
	}
}

// TestReloadThatFailsChangesNothing (invariants 24 and 26).
func TestReloadThatFailsChangesNothing(t *testing.T) {
	w := dmtest.New(t)
	a := w.Disk("a", 1<<20, 0)
	w.Disk("b", 1<<20, 0)
	low := w.Map("low", "0 2048 linear b 0")
	dev := w.Map("d", "0 2048 linear a 0")

	// The device beneath shrinks between load and resume.
	if err := dev.Load(t.Context(), w.Table("0 2048 linear low 0")); err != nil {
		t.Fatal(err)
	}
	w.Reload("low", "0 1024 linear b 0")
	if err := dev.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "has shrunk") {
		t.Errorf("resume onto a device that has shrunk: %v", err)
	}
	if s := dev.State(); s.Suspended || !s.Inactive {
		t.Errorf("after a refused resume: %+v", s)
	}
	dmtest.Write(t, dev, 0, make([]byte, 512))

	// The suspension does not come to an end.
	entered, release := stall(a, block.OpWrite)
	done := make(chan error, 1)
	go func() { done <- write(dev, 0, make([]byte, 512)) }()
	<-entered
	kept := dev.TableText(true, dm.StatusTable)
	if err := dev.Reload(soon(t), w.Table("0 1024 linear low 0"), dm.SuspendOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reload over a slow disk: %v", err)
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := dev.TableText(false, dm.StatusTable); got != "0 2048 linear a 0\n" {
		t.Errorf("live table %q", got)
	}
	if got := dev.TableText(true, dm.StatusTable); got != kept {
		t.Errorf("inactive table %q, was %q", got, kept)
	}
	_ = low
}

// TestCycleIsRefused, of any length, through live and inactive tables
// (invariant 35, race 30).
func TestCycleIsRefused(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	one := w.Map("one", "0 1024 linear a 0")
	two := w.Map("two", "0 1024 linear one 0")
	w.Map("three", "0 1024 linear two 0")
	for _, text := range []string{"0 1024 linear one 0", "0 1024 linear two 0", "0 512 linear a 0\n512 512 linear three 0"} {
		err := one.Load(t.Context(), w.Table(text))
		if err == nil || !strings.Contains(err.Error(), "stand on itself") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// A→B and B→A: the second to come is refused though neither is live.
	x, y := w.Map("x", "0 1024 linear a 0"), w.Map("y", "0 1024 linear a 0")
	if err := x.Load(t.Context(), w.Table("0 1024 linear y 0")); err != nil {
		t.Fatal(err)
	}
	if err := y.Load(t.Context(), w.Table("0 1024 linear x 0")); err == nil {
		t.Error("two devices stand on each other")
	}
	if err := x.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := y.Load(t.Context(), w.Table("0 1024 linear x 0")); err != nil {
		t.Errorf("after clear: %v", err)
	}
	_ = two
}

// TestRemoveOfOpenAndSuspendedDevices (invariant 33).
func TestRemoveOfOpenAndSuspendedDevices(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	gone := make(chan *dm.Mapped, 1)
	m := dm.New("d", dm.Options{Gone: func(m *dm.Mapped) { gone <- m }})
	if err := m.Reload(t.Context(), w.Table("0 1024 linear a 0"), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	h, err := m.Open(`export "vm1"`)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Remove(t.Context(), dm.RemoveOptions{})
	if !errors.Is(err, block.ErrBusy) || !strings.Contains(err.Error(), `export "vm1"`) {
		t.Errorf("removal of an open device: %v", err)
	}
	if err := m.Remove(t.Context(), dm.RemoveOptions{Deferred: true}); err != nil {
		t.Fatal(err)
	}
	// Another that does not wait leaves the one that does in place.
	if err := m.Remove(t.Context(), dm.RemoveOptions{}); !errors.Is(err, block.ErrBusy) || !m.State().DeferredRemove {
		t.Errorf("removal of an open device: %v, deferred: %v", err, m.State().DeferredRemove)
	}
	if err := m.CancelDeferred(); err != nil {
		t.Fatal(err)
	}
	h2, err := m.Open("another")
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	h2.Close()
	select {
	case <-gone:
		t.Fatal("a cancelled removal took place")
	default:
	}
	h, _ = m.Open("again")
	if err := m.Remove(t.Context(), dm.RemoveOptions{Deferred: true}); err != nil {
		t.Fatal(err)
	}
	if err := m.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- write(h, 0, make([]byte, 512)) }()
	for m.State().Waiting != 1 {
		time.Sleep(time.Millisecond)
	}
	h.Close()
	if got := <-gone; got != m {
		t.Error("wrong device gone")
	}
	if err := <-waited; !errors.Is(err, block.ErrClosed) {
		t.Errorf("a request that waited: %v, want ErrClosed", err)
	}
	if _, err := m.Open("late"); !errors.Is(err, dm.ErrRemoved) {
		t.Errorf("open after removal: %v", err)
	}
	for _, err := range []error{
		m.Suspend(t.Context(), dm.SuspendOptions{}), m.Resume(t.Context()), m.Clear(t.Context()),
		m.Load(t.Context(), w.Table("0 1024 linear a 0")), m.Remove(t.Context(), dm.RemoveOptions{}),
	} {
		if !errors.Is(err, dm.ErrRemoved) {
			t.Errorf("after removal: %v, want ErrRemoved", err)
		}
	}
	if s := w.Device("a").State(); s.Open != 0 {
		t.Errorf("a is still held by %v", s.Holders)
	}
}

// TestReadOnlyTable: refused at entry; switches at resume only (invariant 34).
func TestReadOnlyTable(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 1024 linear a 0")
	ro, err := dm.Parse(t.Context(), "0 1024 linear a 0", w, dm.ParseOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Load(t.Context(), ro); err != nil {
		t.Fatal(err)
	}
	dmtest.Write(t, dev, 0, make([]byte, 512))
	if err := dev.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, op := range []block.Op{block.OpWrite, block.OpDiscard, block.OpWriteZeroes} {
		r := block.Request{Op: op, Len: 512, Data: block.Bytes(make([]byte, 512))}
		if err := dev.Do(t.Context(), r); !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("%v: %v, want ErrReadOnly", op, err)
		}
	}
	if !dev.Info().ReadOnly {
		t.Error("Info does not say so")
	}
	dmtest.Read(t, dev, 0, 512)
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
		t.Errorf("flush: %v", err)
	}
	// A table that is not read-only cannot stand on one that is.
	if _, err := w.Parse("0 1024 linear d 0"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a writable table over a read-only device: %v", err)
	}
}

// TestEventsAndWait (invariant 32).
func TestEventsAndWait(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 1024 linear a 0")
	n := dev.Event()
	if got, err := dev.Wait(t.Context(), n+5); err != nil || got != n {
		t.Errorf("wait for a number to come: %d, %v", got, err)
	}
	if _, err := dev.Wait(soon(t), n); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without an event: %v", err)
	}
	got := make(chan uint64, 1)
	go func() { v, _ := dev.Wait(context.Background(), n); got <- v }()
	dev.Suspend(t.Context(), dm.SuspendOptions{})
	dev.Resume(t.Context())
	if dev.Event() != n {
		t.Error("suspend and resume without a table are no events")
	}
	dev.Rename("e")
	if v := <-got; v == n {
		t.Error("rename woke nobody")
	}
	if dev.Name() != "e" {
		t.Errorf("name %q", dev.Name())
	}
	n = dev.Event()
	w.Reload("d", "0 512 linear a 0")
	if dev.Event() == n {
		t.Error("a new live table is an event")
	}
}

// TestFlushReachesEveryDevice once, whatever targets the table mixes
// (invariant 12), and a failing leg fails it.
func TestFlushReachesEveryDevice(t *testing.T) {
	w := dmtest.New(t)
	a, b, c := w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0), w.Disk("c", 1<<20, 2)
	const key = "00112233445566778899aabbccddeeff112233445566778899aabbccddeeff0022334455667788990011aabbccddeeff33445566778899001122aabbccddeeff"
	dev := w.Map("d", "0 256 linear a 0\n256 256 striped 2 8 a 512 b 0\n512 64 zero\n576 64 error\n640 128 crypt aes-xts-plain64 "+key+" 0 c 0")
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*dmtest.RAM{"a": a, "b": b, "c": c} {
		if n := d.Count(block.OpFlush); n != 1 {
			t.Errorf("%s was flushed %d times, want 1", name, n)
		}
	}
	bad := errors.New("bad cable")
	b.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpFlush {
			return bad
		}
		return nil
	}
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); !errors.Is(err, bad) {
		t.Errorf("flush with a failing leg: %v", err)
	}
	if c.Count(block.OpFlush) != 2 {
		t.Error("the failure of one leg kept the flush from another")
	}
}

// TestFUASurvives splitting and targets without it (invariant 14).
func TestFUASurvives(t *testing.T) {
	w := dmtest.New(t)
	plain := dmtest.NewRAM(1 << 20)
	plain.SetInfo(func(i *block.Info) { i.FUA, i.VolatileCache = block.None, true })
	w.Leaf("a", plain, nil)
	w.Disk("b", 1<<20, 0)
	var fua bool
	native := w.Disk("c", 1<<20, 0)
	native.Before = func(_ context.Context, r block.Request) error {
		fua = fua || r.Flags&block.FUA != 0
		return nil
	}
	dev := w.Map("d", "0 64 linear a 0\n64 64 linear c 0")
	r := block.Request{Op: block.OpWrite, Flags: block.FUA, Off: 60 * 512, Len: 4096, Data: block.Bytes(make([]byte, 4096))}
	if err := dev.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if plain.Count(block.OpFlush) != 1 || !fua {
		t.Errorf("flushes of the disk without FUA: %d; the other saw FUA: %v", plain.Count(block.OpFlush), fua)
	}
}

// TestSizesAreChecked at every table text (PRODUCT: errors name the place).
func TestErrorsNameTheRowAndTheArgument(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	var targets []string
	for _, t := range dm.Types() {
		targets = append(targets, t.Name)
	}
	for _, c := range []struct{ text, want string }{
		{"0 10 linear a 0\n10 10 linear a 12x", `table row 2: linear: argument 2 (start, in sectors): "12x" is not a number`},
		{"", "table: has no rows"},
		{"# only a comment\n\n", "table: has no rows"},
		{"0 0 linear a 0", "table row 1: is empty: its number of sectors is 0"},
		{"1 10 linear a 0", "table row 1: starts at sector 1, but the rows before it end at 0"},
		{"0 10 nosuch a", `table row 1: no target "nosuch" (there are: ` + strings.Join(targets, ", ") + ")"},
		{"0 4096 linear a 0", `table row 1: linear: device "a" is too small: 4096 sectors from sector 0 on do not fit its 2048`},
		{"0 10 linear a", "table row 1: linear: argument 2 (start, in sectors): missing"},
		{"0 10 linear a 0 junk", `table row 1: linear: surplus argument 3: "junk"`},
		{"0 10 linear b 0", `table row 1: linear: no device "b"`},
		{"x 10 linear a 0", `table row 1: start sector "x" is not a number`},
		{"0 36028797018963968 linear a 0", "table row 1: number of sectors 36028797018963968 is beyond 2^63 bytes"},
		{"0 10 crypt aes-xts-plain64 :64:logon:nosuch 0 a 0", `table row 1: crypt: no key "nosuch"`},
		{"0 10 crypt aes-xts-plain64 :64:nosort:k 0 a 0", `table row 1: crypt: argument 2 (key): type "nosort" in a key reference is not one of logon, user, trusted, encrypted`},
		{"0 10 inlinecrypt aes-xts-plain64 :32:logon:k 0 a 0", `table row 1: inlinecrypt: argument 2 (key): a key of 32 bytes does not fit cipher aes-xts-plain64 (sizes: [64])`},
		{"0 16 default-key aes-xts-plain64 :64:logon:k 0 a 0 1 sector_size:4096", `table row 1: default-key: sector_size above 512 needs the option iv_large_sectors`},
		{"0 10 linear a\\", "table row 1: a backslash at the end quotes nothing"},
	} {
		tab, err := w.Parse(c.text)
		if err == nil {
			t.Errorf("%q was taken", c.text)
			tab.Close(t.Context())
			continue
		}
		if got, _, _ := strings.Cut(err.Error(), "\n"); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.text, got, c.want)
		}
	}
	if s := w.Device("a").State(); s.Open != 0 {
		t.Errorf("refused tables left %q open by %v", "a", s.Holders)
	}
}
