package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// medium is what lies on a device, as it is: ciphertext of what fscrypt encrypts.
func medium(t testing.TB, h *dm.Handle) []byte {
	t.Helper()
	return dmtest.Read(t, h, 0, int(h.Info().Size))
}

// ranges are parts of an extent of a file to write: its ends, what is in its middle,
// and with boundaries of neither blocks nor data units.
func ranges(w *fsimages.File, rnd *rand.Rand) (all [][2]int64) {
	for _, e := range w.Extents {
		from, to := e.Logical, min(e.Logical+e.Length, w.Size)
		if from >= to {
			continue
		}
		n := to - from
		a, b := from+rnd.Int64N(n), from+rnd.Int64N(n)+1
		all = append(all, [2]int64{from, min(to, from+1+rnd.Int64N(700))}, [2]int64{max(from, to-1-rnd.Int64N(700)), to},
			[2]int64{min(a, b), max(a, b)}, [2]int64{from &^ 511, min(to, from+4096)})
	}
	if len(w.Extents) == 1 && w.Extents[0].Logical == 0 && w.Extents[0].Length >= w.Size {
		all = append(all, [2]int64{0, w.Size})
	}
	return slices.DeleteFunc(all, func(r [2]int64) bool { return r[0] >= r[1] })
}

// TestWriteInPlace writes to every file of every file system that the kernel wrote,
// whatever its policy: what was written is read back, nothing else changed on the
// medium, and once each file has its old contents again the medium is, byte for byte,
// as the kernel wrote it.
func TestWriteInPlace(t *testing.T) {
	for i, f := range images(t) {
		slots := 3 * (i % 2) // an engine, or software in its place
		t.Run(fmt.Sprintf("%s/%d slots", f.Name, slots), func(t *testing.T) {
			t.Parallel()
			h := stack(t, dmtest.New(t), f, slots)
			v := mustOpen(t, h)
			addKeys(t, v, f)
			before := medium(t, h)
			writeAll(t, v, f, uint64(i), before, func() []byte { return medium(t, h) })
			if after := medium(t, h); !bytes.Equal(after, before) {
				t.Errorf("with its old contents, the medium is not what the kernel wrote: byte %d differs", firstDifference(after, before))
			}
		})
	}
}

// writeAll writes to all files, compares, and writes their old contents again.
func writeAll(t *testing.T, v *volume.Volume, f *fsimages.FileSystem, seed uint64, before []byte, now func() []byte) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	type written struct {
		from, to int64
		p        []byte
	}
	all := map[*fsimages.File][]written{} // in order
	touched := make([]bool, len(before)/512)
	n := uint64(0)
	for i := range f.Files {
		w := &f.Files[i]
		for _, r := range ranges(w, rnd) {
			n++
			p := fixtures.Pattern("mix", n, int(r[1]-r[0]))
			write(t, v, w, r[0], p)
			all[w] = append(all[w], written{r[0], r[1], p})
			touch(touched, w, v.Info().BlockSize, r)
		}
	}
	after := now()
	changed := 0
	for s := range touched {
		same := bytes.Equal(after[s*512:s*512+512], before[s*512:s*512+512])
		if !same && !touched[s] {
			t.Fatalf("byte %d of the medium changed, which belongs to nothing that was written", s*512)
		}
		if !same {
			changed++
		}
	}
	if changed == 0 {
		t.Error("nothing changed on the medium")
	}
	for i := range f.Files {
		w := &f.Files[i]
		file := mustLookup(t, v, w.Path)
		for _, r := range all[w] {
			want := plain(w, r.from, r.to-r.from)
			for _, x := range all[w] { // later ones over it
				if lo, hi := max(x.from, r.from), min(x.to, r.to); lo < hi {
					copy(want[lo-r.from:hi-r.from], x.p[lo-x.from:hi-x.from])
				}
			}
			got := make([]byte, len(want))
			if _, err := file.ReadAt(t.Context(), got, r.from); err != nil && err != io.EOF {
				t.Error(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, bytes %d to %d: reads other bytes than were written", w.Path, r.from, r.to)
			}
		}
		if err := file.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for _, r := range all[w] {
			write(t, v, w, r.from, plain(w, r.from, r.to-r.from))
		}
	}
}

