package volume_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"keyway/block"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

// within returns the files of an image below directories of these names.
func within(f *fsimages.FileSystem, dirs ...string) (all []*fsimages.File) {
	for i := range f.Files {
		for _, d := range dirs {
			if strings.HasPrefix(f.Files[i].Path, d+"/") {
				all = append(all, &f.Files[i])
			}
		}
	}
	return all
}

// ReadAt reads any bytes: across data units, blocks, extents, holes, the wrap of the
// numbers of data units, and the end.
func TestReadAtAnywhere(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, name := range []string{"ext4-1k", "f2fs"} {
		f := image(t, name)
		w := dmtest.New(t)
		w.Leaf("a", &volumetest.Medium{Bytes: disk(t, f, "a")}, nil)
		v := mustOpen(t, w.Handle("a"))
		addKeys(t, v, f)
		files := within(f, "xts", "xts-ino32", "xts-du512", "adi-direct", "cbc128")
		if len(files) < 50 {
			t.Fatalf("%d files", len(files))
		}
		for _, w := range files {
			file := mustLookup(t, v, w.Path)
			for range 20 {
				off, n := rnd.Int64N(w.Size+100), rnd.IntN(20000)
				if len(w.Extents) > 0 && rnd.IntN(2) == 0 { // close to where something is
					e := w.Extents[rnd.IntN(len(w.Extents))]
					off = max(0, e.Logical+rnd.Int64N(e.Length+2000)-1000)
				}
				got := bytes.Repeat([]byte{0xee}, n)
				k, err := file.ReadAt(t.Context(), got, off)
				left := max(0, w.Size-off)
				switch {
				case int64(n) <= left && left > 0 && (k != n || err != nil),
					int64(n) > left && (int64(k) != left || err != io.EOF):
					t.Fatalf("seed %d: %s: %d bytes at %d of %d: %d, %v", seed, w.Path, n, off, w.Size, k, err)
				case !bytes.Equal(got[:k], plain(w, off, int64(k))):
					t.Fatalf("seed %d: %s: %d bytes at %d: differ", seed, w.Path, n, off)
				case k < n && !bytes.Equal(got[k:], bytes.Repeat([]byte{0xee}, n-k)):
					t.Fatalf("seed %d: %s: %d bytes at %d: writes behind what it reads", seed, w.Path, n, off)
				}
			}
			if _, err := file.ReadAt(t.Context(), make([]byte, 1), -1); err == nil {
				t.Errorf("%s: read at -1", w.Path)
			}
			if err := file.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// Many read the same files, and close them under each other.
func TestConcurrentReaders(t *testing.T) {
	f, w := image(t, "ext4-1k"), dmtest.New(t)
	w.Leaf("a", &volumetest.Medium{Bytes: disk(t, f, "a")}, newEngine(t, "cpu"))
	v := mustOpen(t, w.Handle("a"))
	addKeys(t, v, f)
	files := within(f, "xts", "xts-ino64")
	one := mustLookup(t, v, "xts/p50000") // shared by all
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, w := range files {
				if w.Size > sendable {
					continue
				}
				file, err := v.Lookup(w.Path)
				if err != nil {
					t.Error(err)
					return
				}
				checkContents(t, file, w)
				if w.Path == "xts/p50000" {
					checkContents(t, one, w)
				}
				if err := file.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := one.Close(t.Context()); err != nil || residents(w, "a") != 0 {
		t.Errorf("%v; %d keys in keyslots", err, residents(w, "a"))
	}
}

// failing is a writer that takes so many bytes.
type failing struct{ left int }

var errFull = errors.New("the disk is full")

func (w *failing) Write(b []byte) (int, error) {
	n := min(len(b), w.left)
	w.left -= n
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

// Send ends with the error of the writer, of the device or of its context, and says how
// far it came.
func TestSendEnds(t *testing.T) {
	f, w := image(t, "ext4-4k"), dmtest.New(t)
	ram := dmtest.NewRAM(int64(len(disk(t, f, "a"))))
	ram.Set(disk(t, f, "a"))
	broken := errors.New("the medium is broken")
	var fail func(block.Request) error
	ram.Before = func(_ context.Context, r block.Request) error {
		if fail != nil {
			return fail(r)
		}
		return nil
	}
	w.Leaf("a", ram, nil)
	v := mustOpen(t, w.Handle("a"))
	addKeys(t, v, f)
	far := mustLookup(t, v, "xts/far") // 5 GiB, of which most is a hole
	if n, err := far.Send(t.Context(), &failing{5 << 20}); n != 5<<20 || !errors.Is(err, errFull) {
		t.Errorf("sent %d bytes to a full disk: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n, err := far.Send(ctx, writer(func(b []byte) (int, error) { cancel(); return len(b), nil }))
	if n == 0 || n > 32<<20 || !errors.Is(err, context.Canceled) {
		t.Errorf("sent %d bytes after the context's end: %v", n, err)
	}
	file := mustLookup(t, v, "xts/p50000")
	for p := range file.Pieces(0, 1) {
		at := p.Dev
		fail = func(r block.Request) error {
			if r.Off <= at && at < r.Off+r.Len {
				return broken
			}
			return nil
		}
	}
	if n, err := file.Send(t.Context(), io.Discard); n != 0 || !errors.Is(err, broken) {
		t.Errorf("sent %d bytes of a broken medium: %v", n, err)
	}
	if n, err := file.ReadAt(t.Context(), make([]byte, 10), 5); n != 0 || !errors.Is(err, broken) {
		t.Errorf("read %d bytes of a broken medium: %v", n, err)
	}
	dir := mustLookup(t, v, "xts")
	if _, err := dir.Send(t.Context(), io.Discard); !errors.Is(err, volume.ErrType) {
		t.Errorf("sent a directory: %v", err)
	}
	if _, err := v.ReadDir(file); !errors.Is(err, volume.ErrType) {
		t.Errorf("names in a file: %v", err)
	}
	if _, err := file.Readlink(); !errors.Is(err, volume.ErrType) {
		t.Errorf("target of a file: %v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
