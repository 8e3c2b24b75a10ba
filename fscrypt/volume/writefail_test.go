package volume_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"keyway/block"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// large opens an ext4 in memory with a file of 6 MiB and a bit, which is not encrypted.
func large(t *testing.T) (*dmtest.RAM, *volume.Volume, []byte) {
	t.Helper()
	harness.Need(t, "mke2fs")
	dir := t.TempDir()
	content := fixtures.Pattern("mix", 5, 6<<20+777)
	if err := os.MkdirAll(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root/large"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(dir, "img")
	harness.ToolOK(t, "mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", filepath.Join(dir, "root"), img, "12M")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	w := dmtest.New(t)
	ram := w.Disk("a", int64(len(b)), 0)
	ram.Set(b)
	return ram, mustOpen(t, w.Handle("a")), content
}

// TestWriteTellsHowFarItCame: when the device fails at any request, what the error
// says was written is new, and the rest of the file is old or new by sectors; nothing
// else changes on the medium.
func TestWriteTellsHowFarItCame(t *testing.T) {
	ram, v, old := large(t)
	f := mustLookup(t, v, "large")
	const off = 1000
	p := fixtures.Pattern("mix", 6, len(old)-off-300)
	failing := errors.New("no more")
	var mu sync.Mutex
	writes, fail := 0, -1
	ram.Before = func(_ context.Context, r block.Request) error {
		if r.Op != block.OpWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if writes++; writes-1 == fail {
			return failing
		}
		return nil
	}
	before := ram.Bytes()
	whole := 0 // requests of a write that does not fail
	if n, err := f.WriteAt(t.Context(), p, off); n != len(p) || err != nil {
		t.Fatal(n, err)
	}
	whole = writes
	if whole < 7 {
		t.Errorf("%d requests, want one for each mebibyte at least", whole)
	}
	if ram.Count(block.OpFlush) != 1 {
		t.Errorf("%d flushes, want 1", ram.Count(block.OpFlush))
	}
	for fail = range whole {
		ram.Set(before)
		writes = 0
		n, err := f.WriteAt(t.Context(), p, off)
		var partial *volume.WriteError
		if !errors.Is(err, failing) || !errors.As(err, &partial) || partial.Written != int64(n) || partial.Off != off || partial.Len != int64(len(p)) {
			t.Fatalf("request %d fails: %d bytes, %v", fail, n, err)
		}
		got := contents(t, f)
		if !bytes.Equal(got[off:off+n], p[:n]) {
			t.Errorf("request %d fails: %d bytes are said to be written, and are not", fail, n)
		}
		anew := append(append(bytes.Clone(old[:off]), p...), old[off+len(p):]...)
		for s := 0; s < len(got); s += 512 {
			e := min(s+512, len(got))
			if !bytes.Equal(got[s:e], old[s:e]) && !bytes.Equal(got[s:e], anew[s:e]) {
				t.Fatalf("request %d fails: the sector at %d is neither old nor new", fail, s)
			}
		}
		changed := ram.Bytes()
		for piece, err := range f.Pieces(0, f.Size) { // the file as it was: then all must be
			if err != nil {
				t.Fatal(err)
			}
			copy(changed[piece.Dev:][:piece.Len], before[piece.Dev:])
		}
		if !bytes.Equal(changed, before) {
			t.Fatalf("request %d fails: something beside the file changed", fail)
		}
	}
}

func contents(t *testing.T, f *volume.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := f.Send(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWriteFromReaderThatEnds writes whole spans of what came, and tells how much.
func TestWriteFromReaderThatEnds(t *testing.T) {
	_, v, old := large(t)
	f := mustLookup(t, v, "large")
	p := fixtures.Pattern("mix", 7, 3<<20)
	n, err := f.WriteFrom(t.Context(), bytes.NewReader(p), 5, 4<<20)
	var partial *volume.WriteError
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &partial) || partial.Written != n || n != 3<<20-5 {
		t.Errorf("%d bytes, %v", n, err)
	}
	got := contents(t, f)
	if want := append(append(bytes.Clone(old[:5]), p[:n]...), old[5+n:]...); !bytes.Equal(got, want) {
		t.Errorf("byte %d differs", firstDifference(got, want))
	}
	rest := bytes.NewReader(p)
	if n, err := f.WriteFrom(t.Context(), rest, 0, 100); n != 100 || err != nil || rest.Len() != len(p)-100 {
		t.Errorf("%d bytes, %v: %d are left to read", n, err, rest.Len())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := f.WriteAt(ctx, p, 0); err == nil {
		t.Error("written after the context ended")
	}
}

// TestWritesSideBySide: writers of parts of the same data units lose nothing.
func TestWritesSideBySide(t *testing.T) {
	_, v, old := large(t)
	const parts, size = 16, 100
	var wg sync.WaitGroup
	want := bytes.Clone(old)
	for i := range parts {
		p := fixtures.Pattern("mix", uint64(100+i), size)
		copy(want[i*size:], p)
		wg.Go(func() {
			f := mustLookup(t, v, "large")
			if _, err := f.WriteAt(t.Context(), p, int64(i*size)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := contents(t, mustLookup(t, v, "large")); !bytes.Equal(got, want) {
		t.Errorf("byte %d differs", firstDifference(got, want))
	}
}

// TestWriteSeesWhatChangedUnderIt: a file system that is in use, or is not what it was
// when the file was opened, is not written to.
func TestWriteSeesWhatChangedUnderIt(t *testing.T) {
	ram, v, _ := large(t)
	f := mustLookup(t, v, "large")
	if err := f.CheckWrite(0, 10); err != nil {
		t.Fatal(err)
	}
	whole := ram.Bytes()
	clear(whole[1024 : 1024+1024])
	ram.Set(whole)
	if n, err := f.WriteAt(t.Context(), make([]byte, 10), 0); n != 0 || err == nil || ram.Count(block.OpWrite) != 0 {
		t.Errorf("without a superblock: %d, %v", n, err)
	}
}
