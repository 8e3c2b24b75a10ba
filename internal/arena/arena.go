// Package arena lends page-aligned buffers for I/O, fit for O_DIRECT, and takes
// them back for reuse: no allocation in steady state.
//
// Buffers up to 1 MiB come in power-of-two classes from the Go heap, through one
// sync.Pool a class, which shards by processor: Get and Put take 10 to 25 ns.
// Memory of our own mapping would cost the same from a pool and 12 µs (2 MiB, one
// page touched) without, but a pool of mappings cannot shrink without finalizers,
// while the garbage collector gives idle heap buffers back and forgives one that
// was never returned. Larger buffers are rare (copies, large exports) and would
// distort the collector's pacing: each is a mapping, undone by Put.
//
// Buffers are lent as they were left, without clearing: they hold data, never
// keys (those live in package secret), and clearing them would be one more pass
// over memory for each request. So a borrower must fill what it sends, and nobody may send more
// than was filled. Builds with checks (package invariant) overwrite returned
// buffers with a pattern, so that a use after Put shows.
package arena

import (
	"bytes"
	"fmt"
	"math/bits"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/internal/invariant"
)

const (
	// Align is the alignment of every buffer in bytes: enough for O_DIRECT on any
	// disk with logical blocks of up to 4096 bytes.
	Align = 4096

	minShift = 12 // 4 KiB, the smallest class
	maxShift = 20 // 1 MiB, the largest

	// Max is the largest buffer in bytes. What users may ask for is bounded far
	// below it (NBD: 32 MiB a request).
	Max = 64 << 20

	poison = 0xdb // fills returned buffers in builds with checks
)

var poisoned = [1 << minShift]byte(bytes.Repeat([]byte{poison}, 1<<minShift))

// Buf is a borrowed buffer. One goroutine owns it between Get and Put; it may be
// handed over.
type Buf struct {
	mem    []byte // the whole class, or the mapping
	n      int
	class  int8 // index in pools, or mapped
	lent   bool // kept in builds with checks
	mapped bool
}

var pools [maxShift - minShift + 1]sync.Pool

// Get lends a buffer of n bytes, 1 to Max, with unspecified content. It panics
// for other sizes and if the system is out of memory, as make does.
//
// Hot: no allocation in steady state up to 1 MiB.
func Get(n int) *Buf {
	if n <= 0 || n > Max {
		panic(fmt.Sprintf("arena: buffer of %d bytes: must be 1 to %d", n, Max))
	}
	if n > 1<<maxShift {
		return mapped(n)
	}
	class := max(bits.Len(uint(n-1)), minShift) - minShift
	b, _ := pools[class].Get().(*Buf)
	if b == nil {
		b = &Buf{mem: aligned(1 << (class + minShift)), class: int8(class)}
	}
	if invariant.Enabled {
		invariant.Check(!b.lent, "arena: buffer lent twice")
		b.lent = true
	}
	b.n = n
	return b
}

// Put takes the buffer back: b and its bytes must not be used any more. Put of
// nil does nothing.
//
// Hot: no allocation.
func (b *Buf) Put() {
	if b == nil {
		return
	}
	if b.mapped {
		if err := unix.Munmap(b.mem); err != nil {
			panic("arena: unmap: " + err.Error()) // returned twice
		}
		b.mem, b.n = nil, 0
		return
	}
	if invariant.Enabled {
		invariant.Check(b.lent, "arena: buffer returned twice")
		b.lent = false
		for rest := b.mem; len(rest) > 0; {
			rest = rest[copy(rest, poisoned[:]):] // for the race detector one write, not thousands
		}
	}
	pools[b.class].Put(b)
}

// Bytes returns the n bytes asked for. The capacity is the whole buffer, a
// multiple of Align, all of it the borrower's.
func (b *Buf) Bytes() []byte { return b.mem[:b.n] }

// Len is len(b.Bytes()).
func (b *Buf) Len() int { return b.n }

// aligned allocates size bytes, a power of two and a multiple of Align. The
// allocator aligns such sizes to 4 KiB already, but does not promise it.
func aligned(size int) []byte {
	b := make([]byte, size)
	if off := misaligned(b); off != 0 {
		b = make([]byte, size+Align)
		off = misaligned(b)
		b = b[Align-off:][:size:size]
	}
	return b
}

func misaligned(b []byte) int { return int(uintptr(unsafe.Pointer(&b[0])) % Align) }

func mapped(n int) *Buf {
	size := (n + Align - 1) &^ (Align - 1)
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Sprintf("arena: map %d bytes: %v", size, err))
	}
	return &Buf{mem: m, n: n, mapped: true}
}