func write(t *testing.T, v *volume.Volume, w *fsimages.File, off int64, p []byte) {
	t.Helper()
	file := mustLookup(t, v, w.Path)
	if n, err := file.WriteAt(t.Context(), p, off); n != len(p) || err != nil {
		t.Errorf("%s: %d bytes at %d: %d written, %v", w.Path, len(p), off, n, err)
	}
	if err := file.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// touch marks the sectors of the blocks of a range.
func touch(sectors []bool, w *fsimages.File, blockSize int, r [2]int64) {
	b := int64(blockSize)
	for _, e := range w.Extents {
		lo, hi := max(e.Logical, r[0])&^(b-1), min(e.Logical+e.Length, (r[1]+b-1)&^(b-1))
		for at := lo; at < hi; at += 512 {
			sectors[(e.Physical+at-e.Logical)/512] = true
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// fixture opens a file system in memory with its keys.
func fixture(t *testing.T, name string, slots int) (*fsimages.FileSystem, *dmtest.RAM, *dm.Handle, *volume.Volume) {
	t.Helper()
	for _, f := range images(t) {
		if f.Name == name {
			w := dmtest.New(t)
			disk := f.Disk(t, "a")
			ram := w.Disk("a", int64(len(disk)), slots)
			ram.Set(disk)
			h := w.Handle("a")
			v := mustOpen(t, h)
			addKeys(t, v, f)
			return f, ram, h, v
		}
	}
	t.Fatalf("no image %s", name)
	return nil, nil, nil, nil
}

// TestWriteRefuses: nothing is written where in-place writing would have to allocate,
// grow a file, or go without a key.
func TestWriteRefuses(t *testing.T) {
	_, ram, _, v := fixture(t, "ext4-4k", 0)
	before := ram.Bytes()
	for _, x := range []struct {
		path    string
		off, n  int64
		err     error
		message string
	}{
		{"xts/p4097", 4090, 8, volume.ErrNoWrite, "8 bytes from 4090 on, in a file of 4097 bytes"},
		{"xts/p4097", 4097, 1, volume.ErrNoWrite, "does not become longer"},
		{"xts/p4097", -1, 1, volume.ErrNoWrite, "negative"},
		{"xts/p4097", 1, 1<<63 - 1, volume.ErrNoWrite, "does not become longer"},
		{"xts/empty", 0, 1, volume.ErrNoWrite, "in a file of 0 bytes"},
		{"xts/hole", 4095, 2, volume.ErrNoWrite, "bytes 4096 to 4097 are a hole"},
		{"xts/hole", 0, 46960, volume.ErrNoWrite, "bytes 4096 to 40960 are a hole"},
		{"xts", 0, 1, volume.ErrType, "directory"},
	} {
		f := mustLookup(t, v, x.path)
		n, err := f.WriteFrom(t.Context(), unread{t}, x.off, x.n)
		if n != 0 || !errors.Is(err, x.err) || !bytes.Contains([]byte(fmt.Sprint(err)), []byte(x.message)) {
			t.Errorf("%s, %d bytes at %d: %d, %v; want %q", x.path, x.n, x.off, n, err, x.message)
		}
		if err2 := f.CheckWrite(x.off, x.n); fmt.Sprint(err2) != fmt.Sprint(err) {
			t.Errorf("%s: CheckWrite: %v, the write: %v", x.path, err2, err)
		}
		if x.off >= 0 && x.n == 1 && x.err == volume.ErrNoWrite {
			if n, err := f.WriteAt(t.Context(), nil, 0); n != 0 || err != nil {
				t.Errorf("%s: no bytes: %d, %v", x.path, n, err)
			}
		}
	}
	if !bytes.Equal(before, ram.Bytes()) || ram.Count(block.OpWrite) != 0 {
		t.Error("something was written")
	}
}

// An unread is a reader that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("read before the write was refused")
	return 0, io.EOF
}

// TestWriteWithoutKeyOrOnReadOnlyDevice is refused by name.
func TestWriteWithoutKeyOrOnReadOnlyDevice(t *testing.T) {
	for _, f := range images(t) {
		if f.Name != "f2fs" {
			continue
		}
		w := dmtest.New(t)
		disk := f.Disk(t, "a")
		ram := w.Disk("a", int64(len(disk)), 0)
		ram.Set(disk)
		v := mustOpen(t, w.Handle("a"))
		file := mustLookup(t, v, "xts")
		entries, err := v.ReadDir(file)
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for _, e := range entries {
			if file := mustLookup(t, v, "xts/"+e.Name); file.Type == volume.Regular && file.Size > 0 {
				if _, err := file.WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, volume.ErrNoKey) {
					t.Errorf("without the key: %v", err)
				}
				refused++
			}
		}
		if refused == 0 {
			t.Error("no file")
		}
		v = mustOpen(t, readOnly{w.Handle("a")})
		addKeys(t, v, f)
		if _, err := mustLookup(t, v, "xts/p4096").WriteAt(t.Context(), []byte("x"), 0); !errors.Is(err, volume.ErrNoWrite) {
			t.Errorf("on a read-only device: %v", err)
		}
	}
}

// readOnly is a device whose table is.
type readOnly struct{ *dm.Handle }

func (d readOnly) Info() block.Info {
	i := d.Handle.Info()
	i.ReadOnly = true
	return i
}
