package dm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// in reports whether k is, or may be, in the engine of a leaf.
func in(w *dmtest.World, leaf string, k *blkcrypto.Key) bool {
	for _, r := range w.Device(leaf).Engine().Residents() {
		if r.ID == k.ID() {
			return true
		}
	}
	return false
}

func useKey(t *testing.T, dev block.Device, k *blkcrypto.Key) {
	t.Helper()
	err := dev.Do(t.Context(), block.Request{
		Op: block.OpWrite, Len: 4096, Data: block.Bytes(make([]byte, 4096)), Crypt: blkcrypto.Context{Key: k},
	})
	if err != nil {
		t.Error(err)
	}
}

func wantIn(t *testing.T, w *dmtest.World, k *blkcrypto.Key, leaves string) {
	t.Helper()
	for _, leaf := range []string{"a", "b"} {
		if got, want := in(w, leaf, k), strings.Contains(leaves, leaf); got != want {
			t.Errorf("key %v in the engine of %s: %v, want %v", k, leaf, got, want)
		}
	}
}

// dm-fscrypt.md invariant 61, gap U6, FINDINGS 2.1 (b): a reload that drops a
// device takes the device's keys out of its engine, those from two levels above
// too, and those of nobody else (invariants 58 and 59). The keys stay usable.
func TestReloadEvictsFromTheDeviceThatItDrops(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 8)
	w.Disk("b", 1<<20, 8)
	w.Map("mid", "0 1024 linear a 0")
	top, other := w.Map("top", "0 1024 linear mid 0"), w.Map("other", "0 1024 linear a 1024")
	mine := dmtest.NewKey(t, "mine", xts4k, 1)
	shared := dmtest.NewKey(t, "shared", xts4k, 2)
	started := dmtest.NewKey(t, "started", xts4k, 3)
	theirs := dmtest.NewKey(t, "theirs", xts4k, 4)
	direct := dmtest.NewKey(t, "direct", xts4k, 5)
	for _, k := range []*blkcrypto.Key{mine, shared, started} {
		useKey(t, top, k)
	}
	useKey(t, other, shared)
	useKey(t, other, theirs)
	useKey(t, w.Handle("a"), direct)
	stop, err := other.StartKey(started, "the test")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()

	w.Reload("mid", "0 1024 linear b 0")
	wantIn(t, w, mine, "")
	for _, k := range []*blkcrypto.Key{shared, started, theirs, direct} {
		wantIn(t, w, k, "a")
	}
	useKey(t, top, mine)
	wantIn(t, w, mine, "b")

	w.Reload("mid", "0 1024 error")
	wantIn(t, w, mine, "")
	useKey(t, other, mine) // by another way now
	w.Reload("mid", "0 1024 linear a 0")
	w.Reload("mid", "0 1024 linear b 0")
	wantIn(t, w, mine, "a")
}

// A table that replaces another with the same key has sent no request yet: the key
// is in the engine all the same.
func TestReloadEvictsKeysThatCameThroughAnEarlierTableAbove(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 8)
	w.Disk("b", 1<<20, 8)
	w.Map("mid", "0 1024 linear a 0")
	text := fmt.Sprintf("0 1024 inlinecrypt aes-xts-plain64 %x 0 mid 0", rawKey(xts4k, 1))
	top := w.Map("top", text)
	dmtest.Write(t, top, 0, make([]byte, 512))
	if n := len(w.Device("a").Engine().Residents()); n != 1 {
		t.Fatalf("%d keys in the engine of a, want 1", n)
	}
	w.Reload("top", text)
	w.Reload("mid", "0 1024 linear b 0")
	if r := w.Device("a").Engine().Residents(); len(r) != 0 {
		t.Errorf("the engine of a, which is beneath no table any more, holds %+v", r)
	}

	// The same where the row itself goes to another device, and the key lives on in
	// a third table.
	onA, onB := strings.Replace(text, "mid", "a", 1), strings.Replace(text, "mid", "b", 1)
	w.Map("other", onB)
	w.Reload("top", onA)
	dmtest.Write(t, top, 0, make([]byte, 512))
	w.Reload("top", onA)
	w.Reload("top", onB)
	if r := w.Device("a").Engine().Residents(); len(r) != 0 {
		t.Errorf("the engine of a, which no row stands on any more, holds %+v", r)
	}
}

