package argon2

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/internal/secret"
)

// hugePage is where the kernel can put a single large page, if the matrix begins
// there: 1 GiB then costs 512 page faults instead of 262144, and a block that is
// anywhere in it no walk through the page tables.
const hugePage = 2 << 20

// A matrix is the memory of one derivation: lanes of blocks, one behind the other.
type matrix struct {
	params  Params
	lane    int // blocks of a lane: 4 segments
	segment int // blocks
	scratch []laneScratch

	whole   []byte // the mapping
	memory  []byte // its accessible part
	blocks  []block
	touched int // blocks of each lane that may have been written to
}

func newMatrix(p Params) (*matrix, error) {
	m := &matrix{params: p, segment: p.Memory / (quarters * p.Lanes), touched: 2}
	m.lane = quarters * m.segment
	n := m.lane * p.Lanes
	page := os.Getpagesize()
	size := (n*blockSize + page - 1) &^ (page - 1)
	whole, err := unix.Mmap(-1, 0, size+2*hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("argon2: %d KiB of memory: %w", p.Memory, err)
	}
	start := hugePage - int(uintptr(unsafe.Pointer(&whole[0]))%hugePage) // 1 page to hugePage
	m.whole, m.memory = whole, whole[start:start+size]
	if err := m.protect(); err != nil {
		unix.Munmap(whole) // nothing in it yet
		return nil, err
	}
	m.blocks = unsafe.Slice((*block)(unsafe.Pointer(&m.memory[0])), n)
	return m, nil
}

// protect makes the memory accessible and keeps it to this process.
func (m *matrix) protect() error {
	if err := unix.Mprotect(m.memory, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("argon2: %d KiB of memory: %w", m.params.Memory, err)
	}
	// As internal/secret does: memory that might reach a core dump is not secret.
	if err := unix.Madvise(m.memory, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("argon2: exclude from core dumps (MADV_DONTDUMP, Linux 3.4): %w", err)
	}
	if err := unix.Madvise(m.memory, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("argon2: hide from forked children (MADV_WIPEONFORK, Linux 4.14): %w", err)
	}
	unix.Madvise(m.memory, unix.MADV_HUGEPAGE) // slower without
	if u := secret.Held(); u.Limit < 0 || int64(len(m.memory)) <= (u.Limit-max(u.Process, 0))/2 {
		// Page by page, as each is used for the first time (Linux 4.4): at once would
		// have the kernel clear them on one CPU while the others wait.
		unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&m.memory[0])), uintptr(len(m.memory)), unix.MLOCK_ONFAULT)
	}
	return nil
}

// at returns block i of a lane.
func (m *matrix) at(lane, i int) *block { return &m.blocks[lane*m.lane+i] }

// wipe overwrites the matrix, as far as it was ever written to, and unmaps it.
func (m *matrix) wipe() {
	var lanes sync.WaitGroup
	for lane := range m.params.Lanes {
		start := lane * m.lane * blockSize
		lanes.Go(func() { secret.Wipe(m.memory[start : start+m.touched*blockSize]) })
	}
	lanes.Wait()
	if wiped != nil {
		wiped(m.memory)
	}
	m.blocks, m.memory = nil, nil
	// It can only fail if the mapping is not ours.
	if err := unix.Munmap(m.whole); err != nil {
		panic("argon2: unmap: " + err.Error())
	}
}

// wiped, if not nil, is shown what is about to be unmapped. For tests.
var wiped func(memory []byte)
