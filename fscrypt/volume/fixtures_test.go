package volume_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path"
	"sync"
	"testing"

	"keyway/dm"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

func images(t testing.TB) (all []*fsimages.FileSystem) {
	t.Helper()
	all = append(fsimages.All(t, "ext4"), fsimages.All(t, "f2fs")...)
	if len(all) != 6 {
		t.Fatalf("%d file systems, want 6", len(all))
	}
	return all
}

var unpacked sync.Map // bytes of disks, by image and disk

// disk unpacks a disk once for all tests, which must not change it.
func disk(t testing.TB, f *fsimages.FileSystem, name string) []byte {
	t.Helper()
	b, ok := unpacked.Load(f.Name + name)
	if !ok {
		b, _ = unpacked.LoadOrStore(f.Name+name, f.Disk(t, name))
	}
	return b.([]byte)
}

// stack makes the disks and tables of an image, and opens the topmost device. Each disk
// has a software engine of so many slots, or none for 0.
func stack(t testing.TB, w *dmtest.World, f *fsimages.FileSystem, slots int) *dm.Handle {
	t.Helper()
	for name := range f.Disks {
		b := disk(t, f, name)
		w.Disk(name, int64(len(b)), slots).Set(b)
	}
	if len(f.Tables) == 0 {
		return w.Handle("a")
	}
	var top *dm.Handle
	for _, tb := range f.Tables {
		top = w.Map(tb.Device, tb.TableOn(nil))
	}
	return top
}

func mustOpen(t testing.TB, dev volume.Device) *volume.Volume {
	t.Helper()
	v, err := volume.Open(context.Background(), dev, volume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeVolume(t, v) })
	return v
}

