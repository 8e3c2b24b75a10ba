package volume_test

import (
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

// image returns a file system of the fixtures by name.
func image(t testing.TB, name string) *fsimages.FileSystem {
	t.Helper()
	for _, f := range images(t) {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no image %s", name)
	return nil
}

// residents is how many keys are in the slots of a disk's engine.
func residents(w *dmtest.World, disk string) int { return len(w.Device(disk).Engine().Residents()) }

// The last file with a key evicts it: from the engine, and from memory.
func TestLastCloseEvicts(t *testing.T) {
	ctx, w := t.Context(), dmtest.New(t)
	var gone []blkcrypto.Eviction
	v, err := volume.Open(ctx, stack(t, w, image(t, "ext4-4k"), 8), volume.Options{Evicted: func(e blkcrypto.Eviction) { gone = append(gone, e) }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeVolume(t, v)
	addKeys(t, v, image(t, "ext4-4k"))
	read := func(p string) *volume.File {
		f := mustLookup(t, v, p)
		if _, err := f.ReadAt(ctx, make([]byte, 100), 0); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		return f
	}
	shut := func(f *volume.File, residentsAfter int) {
		t.Helper()
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := residents(w, "a"); n != residentsAfter {
			t.Errorf("%d keys in keyslots, want %d", n, residentsAfter)
		}
	}
	const perFile, shared, other = "xts/sub/deep/inner", "xts-ino64/sub/deep/inner", "xts-ino64/p4095"
	a, b, c, d := read(perFile), read(perFile), read(shared), read(other)
	if n := residents(w, "a"); n != 2 {
		t.Fatalf("%d keys in keyslots, want that of a file and one of a policy", n)
	}
	shut(a, 2)
	shut(c, 2)
	shut(c, 2) // a second time is no second user
	if _, err := c.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("read of a closed file: %v", err)
	}
	if _, err := d.ReadAt(ctx, make([]byte, 100), 0); err != nil {
		t.Error(err)
	}
	shut(b, 1)
	shut(d, 0)
	if len(gone) != 2 || len(gone[0].Places) == 0 || gone[0].Err() != nil {
		t.Errorf("receipts %+v", gone)
	}
	read(perFile)
	read(shared)
	receipts, err := v.Close(ctx)
	if err != nil || len(receipts) != 2 || residents(w, "a") != 0 {
		t.Errorf("receipts %+v, %v; %d keys in keyslots", receipts, err, residents(w, "a"))
	}
	if again, err := v.Close(ctx); err != nil || len(again) != 0 {
		t.Errorf("closed again: %+v, %v", again, err)
	}
	if _, err := d.ReadAt(ctx, make([]byte, 100), 0); !errors.Is(err, volume.ErrClosed) {
		t.Errorf("read from a closed volume: %v", err)
	}
}

// After a cat of every file of two file systems, of which most have a key of their own,
// no slot of a controller with 32 is enabled; and it was asked for every key.
func TestCatOfAllLeavesNoKey(t *testing.T) {
	for _, name := range []string{"ext4-4k", "f2fs"} {
		f, w := image(t, name), dmtest.New(t)
		spec, err := emul.ParseSpec("ufs?modes=AES-256-XTS&units=512,1024,4096&dun-bytes=8")
		if err != nil {
			t.Fatal(err)
		}
		e := emul.New("ufs", spec.Options)
		m := keyslot.New(e)
		w.Leaf("a", &volumetest.Medium{Bytes: disk(t, f, "a")}, m)
		var receipts []blkcrypto.Eviction
		v, err := volume.Open(t.Context(), w.Handle("a"), volume.Options{Evicted: func(e blkcrypto.Eviction) { receipts = append(receipts, e) }})
		if err != nil {
			t.Fatal(err)
		}
		addKeys(t, v, f)
		check(t, v, f)
		for slot := range e.Slots() {
			if e.Enabled(slot) {
				t.Errorf("%s: keyslot %d is enabled", name, slot)
			}
		}
		if p := m.Stats().Programs; e.Slots() != 32 || p < 64 || len(receipts) < int(p) {
			t.Errorf("%s: %d slots programmed %d times, %d receipts", name, e.Slots(), p, len(receipts))
		}
		for _, r := range receipts {
			if r.Err() != nil {
				t.Error(r.Err())
			}
		}
		closeVolume(t, v)
	}
}

// A key that the engine could not forget is told of, and the volume's Close tries again.
func TestEvictionIsTriedAgain(t *testing.T) {
	ctx, f, w := t.Context(), image(t, "ext4-4k"), dmtest.New(t)
	spec, err := emul.ParseSpec("ufs")
	if err != nil {
		t.Fatal(err)
	}
	e := emul.New("ufs", spec.Options)
	w.Leaf("a", &volumetest.Medium{Bytes: disk(t, f, "a")}, keyslot.New(e))
	v := mustOpen(t, w.Handle("a"))
	addKeys(t, v, f)
	file := mustLookup(t, v, "xts/p4096")
	if _, err := file.ReadAt(ctx, make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the controller is gone")
	e.Fail(gone)
	if err := file.Close(ctx); !errors.Is(err, gone) {
		t.Errorf("closed without the controller: %v", err)
	}
	if receipts, err := v.Close(ctx); !errors.Is(err, gone) || len(receipts) != 1 || receipts[0].Err() == nil {
		t.Errorf("volume closed without the controller: %+v, %v", receipts, err)
	}
	e.Fail(nil)
	if receipts, err := v.Close(ctx); err != nil || len(receipts) != 1 || receipts[0].Err() != nil || residents(w, "a") != 0 {
		t.Errorf("volume closed: %+v, %v", receipts, err)
	}
}
