package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"keyway/block"
	"keyway/dm"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// medium is what a device shows, as far as fscrypt encrypts it as ciphertext.
func medium(t testing.TB, h *dm.Handle) []byte {
	t.Helper()
	return dmtest.Read(t, h, 0, int(h.Info().Size))
}

// TestWriteInPlace writes to every file of every file system that the kernel wrote,
// whatever its policy, on every layout: what was written is read back, nothing else
// changed on the device, and once each file has its old contents again the disks are,
// byte for byte, as the kernel wrote them.
func TestWriteInPlace(t *testing.T) {
	n := 0
	for _, f := range images(t) {
		for _, l := range layouts(t, f) {
			n++
			spec := engines[n%len(engines)]
			t.Run(f.Name+"/"+l.name+"/"+spec, func(t *testing.T) {
				t.Parallel()
				w := dmtest.New(t)
				disks := map[string]*dmtest.RAM{}
				for name, b := range l.disks {
					disks[name] = dmtest.NewRAM(int64(len(b)))
					disks[name].Set(b)
					w.Leaf(name, disks[name], newEngine(t, spec))
				}
				top := w.Map("fs", l.text(w, ""))
				v := mustOpen(t, top)
				addKeys(t, v, f)
				writeAll(t, v, f, uint64(n), medium(t, top), func() []byte { return medium(t, top) })
				for name, b := range l.disks {
					if after := disks[name].Bytes(); !bytes.Equal(after, b) {
						t.Errorf("with its old contents, disk %s is not what the kernel wrote: byte %d differs", name, firstDifference(after, b))
					}
				}
			})
		}
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
		todo := w.Ranges(rnd)
		if r, ok := w.Whole(); ok && rnd.IntN(4) == 0 {
			todo = append(todo, r)
		}
		for _, r := range todo {
			n++
			p := fixtures.Pattern("mix", n, int(r.To-r.From))
			write(t, v, w, r.From, p)
			all[w] = append(all[w], written{r.From, r.To, p})
			w.Where(r, v.Info().BlockSize, func(from, to int64) {
				for s := from / 512; s < to/512; s++ {
					touched[s] = true
				}
			})
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
			want := w.Plain(r.from, r.to-r.from)
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
			write(t, v, w, r.from, w.Plain(r.from, r.to-r.from))
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
