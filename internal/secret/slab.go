package secret

import (
	"bytes"
	"sync"
	"unsafe"
)

const (
	// canary is the least number of bytes between a secret and the next slot. All
	// that a slot has behind its secret is marked.
	canary = 16

	maxSlot = 8 << 10  // bytes; longer secrets are few, and worth pages of their own
	maxSlab = 64 << 10 // bytes; keeps small what an almost empty slab holds locked
)

// A class is the slots of one size.
type class struct {
	size  int // of a slot in bytes, a multiple of align
	least int // bytes of the smallest slab, whole pages

	mu    sync.Mutex // guards the rest, and all slabs of the class
	bytes int        // of all slabs
	some  *slab      // list of the slabs with some slots used and some free
	empty *slab      // one slab that is kept although no slot is used
}

// A slab is one mapping cut into slots.
type slab struct {
	class      *class
	mapping    []byte
	kind       Kind
	slots      int
	free       []uint16 // numbers of the free slots, the last one is next
	prev, next *slab    // in class.some
}

// classes are those of every multiple of align up to 1024, then four for each
// power of two.
var (
	classes []*class
	byRoom  [maxSlot/align + 1]*class // by the room needed, in units of align
)

func init() {
	for size := align; size <= maxSlot; {
		c := &class{size: size, least: pageSize}
		for c.least%size > c.least/8 {
			c.least += pageSize
		}
		for i := (size + align - 1) / align; i >= 0 && byRoom[i] == nil; i-- {
			byRoom[i] = c
		}
		classes = append(classes, c)
		step := align
		for 8*step <= size && size >= 1024 {
			step *= 2
		}
		size += step
	}
}

// classFor returns the class for secrets of n bytes.
func classFor(n int) *class { return byRoom[(n+canary+align-1)/align] }

// take returns a free slot, which holds zeroes.
func (c *class) take() (*slab, []byte, error) {
	s, slot, err := c.pop()
	if err == nil && !bytes.Equal(slot, zeroes[:len(slot)]) {
		// Not handed out, and not free again: its bytes are for a debugger.
		panic("secret: something wrote to the memory of a secret after its Wipe")
	}
	return s, slot, err
}

func (c *class) pop() (*slab, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.some
	if s == nil {
		if s, c.empty = c.empty, nil; s == nil {
			var err error
			if s, err = c.grow(); err != nil {
				return nil, nil, err
			}
		}
		c.link(s)
	}
	last := len(s.free) - 1
	slot := s.slot(int(s.free[last]))
	if s.free = s.free[:last]; last == 0 {
		c.unlink(s)
	}
	return s, slot, nil
}

// give takes back a slot that is wiped. Of the slabs that become empty the class
// keeps one, so that a key that comes and goes costs no system call.
func (c *class) give(s *slab, slot []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(s.free) == 0 {
		c.link(s)
	}
	s.free = append(s.free, uint16(s.number(slot))) // within capacity
	if len(s.free) < s.slots {
		return
	}
	c.unlink(s)
	if c.empty == nil {
		c.empty = s
		return
	}
	c.bytes -= len(inner(s.mapping))
	unmap(s.mapping, s.kind)
}

// grow makes a slab as large as all that the class has, within bounds: few keys
// lock few pages, and many need few mappings.
func (c *class) grow() (*slab, error) {
	size := max(c.least, min(c.bytes, maxSlab))
	m, k, err := mapKeys(size)
	if err != nil && size > c.least {
		size = c.least
		m, k, err = mapKeys(size)
	}
	if err != nil {
		return nil, err
	}
	c.bytes += size
	s := &slab{class: c, mapping: m, kind: k, slots: size / c.size}
	s.free = make([]uint16, s.slots)
	for i := range s.free {
		s.free[i] = uint16(s.slots - 1 - i)
	}
	return s, nil
}

func (s *slab) slot(i int) []byte {
	at := i * s.class.size
	return inner(s.mapping)[at : at+s.class.size : at+s.class.size]
}

func (s *slab) number(slot []byte) int {
	start := uintptr(unsafe.Pointer(&inner(s.mapping)[0]))
	return int(uintptr(unsafe.Pointer(&slot[0]))-start) / s.class.size
}

func (c *class) link(s *slab) {
	s.next = c.some
	if s.next != nil {
		s.next.prev = s
	}
	c.some = s
}

func (c *class) unlink(s *slab) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		c.some = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

var (
	zeroes [maxSlot]byte
	marks  = [maxSlot]byte(bytes.Repeat([]byte{0xc5}, maxSlot))
)

// mark fills what slot has behind its secret of n bytes.
func mark(slot []byte, n int) { copy(slot[n:], marks[:]) }

// marked reports whether that is unchanged.
func marked(slot []byte, n int) bool { return bytes.Equal(slot[n:], marks[:len(slot)-n]) }
