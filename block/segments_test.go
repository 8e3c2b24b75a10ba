package block_test

import (
	"bytes"
	"testing"

	"keyway/block"
)

// cut returns data in segments whose sizes are the bytes of sizes, the rest in
// one, and the segments as a copy.
func cut(data, sizes []byte) (block.Segments, [][]byte) {
	var v [][]byte
	rest := data
	for _, n := range sizes {
		k := min(int(n), len(rest))
		v = append(v, rest[:k])
		rest = rest[k:]
	}
	if len(rest) > 0 || len(v) == 0 {
		v = append(v, rest)
	}
	return block.Vec(v), v
}

func join(s block.Segments) (b []byte) {
	for part := range s.All() {
		b = append(b, part...)
	}
	return b
}

// checkSegments compares s with the bytes it must stand for.
func checkSegments(t *testing.T, s block.Segments, want []byte) {
	t.Helper()
	if s.Len() != len(want) || !bytes.Equal(join(s), want) {
		t.Fatalf("Len %d, All %q; want %q", s.Len(), join(s), want)
	}
	for part := range s.All() {
		if len(part) == 0 {
			t.Fatal("All yields an empty slice")
		}
		break // stops
	}
	got := make([]byte, len(want)+3)
	if n := s.CopyTo(got); n != len(want) || !bytes.Equal(got[:n], want) {
		t.Fatalf("CopyTo a larger slice: %d bytes %q", n, got[:n])
	}
	short := got[:len(want)/2]
	if n := s.CopyTo(short); n != len(short) || !bytes.Equal(short, want[:n]) {
		t.Fatalf("CopyTo a smaller slice: %d bytes", n)
	}
	var slices int
	for range s.All() {
		slices++
	}
	b, ok := s.Contiguous()
	if ok != (slices <= 1) || ok && !bytes.Equal(b, want) {
		t.Fatalf("Contiguous: %q, %v with %d slices", b, ok, slices)
	}
	if front := s.Front(); len(want) > 0 && (len(front) == 0 || !bytes.HasPrefix(want, front)) {
		t.Fatalf("Front %q of %q", front, want)
	}
}

func FuzzSegments(f *testing.F) {
	f.Add([]byte("hello, segments"), []byte{1, 0, 5, 0}, 2, 9, 1, 4)
	f.Add([]byte{}, []byte{}, 0, 0, 0, 0)
	f.Add([]byte("abc"), []byte{3}, 0, 3, 3, 0)
	f.Add([]byte("abcdef"), []byte{2, 2, 2}, 2, 2, 0, 2)
	f.Add([]byte("abcdef"), []byte{0, 0, 6, 0, 0}, 0, 6, 6, 0)
	f.Fuzz(func(t *testing.T, data, sizes []byte, off, n, off2, n2 int) {
		s, _ := cut(data, sizes)
		checkSegments(t, s, data)
		if off < 0 || n < 0 || off > len(data) || n > len(data)-off {
			return
		}
		w, want := s.Slice(off, n), data[off:off+n]
		checkSegments(t, w, want)
		checkSegments(t, s, data) // a value: slicing changes nothing
		if off2 < 0 || n2 < 0 || off2 > n || n2 > n-off2 {
			return
		}
		w2 := w.Slice(off2, n2)
		checkSegments(t, w2, want[off2:off2+n2])

		// Writing through a window reaches its bytes and no others.
		expect := bytes.Clone(data)
		fill := bytes.Repeat([]byte{0xf0}, n2+2)
		copy(expect[off+off2:off+off2+n2], fill)
		if k := w2.CopyFrom(fill); k != n2 || !bytes.Equal(data, expect) {
			t.Fatalf("CopyFrom: %d bytes, %q; want %q", k, data, expect)
		}
		clear(expect[off : off+n])
		if w.Clear(); !bytes.Equal(data, expect) {
			t.Fatalf("Clear: %q, want %q", data, expect)
		}
	})
}

func TestSegmentsEveryWindow(t *testing.T) {
	data := []byte("abcdefghij")
	for _, sizes := range [][]byte{{}, {10}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {0, 3, 0, 0, 4, 0, 3, 0}, {9}, {0, 0}} {
		s, _ := cut(data, sizes)
		for off := range len(data) + 1 {
			for n := range len(data) - off + 1 {
				checkSegments(t, s.Slice(off, n), data[off:off+n])
			}
		}
	}
	checkSegments(t, block.Segments{}, nil)
	checkSegments(t, block.Vec(nil), nil)
	checkSegments(t, block.Vec([][]byte{nil, {}}), nil)
	checkSegments(t, block.Bytes(nil), nil)
}

func TestSegmentsSliceOutsidePanics(t *testing.T) {
	s := block.Vec([][]byte{{1, 2}, {3, 4}}).Slice(0, 3) // the vector is longer than the window
	for _, c := range [][2]int{{-1, 1}, {0, 4}, {3, 1}, {0, -1}, {4, 0}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Slice(%d, %d) of 3 bytes did not panic", c[0], c[1])
				}
			}()
			s.Slice(c[0], c[1])
		}()
	}
}

func TestSegmentsAllocateNothing(t *testing.T) {
	s := block.Vec([][]byte{make([]byte, 100), make([]byte, 1), make([]byte, 400)})
	buf := make([]byte, 600)
	if n := testing.AllocsPerRun(100, func() {
		w := s.Slice(50, 300)
		for b := range w.All() {
			b[0] = 1
		}
		w.CopyTo(buf)
		w.CopyFrom(buf)
		_, _ = w.Contiguous()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
