package volume_test

import (
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures/fsimages"
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