// Also keys of handles that are closed, at a removal; and the keys of targets.
func TestRemovalEvictsFromWhatTheDeviceStoodOn(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 8)
	w.Disk("b", 1<<20, 8)
	k := dmtest.NewKey(t, "k", xts4k, 1)
	d, err := dm.New("d", dm.Options{}), error(nil)
	if err = d.Reload(t.Context(), w.Table("0 1024 linear a 0"), dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	h, err := d.Open("the test")
	if err != nil {
		t.Fatal(err)
	}
	useKey(t, h, k)
	wantIn(t, w, k, "a")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), dm.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wantIn(t, w, k, "")

	crypt := func(leaf string) string {
		return fmt.Sprintf("0 1024 crypt aes-xts-plain64 %x 0 %s 0", rawKey(xts4k, 9), leaf)
	}
	c := w.Map("c", crypt("a"))
	dmtest.Write(t, c, 0, make([]byte, 512))
	if n := w.Device("a").Engine().Stats().Resident; n != 1 {
		t.Fatalf("%d keys in the engine of a, want the target's", n)
	}
	w.Reload("c", crypt("b"))
	if r := w.Device("a").Engine().Residents(); len(r) != 0 {
		t.Errorf("in the engine of a, which the target has left: %v", r)
	}
	dmtest.Write(t, c, 0, make([]byte, 512))
	programs := w.Device("b").Engine().Stats().Programs
	w.Reload("c", strings.Replace(crypt("b"), "b 0", "b 8", 1))
	dmtest.Write(t, c, 0, make([]byte, 512))
	if again := w.Device("b").Engine().Stats().Programs; again != programs {
		t.Errorf("a reload that keeps device and key had the key programmed anew")
	}

	// Also a table that has sent no request itself, and found the key there: another
	// device uses it, so that it lives on.
	w.Map("c2", crypt("a"))
	w.Reload("c", crypt("b"))
	w.Reload("c", "0 1024 error")
	if r := w.Device("b").Engine().Residents(); len(r) != 0 {
		t.Errorf("in the engine of b, which the target has left: %v", r)
	}
}

// The set does not keep evicted keys for ever.
func TestEvictedKeysAreForgotten(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 8)
	w.Disk("b", 1<<20, 8)
	top := w.Map("top", "0 1024 linear a 0")
	for i := range 300 {
		k := dmtest.NewKey(t, fmt.Sprint("k", i), xts4k, byte(i))
		useKey(t, top, k)
		if _, err := k.Evict(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(slices.Collect(dm.EnteredKeys(top.Mapped))); n > 64 {
		t.Errorf("%d keys are remembered, though all have been evicted", n)
	}
}

// A table that is loaded keeps the keys that it has started where they are; when it
// is given up without having been live, they go too, though they live on elsewhere.
func TestALoadedTableThatIsGivenUpKeepsNoKeyBehind(t *testing.T) {
	crypt := func(leaf string, start int) string {
		return fmt.Sprintf("0 1024 crypt aes-xts-plain64 %x 0 %s %d", rawKey(xts4k, 9), leaf, start)
	}
	for name, giveUp := range map[string]func(w *dmtest.World, c *dm.Mapped) error{
		"reload": func(w *dmtest.World, c *dm.Mapped) error {
			return c.Reload(t.Context(), w.Table("0 1024 error"), dm.SuspendOptions{})
		},
		"remove": func(_ *dmtest.World, c *dm.Mapped) error { return c.Remove(t.Context(), dm.RemoveOptions{}) },
	} {
		w := dmtest.New(t)
		w.Disk("a", 1<<20, 8)
		w.Disk("b", 1<<20, 8)
		w.Map("elsewhere", crypt("b", 0))
		c := w.Map("c", crypt("a", 0))
		dmtest.Write(t, c, 0, make([]byte, 512))
		if err := c.Load(t.Context(), w.Table(crypt("a", 8))); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := w.Device("a").Engine().Stats().Resident; n != 1 {
			t.Fatalf("%s: %d keys in the engine of a before, want the target's", name, n)
		}
		if err := giveUp(w, c.Mapped); err != nil {
			t.Fatal(err)
		}
		if r := w.Device("a").Engine().Residents(); len(r) != 0 {
			t.Errorf("%s: in the engine of a, which both tables have left: %v", name, r)
		}
	}
}
