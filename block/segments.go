package block

import "iter"

// Segments is a window over scattered memory. It is a value: the memory and
// the vector never change through it, and Slice and All neither copy nor
// allocate. The zero Segments is empty.
type Segments struct {
	first []byte
	rest  [][]byte // the last may reach beyond the window
	n     int      // bytes in the window
}

// Bytes returns a window over b.
func Bytes(b []byte) Segments { return Segments{first: b, n: len(b)} }

// Vec returns a window over the slices of v in order; v must not change while
// the window is in use.
func Vec(v [][]byte) Segments {
	n := 0
	for _, b := range v {
		n += len(b)
	}
	if len(v) == 0 {
		return Segments{}
	}
	return Segments{v[0], v[1:], n}
}

// Len is the number of bytes in the window.
func (s Segments) Len() int { return s.n }

// Slice returns the n bytes that begin off bytes into s.
func (s Segments) Slice(off, n int) Segments {
	if off < 0 || n < 0 || off+n > s.n {
		panic("block: slice out of the segments")
	}
	for off >= len(s.first) && len(s.rest) > 0 {
		off -= len(s.first)
		s.first, s.rest = s.rest[0], s.rest[1:]
	}
	s.first = s.first[off:]
	if n <= len(s.first) {
		return Segments{first: s.first[:n], n: n}
	}
	s.n = n
	return s
}

// All yields the slices of the window in order, none of them empty.
func (s Segments) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		left := s.n
		for b, rest := s.first, s.rest; left > 0; b, rest = rest[0], rest[1:] {
			if len(b) > left {
				b = b[:left]
			}
			left -= len(b)
			if len(b) > 0 && !yield(b) || left == 0 {
				return
			}
		}
	}
}

// Contiguous returns the window as one slice if it is one.
func (s Segments) Contiguous() (b []byte, ok bool) {
	if s.n <= len(s.first) {
		return s.first[:s.n], true
	}
	if w := s.Slice(0, s.n); len(w.first) == w.n {
		return w.first, true
	}
	return nil, false
}

// Front returns the first slice of a window that is not empty.
func (s Segments) Front() []byte {
	b := s.Slice(0, s.n).first
	return b[:min(len(b), s.n)]
}

// CopyTo copies the window to dst and returns the number of bytes.
func (s Segments) CopyTo(dst []byte) int {
	n := 0
	for b := range s.All() {
		if n == len(dst) {
			break
		}
		n += copy(dst[n:], b)
	}
	return n
}

// CopyFrom copies src into the window and returns the number of bytes.
func (s Segments) CopyFrom(src []byte) int {
	n := 0
	for b := range s.All() {
		if n == len(src) {
			break
		}
		n += copy(b, src[n:])
	}
	return n
}

// Clear overwrites the window with zeroes.
func (s Segments) Clear() {
	for b := range s.All() {
		clear(b)
	}
}
