// Package secret holds key bytes in memory that is locked (never swapped), left
// out of core dumps, zero in a forked child, fenced by inaccessible pages on
// both sides and outside the Go heap, so that the garbage collector never
// copies it and Wipe really removes it.
//
// A buffer costs one locked page at least. Its printed forms never show bytes.
package secret

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// align is the alignment of the first byte: one cache line, and enough for any
// vector load of the ciphers.
const align = 64

var errEmpty = errors.New("secret: a buffer needs at least one byte")

// Buffer is a run of secret bytes. Its owner calls Wipe when done; there is no
// finalizer. Methods may be called from any goroutine, but the slice that Bytes
// returned must not be in use when Wipe is called.
type Buffer struct {
	n int

	mu      sync.Mutex
	mapping []byte // guard page, data pages, guard page; nil once wiped
	data    []byte // n bytes, in mapping; nil once wiped
}

// New returns n zero bytes, n at least 1. The first byte is aligned to 64
// bytes; fewer than 64 bytes lie between the last one and the guard page.
func New(n int) (*Buffer, error) {
	if n <= 0 {
		return nil, errEmpty
	}
	page := os.Getpagesize()
	room := (n + align - 1) &^ (align - 1)
	size := (room + page - 1) &^ (page - 1)
	m, err := acquire(size, page)
	if err != nil {
		return nil, err
	}
	start := page + size - room
	return &Buffer{n: n, mapping: m, data: m[start : start+n : start+n]}, nil
}

// acquire returns a mapping with size accessible bytes between two guard pages.
func acquire(size, page int) ([]byte, error) {
	if m := idle.take(size + 2*page); m != nil {
		if err := unix.Mprotect(m[page:page+size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			unix.Munmap(m)
			return nil, fmt.Errorf("secret: make %d bytes accessible: %w", size, err)
		}
		return m, nil
	}
	m, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("secret: map %d bytes: %w", size+2*page, err)
	}
	if err := protect(m[page : page+size]); err != nil {
		unix.Munmap(m) // nothing secret in it yet
		return nil, err
	}
	return m, nil
}

// release gives back a mapping whose data is wiped.
func release(m []byte) {
	page := os.Getpagesize()
	if len(m) == 3*page && unix.Mprotect(m[page:2*page], unix.PROT_NONE) == nil && idle.keep(m) {
		return
	}
	// Unmapping unlocks. It can only fail if the mapping is not ours.
	if err := unix.Munmap(m); err != nil {
		panic("secret: unmap: " + err.Error())
	}
}

// idle keeps a few wiped mappings of one page, locked but inaccessible, so that
// late users still fault. Programming a keyslot needs such a page, and mapping
// and locking one costs several times what expanding an AES key does.
var idle cache

type cache struct {
	mu    sync.Mutex
	count int
	maps  [32][]byte // the first count are kept; 128 KiB of locked memory at most
}

func (c *cache) take(n int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 || len(c.maps[c.count-1]) != n {
		return nil
	}
	c.count--
	m := c.maps[c.count]
	c.maps[c.count] = nil
	return m
}

func (c *cache) keep(m []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == len(c.maps) {
		return false
	}
	c.maps[c.count] = m
	c.count++
	return true
}

// protect makes the data pages accessible and locks them. The advice must be
// honoured too: a buffer that might reach a core dump is not secret.
func protect(inner []byte) error {
	if err := unix.Mprotect(inner, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("secret: make %d bytes accessible: %w", len(inner), err)
	}
	if err := unix.Madvise(inner, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("secret: exclude from core dumps (MADV_DONTDUMP, Linux 3.4): %w", err)
	}
	if err := unix.Madvise(inner, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("secret: hide from forked children (MADV_WIPEONFORK, Linux 4.14): %w", err)
	}
	if err := unix.Mlock(inner); err != nil {
		return lockError(len(inner), err)
	}
	return nil
}

func lockError(n int, err error) error {
	limit := "unknown"
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r) == nil {
		limit = fmt.Sprintf("%d bytes", r.Cur)
	}
	return fmt.Errorf("secret: lock %d bytes of key memory: %w: RLIMIT_MEMLOCK is %s: raise it "+
		"(ulimit -l, or LimitMEMLOCK= in the systemd unit) or grant CAP_IPC_LOCK", n, err, limit)
}

// Copy moves the bytes of b into a new buffer: b is wiped, also on error.
func Copy(b []byte) (*Buffer, error) {
	defer Wipe(b)
	s, err := New(len(b))
	if err != nil {
		return nil, err
	}
	copy(s.data, b)
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
	copy(fit.data, b.data[:n])
	return fit, nil
}

// Bytes returns the secret itself, not a copy: it is valid until Wipe. Touching
// it afterwards faults, until the page has its next owner. After Wipe Bytes
// returns nil.
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
	return b.mapping == nil
}

// Wipe overwrites the bytes and gives the memory back. It may be called again,
// on a nil buffer, and from several goroutines at once: when any of the calls
// returns, the bytes are gone.
func (b *Buffer) Wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mapping == nil {
		return
	}
	Wipe(b.data)
	release(b.mapping)
	b.mapping, b.data = nil, nil
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
