// Package secret holds key bytes in memory that is locked (never swapped), left
// out of core dumps, not in a forked child and outside the Go heap, so that the
// garbage collector never copies it and Wipe really removes it. Where the kernel
// has memfd_secret, nobody but the process itself can read it. Its printed forms
// never show bytes. Kind and Policy say what memory that is; Usage, how much;
// Seclude keeps the rest of the process from dumps and debuggers; Do and Quiet,
// registers and stacks from keeping what a computation left there.
//
// Secrets of up to about 8 KiB share slabs: locked pages between two inaccessible
// ones, cut into slots of one size. So a key costs no system call and about its
// own size in locked memory: 10,000 keys of 64 bytes lock 1.3 MB, and making and
// wiping one takes 0.1 µs. Longer ones have pages of their own, between
// inaccessible ones.
//
// What becomes of mistakes:
//
//   - A write beyond the end hits the bytes that stand between slots, and Wipe
//     panics when it finds them changed. The end of a slab, and of a secret with
//     pages of its own, faults at once.
//   - The memory of a wiped secret holds zeroes, and New panics if it no longer
//     does. A slice that Bytes returned before Wipe must not be touched after it:
//     with pages of its own that faults; in a slot it cannot be noticed, and the
//     slot's next owner may be read.
//
// Under the build tag invariants and under the race detector every secret has
// pages of its own, so that tests find such mistakes where they happen.
package secret

import (
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"

	"keyway/internal/invariant"
)

// align is the alignment of the first byte: one cache line, and enough for any
// vector load of the ciphers.
const align = 64

// fenced gives every secret pages of its own; tests change it.
var fenced = invariant.Enabled

var errEmpty = errors.New("secret: a buffer needs at least one byte")

// Buffer is a run of secret bytes. Its owner calls Wipe when done; there is no
// finalizer. Methods may be called from any goroutine, but the slice that Bytes
// returned must not be in use when Wipe is called.
type Buffer struct {
	n int

	mu   sync.Mutex
	data []byte // n bytes of mem; nil once wiped
	mem  []byte // the slot, or the whole mapping; nil once wiped
	slab *slab  // of the slot; nil for a mapping
	kind Kind   // of a mapping
}

// New returns n zero bytes, n at least 1. The first byte is aligned to 64 bytes.
// It fails if the process may not lock more memory; the error tells the limit.
func New(n int) (*Buffer, error) {
	if n <= 0 {
		return nil, errEmpty
	}
	if n > maxSlot-canary || fenced {
		m, data, k, err := mapFenced(n)
		if err != nil {
			return nil, err
		}
		return &Buffer{n: n, data: data, mem: m, kind: k}, nil
	}
	s, slot, err := classFor(n).take()
	if err != nil {
		return nil, err
	}
	mark(slot, n)
	return &Buffer{n: n, data: slot[:n:n], mem: slot, slab: s}, nil
}

// Copy moves the bytes of b into a new buffer: b is wiped, also on error.
func Copy(b []byte) (*Buffer, error) {
	defer Wipe(b)
	s, err := New(len(b))
	if err != nil {
		return nil, err
	}
	Move(s.data, b)
	return s, nil
}

// ReadFrom reads r to its end into a new buffer, without a copy elsewhere as
// long as r itself keeps none (an *os.File does not). It fails if r holds
// nothing or more than max bytes.
func ReadFrom(r io.Reader, max int) (*Buffer, error) {
	if max <= 0 {
		return nil, errEmpty
	}
	// One byte more than allowed tells a fitting secret from a longer one.
	b, err := New(max + 1)
	if err != nil {
		return nil, err
	}
	defer b.Wipe()
	n, err := io.ReadFull(r, b.data)
	switch {
	case err == nil:
		return nil, fmt.Errorf("secret: more than %d bytes to read", max)
	case errors.Is(err, io.EOF): // not a single byte
		return nil, errors.New("secret: nothing to read")
	case !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("secret: read: %w", err)
	}
	fit, err := New(n)
	if err != nil {
		return nil, err
	}
	Move(fit.data, b.data)
	return fit, nil
}

// Bytes returns the secret itself, not a copy: it is valid until Wipe, and must
// not be touched afterwards. After Wipe Bytes returns nil.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data
}

// Len returns the number of bytes the buffer was made with, also after Wipe.
func (b *Buffer) Len() int { return b.n }

// Equal reports in constant time whether the buffer still lives and holds p.
func (b *Buffer) Equal(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data != nil && subtle.ConstantTimeCompare(b.data, p) == 1
}

// Wiped reports whether Wipe was called.
func (b *Buffer) Wiped() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data == nil
}

// Wipe overwrites the bytes and gives the memory back. It may be called again,
// on a nil buffer, and from several goroutines at once: when any of the calls
// returns, the bytes are gone. It panics if something wrote beyond the end.
func (b *Buffer) Wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data == nil {
		return
	}
	if b.slab == nil {
		Wipe(b.data)
		unmap(b.mem, b.kind)
	} else {
		overrun := !marked(b.mem, b.n)
		Wipe(b.mem)
		b.slab.class.give(b.slab, b.mem)
		if overrun {
			b.data, b.mem, b.slab = nil, nil, nil
			panic(fmt.Sprintf("secret: something wrote beyond the end of a secret of %d bytes", b.n))
		}
	}
	b.data, b.mem, b.slab = nil, nil, nil
}

// Move copies as many bytes as both slices have, and returns their number, as copy
// does, but by way of no vector register. There a thread that waits afterwards would
// keep key bytes, until a signal writes them to memory that is neither locked nor
// ours to wipe; the others have new contents before that.
//
//go:noinline
func Move(dst, src []byte) int {
	n := min(len(dst), len(src))
	d, s := dst[:n], src[:n]
	for len(s) >= 8 {
		binary.LittleEndian.PutUint64(d, binary.LittleEndian.Uint64(s))
		d, s = d[8:], s[8:]
	}
	for i := range s {
		d[i] = s[i]
	}
	return n
}

// Wipe overwrites p with zeroes. The compiler neither inlines nor removes it.
//
//go:noinline
func Wipe(p []byte) {
	clear(p)
	runtime.KeepAlive(p)
}

// String tells the size only, like every printed form of a Buffer.
func (b *Buffer) String() string {
	if b == nil {
		return "secret(none)"
	}
	return fmt.Sprintf("secret(%d bytes)", b.n)
}

// GoString is String.
func (b *Buffer) GoString() string { return b.String() }

// Format writes String for every verb: %x and %v of a Buffer show no bytes.
func (b *Buffer) Format(f fmt.State, _ rune) { io.WriteString(f, b.String()) }

// MarshalJSON encodes String.
func (b *Buffer) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// MarshalText returns String.
func (b *Buffer) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// LogValue logs String.
func (b *Buffer) LogValue() slog.Value { return slog.StringValue(b.String()) }