func closeVolume(t testing.TB, v *volume.Volume) {
	t.Helper()
	if _, err := v.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// addKeys adds the master keys of all directories.
func addKeys(t testing.TB, v *volume.Volume, f *fsimages.FileSystem) {
	t.Helper()
	for _, m := range volumetest.Masters(f)() {
		if err := v.AddKey(m); err != nil {
			t.Fatal(err)
		}
	}
}

// plain is what the kernel's users wrote to n bytes of a file from off on.
func plain(f *fsimages.File, off, n int64) []byte {
	b := make([]byte, n)
	for _, p := range f.Pieces {
		if from, to := max(p.Offset, off), min(p.Offset+int64(p.Length), off+n); from < to {
			copy(b[from-off:to-off], p.Plain()[from-p.Offset:to-p.Offset])
		}
	}
	return b
}

// sendable is the size in bytes up to which tests read files from end to end. The
// sparse ones have gigabytes.
const sendable = 4 << 20

// checkContents reads a file: all of it, or all that is not a hole and some of what is.
func checkContents(t testing.TB, file *volume.File, w *fsimages.File) {
	t.Helper()
	ctx := context.Background()
	if w.Size <= sendable {
		var got bytes.Buffer
		if n, err := file.Send(ctx, &got); err != nil || n != w.Size {
			t.Errorf("%s: %d bytes sent, %v", w.Path, n, err)
		}
		if !bytes.Equal(got.Bytes(), plain(w, 0, w.Size)) {
			t.Errorf("%s: contents differ", w.Path)
		}
		return
	}
	next := int64(0)
	for p, err := range file.Pieces(0, w.Size) {
		if err != nil {
			t.Error(err)
			return
		}
		if p.Off != next {
			t.Errorf("%s: a piece at %d, want %d", w.Path, p.Off, next)
		}
		next += p.Len
		n := min(p.Len, w.Size-p.Off)
		if p.Kind != volume.Data {
			for _, s := range w.Pieces {
				if s.Offset < p.Off+p.Len && s.Offset+int64(s.Length) > p.Off {
					t.Errorf("%s: a %v at %d, where something was written", w.Path, p.Kind, p.Off)
				}
			}
			n = min(n, 100000)
		}
		got := make([]byte, n)
		if n, err := file.ReadAt(ctx, got, p.Off); n != len(got) || err != nil {
			t.Errorf("%s: read %d bytes at %d: %d, %v", w.Path, len(got), p.Off, n, err)
		}
		if !bytes.Equal(got, plain(w, p.Off, n)) {
			t.Errorf("%s: contents at %d differ", w.Path, p.Off)
		}
	}
	if next < w.Size {
		t.Errorf("%s: pieces end at %d of %d", w.Path, next, w.Size)
	}
}

func mustLookup(t testing.TB, v *volume.Volume, p string) *volume.File {
	t.Helper()
	f, err := v.Lookup(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// walk returns every file below the root by its path.
func walk(t testing.TB, v *volume.Volume) map[string]volume.Facts {
	t.Helper()
	all := map[string]volume.Facts{}
	if err := v.Walk(mustLookup(t, v, "/"), func(p string, f *volume.File) error {
		all[p] = f.Facts
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// check reads everything that the manifest of an image names.
func check(t testing.TB, v *volume.Volume, f *fsimages.FileSystem) {
	t.Helper()
	ctx := context.Background()
	listed := map[string]bool{}
	for p := range walk(t, v) {
		listed[p] = true
	}
	for _, d := range f.Directories {
		dir := mustLookup(t, v, d.Path)
		if p, ok := dir.Policy(); !ok || p.Version != d.PolicyVersion || dir.Inode != d.Inode || !listed[d.Path] {
			t.Errorf("%s: inode %d with policy %v, want %d", d.Path, dir.Inode, p, d.Inode)
		}
	}
	for i := range f.Files {
		w := &f.Files[i]
		file := mustLookup(t, v, w.Path)
		if !listed[w.Path] || file.Inode != w.Inode || file.Size != w.Size || !file.HasKey() {
			t.Errorf("%s: listed %v, inode %d of %d bytes", w.Path, listed[w.Path], file.Inode, file.Size)
		}
		checkContents(t, file, w)
		if err := file.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	for _, w := range f.Symlinks {
		link := mustLookup(t, v, w.Path)
		target, err := link.Readlink()
		if err != nil || target != w.Target || !listed[w.Path] || link.Inode != w.Inode {
			t.Errorf("%s: listed %v, inode %d, target %q, %v; want %q", w.Path, listed[w.Path], link.Inode, target, err, w.Target)
		}
	}
}

// TestFixtures reads every file of every file system that the kernel wrote, on the
// device that it wrote it to.
func TestFixtures(t *testing.T) {
	files := 0
	for _, f := range images(t) {
		t.Run(f.Name, func(t *testing.T) {
			files += len(f.Files)
			w := dmtest.New(t)
			v := mustOpen(t, stack(t, w, f, 0))
			if i := v.Info(); i.Kind != f.Filesystem || !i.Encrypt || len(i.Warnings) > 0 || len(i.Features) == 0 {
				t.Errorf("%+v", i)
			}
			addKeys(t, v, f)
			check(t, v, f)
		})
	}
	if files != 686 {
		t.Errorf("%d files, want 686", files)
	}
}

// TestWithoutKey compares names and targets with what Linux lists without the key.
func TestWithoutKey(t *testing.T) {
	for _, f := range images(t) {
		t.Run(f.Name, func(t *testing.T) {
			v := mustOpen(t, stack(t, dmtest.New(t), f, 0))
			at := map[uint32]string{} // by inode
			for p, file := range walk(t, v) {
				at[file.Inode] = p
			}
			for i := range f.Files {
				w := &f.Files[i]
				file := mustLookup(t, v, at[w.Inode])
				if path.Base(at[w.Inode]) != w.NoKeyName {
					t.Errorf("%s: %s, want %s", w.Path, at[w.Inode], w.NoKeyName)
				}
				if file.Inode != w.Inode || file.HasKey() {
					t.Errorf("%s: inode %d, want %d", w.Path, file.Inode, w.Inode)
				}
				var none *volume.NoKeyError
				_, err := file.ReadAt(t.Context(), make([]byte, 10), 0)
				if p, _ := file.Policy(); !errors.Is(err, volume.ErrNoKey) || !errors.As(err, &none) || none.Spec != p.Key {
					t.Errorf("%s: read without the key: %v", w.Path, err)
				}
				if n, err := file.Send(t.Context(), io.Discard); n != 0 || !errors.Is(err, volume.ErrNoKey) {
					t.Errorf("%s: sent %d bytes without the key: %v", w.Path, n, err)
				}
				hashless := []byte(at[w.Inode]) // of another hash: the name of no file
				if k := len(hashless) - len(w.NoKeyName); hashless[k] == 'A' {
					hashless[k] = 'B'
				} else {
					hashless[k] = 'A'
				}
				if _, err := v.Lookup(string(hashless)); !errors.Is(err, volume.ErrNotExist) {
					t.Errorf("%s: found with another hash: %v", w.Path, err)
				}
				if _, err := v.Lookup(w.Path); !errors.Is(err, volume.ErrNoKey) {
					t.Errorf("%s: found without the key: %v", w.Path, err)
				}
			}
			for _, w := range f.Symlinks {
				link := mustLookup(t, v, at[w.Inode])
				if target, err := link.Readlink(); err != nil || path.Base(at[w.Inode]) != w.NoKeyName || target != w.NoKeyTarget {
					t.Errorf("%s: target %q, %v; want %q", w.Path, target, err, w.NoKeyTarget)
				}
			}
		})
	}
}
