// Package argon2 derives keys of passphrases with Argon2id and Argon2i, version
// 1.3 (RFC 9106), and leaves nothing behind.
//
// The matrix of blocks, Params.Memory of it, is in a mapping of its own outside of
// the Go heap: in no core dump and no forked child, between inaccessible pages, and
// always wiped before it is given back, also when a derivation is cancelled or
// fails. Every other state (the hash of the inputs, BLAKE2b's, the blocks that are
// being computed) is in memory of internal/secret, wiped too. The vector registers
// are cleared by each call of the assembly, which no signal interrupts: the kernel
// would save them on a stack that nobody wipes.
//
// The matrix is locked as far as that takes at most half of what RLIMIT_MEMLOCK
// leaves the process, so that keys always have room: with CAP_IPC_LOCK or without a
// limit, always; under the usual limit of 8 MiB, never when it is worth having. A
// matrix that is not locked may be swapped out while it is in use, and who finds
// all of its last blocks in the swap has the derived key; nobody finds the
// passphrase there except by guessing, without the cost that Argon2 is for. Where
// that matters swap is encrypted or off. Not locking is no error: it would keep
// ordinary users from their own disks.
package argon2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"keyway/internal/digest"
	"keyway/internal/secret"
)

// A Variant says how the blocks to be mixed are chosen.
type Variant int

// The numbers are those of RFC 9106, section 3.1.
const (
	Argon2i  Variant = 1 // independently of the passphrase
	Argon2id Variant = 2 // so for half of the first pass only
)

func (v Variant) String() string {
	if v == Argon2i {
		return "argon2i"
	}
	return "argon2id"
}

// Params are the costs of a derivation.
type Params struct {
	Variant Variant
	Time    int // passes, 1 to 2^32-1
	Memory  int // KiB, at least 8 times Lanes; rounded down to a multiple of 4 times Lanes
	Lanes   int // computed in parallel, on as many CPUs as there are; 1 to 255
}

const (
	version   = 0x13
	quarters  = 4 // of a lane: in between all lanes wait for each other
	blockSize = 1024
	maxLanes  = 255
	minTag    = 4
)

// A block is what the memory consists of.
type block = [blockSize / 8]uint64

// bytesOf are those of a block, in the order of the machine.
func bytesOf(b *block) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(b)), blockSize) }

func (p Params) check() error {
	switch {
	case p.Variant != Argon2i && p.Variant != Argon2id:
		return fmt.Errorf("argon2: variant %d is neither argon2i nor argon2id", int(p.Variant))
	case p.Lanes < 1 || p.Lanes > maxLanes:
		return fmt.Errorf("argon2: %d lanes are not 1 to %d", p.Lanes, maxLanes)
	case p.Time < 1 || uint64(p.Time) > math.MaxUint32:
		return fmt.Errorf("argon2: %d passes are not 1 to %d", p.Time, uint32(math.MaxUint32))
	case p.Memory < 2*quarters*p.Lanes || uint64(p.Memory) > math.MaxUint32:
		return fmt.Errorf("argon2: memory of %d KiB is not %d (8 for each lane) to %d", p.Memory, 2*quarters*p.Lanes, uint32(math.MaxUint32))
	}
	return nil
}

// Key fills dst, at least 4 bytes, with what Argon2 makes of a passphrase and a
// salt; all three stay the caller's. It blocks for as long as p costs, or until ctx
// is done: that is looked at every millisecond or so. On an error dst holds zeroes.
// Errors are of p and dst, of ctx, and of memory that cannot be had.
func Key(ctx context.Context, dst, passphrase, salt []byte, p Params) error {
	return derive(ctx, dst, inputs{passphrase: passphrase, salt: salt}, p)
}

// inputs are what is hashed at first. LUKS has no use for secret and data.
type inputs struct{ passphrase, salt, secret, data []byte }

// scratch is what is secret beside the matrix and the lanes' own.
type scratch struct {
	hash  blake
	first [64 + 8]byte // H0, and the number of a block behind it
	room  [64]byte
	block block
}

func derive(ctx context.Context, dst []byte, in inputs, p Params) (err error) {
	clear(dst)
	if err := p.check(); err != nil {
		return err
	}
	if len(dst) < minTag || uint64(len(dst)) > math.MaxUint32 {
		return fmt.Errorf("argon2: a key of %d bytes is not one of %d to %d", len(dst), minTag, uint32(math.MaxUint32))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	own, err := secret.New(int(unsafe.Sizeof(scratch{})))
	if err != nil {
		return fmt.Errorf("argon2: %w", err)
	}
	defer own.Wipe()
	s := (*scratch)(unsafe.Pointer(&own.Bytes()[0]))
	lanes, err := secret.New(p.Lanes * int(unsafe.Sizeof(laneScratch{})))
	if err != nil {
		return fmt.Errorf("argon2: %w", err)
	}
	defer lanes.Wipe()
	m, err := newMatrix(p)
	if err != nil {
		return err
	}
	defer m.wipe()
	m.scratch = unsafe.Slice((*laneScratch)(unsafe.Pointer(&lanes.Bytes()[0])), p.Lanes)

	digest.Do(func() { m.begin(s, len(dst), in) })
	if err := m.fill(ctx); err != nil {
		return err
	}
	digest.Do(func() { m.end(s, dst) })
	return nil
}

// begin computes the first two blocks of every lane. RFC 9106, section 3.2,
// steps 1 to 4.
func (m *matrix) begin(s *scratch, tag int, in inputs) {
	h := &s.hash
	h.reset(64)
	p := m.params
	for _, n := range []int{p.Lanes, tag, p.Memory, p.Time, version, int(p.Variant)} {
		h.number(n)
	}
	for _, b := range [][]byte{in.passphrase, in.salt, in.secret, in.data} {
		h.number(len(b))
		h.write(b)
	}
	h.sum(s.first[:64])
	for lane := range p.Lanes {
		for i := range 2 {
			binary.LittleEndian.PutUint32(s.first[64:], uint32(i))
			binary.LittleEndian.PutUint32(s.first[68:], uint32(lane))
			h.long(bytesOf(m.at(lane, i)), s.first[:], &s.room)
			fromLittleEndian(m.at(lane, i))
		}
	}
}

// end makes the key of the last blocks. Steps 7 and 8.
func (m *matrix) end(s *scratch, dst []byte) {
	s.block = block{}
	for lane := range m.params.Lanes {
		last := m.at(lane, m.lane-1)
		for i := range s.block {
			s.block[i] ^= last[i]
		}
	}
	fromLittleEndian(&s.block) // and back
	s.hash.long(dst, bytesOf(&s.block), &s.room)
}

// fill computes all other blocks: lanes in parallel, a quarter at a time. Steps 5
// and 6.
func (m *matrix) fill(ctx context.Context) error {
	for pass := range m.params.Time {
		for slice := range quarters {
			if pass == 0 {
				m.touched = (slice + 1) * m.segment
			}
			var lanes sync.WaitGroup
			for lane := 1; lane < m.params.Lanes; lane++ {
				lanes.Go(func() { secret.Quiet(func() { m.fillSegment(ctx, pass, slice, lane) }) })
			}
			secret.Quiet(func() { m.fillSegment(ctx, pass, slice, 0) })
			lanes.Wait()
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
