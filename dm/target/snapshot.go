package target

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name:  "snapshot",
		Usage: "<origin> <COW device> <P|PO|N> <chunk sectors> [<#options> discard_zeroes_cow | discard_passdown_origin]",
		New:   newSnapshot,
	})
}

// snapshot is what its origin held when the snapshot's device was first resumed,
// with what has been written to the snapshot since. Chunks that have changed here
// or there are on the COW device.
//
// It takes no contexts: the data of one chunk may lie in two places, so the
// table encrypts above, and what is copied is what the medium holds.
type snapshot struct {
	*view
	originName, cowName string
	start, length       int64 // bytes of the origin

	zeroesCOW, passesDown bool // what a discard does
}

func newSnapshot(ctx context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	// The kernel passes sectors of the table on, not of the row.
	s := &snapshot{view: &view{raise: b.Raise}, start: b.Start(), length: b.Len()}
	s.originName, s.cowName = a.String("origin"), a.String("COW device")
	persistent, err := s.kind(a.String("P, PO or N"))
	if err != nil && a.Err() == nil {
		a.Fail("P, PO or N", err)
	}
	const what = "chunk size, in sectors"
	chunk := a.Uint(what)
	switch {
	case a.Err() != nil:
	case chunk > snapMaxSectors:
		a.Fail(what, fmt.Errorf("%d is more than %d", chunk, snapMaxSectors))
	case chunk == 0 && !persistent:
		a.Fail(what, errors.New("0 leaves it to the store, and N has none"))
	case chunk&(chunk-1) != 0:
		a.Fail(what, fmt.Errorf("%d is not a power of two", chunk))
	}
	a.Options(2, s.option)
	if err := a.End(); err != nil {
		return nil, err
	}
	if s.passesDown && !s.zeroesCOW {
		return nil, errors.New("discard_passdown_origin goes only with discard_zeroes_cow")
	}
	if s.from, err = b.OpenSpanToRead(s.originName, s.start, s.length); err != nil {
		return nil, err
	}
	if s.to, err = b.Open(s.cowName); err != nil {
		return nil, err
	}
	if dm.Identity(s.from) == dm.Identity(s.to) {
		return nil, fmt.Errorf("COW device %q is the origin itself", s.cowName)
	}
	return s, s.attach(ctx, s.cowName, persistent, int64(chunk)<<9)
}

// kind takes the words that the kernel takes.
func (s *snapshot) kind(word string) (persistent bool, err error) {
	switch w := strings.ToUpper(word); {
	case strings.HasPrefix(w, "N"):
		return false, nil
	case w == "P":
		return true, nil
	case strings.HasPrefix(w, "PO"):
		s.overflows = true
		return true, nil
	}
	return false, fmt.Errorf("%q is none of them", word)
}

func (s *snapshot) option(name, value string) error {
	switch {
	case name == "discard_zeroes_cow" && value == "":
		s.zeroesCOW = true
	case name == "discard_passdown_origin" && value == "":
		s.passesDown = true
	default:
		return fmt.Errorf("%q is neither discard_zeroes_cow nor discard_passdown_origin", name)
	}
	return nil
}

// Do performs r.
//
// Hot: no allocation for a request within one chunk that needs no copy.
func (s *snapshot) Do(ctx context.Context, r block.Request) error {
	if err := refuseMark(&r, s.from, s.to); err != nil {
		return err
	}
	r.Off += s.start
	switch r.Op {
	case block.OpRead:
		return s.read(ctx, &r)
	case block.OpWrite:
		return s.write(ctx, &r)
	case block.OpDiscard:
		if !s.zeroesCOW {
			return block.ErrNotSupported
		}
		return s.discard(ctx, &r)
	}
	return fmt.Errorf("%w: %v", block.ErrNotSupported, r.Op)
}

// place returns where the byte of the origin at off is, and how many up to end
// follow it there. c.mu is held.
func (s *snapshot) place(off, end int64) (dev block.Device, at, n int64) {
	i := off >> s.shift
	to, own := s.made.get(i)
	run := int64(1)
	for ; (i+run)<<s.shift < end; run++ {
		next, o := s.made.get(i + run)
		if o != own || own && next != to+run {
			break
		}
	}
	n = min(end, (i+run)<<s.shift) - off
	if own {
		return s.to, to<<s.shift + off - i<<s.shift, n
	}
	return s.from, off, n
}

// parts appends where the bytes of r from off to end are. c.mu is held.
func (s *snapshot) parts(parts []block.Part, r *block.Request, off, end int64) []block.Part {
	for off < end {
		dev, at, n := s.place(off, end)
		p := block.Part{Dev: dev, Req: r.Sub(off-r.Off, n)}
		p.Req.Off = at
		parts = append(parts, p)
		off += n
	}
	return parts
}

// read reads each chunk where it is. What is read from the origin must not be
// changed there meanwhile.
func (s *snapshot) read(ctx context.Context, r *block.Request) error {
	off, end := r.Off, r.Off+r.Len
	if err := s.lockAfter(ctx, off, end, r.NoWait()); err != nil {
		return err
	}
	if s.dead != nil {
		s.mu.Unlock()
		return errSnapshotInvalid
	}
	var parts []block.Part
	dev, at, n := s.place(off, end)
	fromOrigin := dev == s.from
	if n < r.Len {
		parts = s.parts(nil, r, off, end)
		fromOrigin = true
	}
	var f *flight
	if fromOrigin {
		f = s.reads.begin(off, end)
	}
	s.mu.Unlock()
	var err error
	if parts != nil {
		err = block.Parallel(ctx, parts)
	} else {
		q := *r
		q.Off = at
		err = dev.Do(ctx, q)
	}
	if f != nil {
		s.mu.Lock()
		s.reads.end(f)
		s.mu.Unlock()
	}
	return err
}

// write makes exceptions of the chunks it touches, and writes them.
func (s *snapshot) write(ctx context.Context, r *block.Request) error {
	step := int64(snapBatch) << s.shift
	for off, end := r.Off, r.Off+r.Len; off < end; {
		to := min(off&^(step-1)+step, end)
		part := *r
		if to-off < r.Len {
			part = r.Sub(off-r.Off, to-off)
		}
		if err := s.writeSome(ctx, &part); err != nil {
			return err
		}
		off = to
	}
	return nil
}

// writeSome is write for snapBatch chunks at most.
func (s *snapshot) writeSome(ctx context.Context, r *block.Request) error {
	off, end := r.Off, r.Off+r.Len
	var written []*pending
	s.mu.Lock()
	if err := s.writable(); err != nil {
		s.mu.Unlock()
		return err
	}
	if !s.own(off, end) {
		s.mu.Unlock()
		if r.NoWait() {
			return block.ErrWouldBlock
		}
		var err error
		if written, err = s.except(ctx, off, end, r); err != nil {
			return err
		}
		s.mu.Lock()
		if err := s.writable(); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	if _, at, n := s.place(off, end); n == r.Len && len(written) == 0 {
		s.mu.Unlock()
		q := *r
		q.Off = at
		return s.to.Do(ctx, q)
	}
	var parts []block.Part
	for _, p := range written {
		from := p.from << s.shift
		parts = s.parts(parts, r, off, from)
		off = from + s.chunk
	}
	parts = s.parts(parts, r, off, end)
	s.mu.Unlock()
	return block.Parallel(ctx, parts)
}

// writable returns why the snapshot takes no writes; s.mu is held.
func (s *snapshot) writable() error {
	switch {
	case s.dead != nil:
		return errSnapshotInvalid
	case s.overflow:
		return errSnapshotFull
	}
	return nil
}

// discard zeroes the chunks that have data of their own, as a whole, and tells
// the origin if the table says so and no other snapshot needs what is there.
func (s *snapshot) discard(ctx context.Context, r *block.Request) error {
	off, end := r.Off, r.Off+r.Len
	first, last := (off+s.chunk-1)>>s.shift, end>>s.shift // beyond the last
	for i := first; i < last; i++ {
		s.mu.Lock()
		if s.dead != nil {
			s.mu.Unlock()
			return errSnapshotInvalid
		}
		to, own := s.made.get(i)
		s.mu.Unlock()
		if !own {
			continue
		}
		if r.NoWait() {
			return block.ErrWouldBlock
		}
		if err := zeroAt(ctx, s.to, to<<s.shift, s.chunk); err != nil {
			return err
		}
	}
	if !s.passesDown {
		return nil
	}
	if i := s.from.Info(); i.ReadOnly || i.Discard == block.None {
		return nil
	}
	f, alone := s.origin.beginAlone(s.cow, off, end)
	if !alone {
		return nil
	}
	defer s.origin.end(f)
	return s.from.Do(ctx, *r)
}

// Pause does nothing: what the origin changes is kept all the time.
func (s *snapshot) Pause() {}

// Unpause is called when the device first has the table, and again later.
func (s *snapshot) Unpause() { s.origin.activate(s.cow) }

// Chunk is where requests are cut: at chunks of the origin, which may not begin
// with the row.
func (s *snapshot) Chunk() int64 {
	if low := s.start & -s.start; low != 0 {
		return min(low, s.chunk)
	}
	return s.chunk
}

// Map tells where a request within one chunk goes, if that needs no exception
// to be made.
func (s *snapshot) Map(r *block.Request) (block.Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return nil, errSnapshotInvalid
	}
	off := s.start + r.Off
	dev, at, _ := s.place(off, off+r.Len)
	if r.Op.Changes() && dev == s.from {
		return nil, s.writable()
	}
	r.Off = at
	return dev, nil
}

// Explain says where the byte at off is.
func (s *snapshot) Explain(off int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := (s.start + off) >> s.shift
	switch to, own := s.made.get(i); {
	case s.dead != nil:
		return "invalid: " + s.why
	case own:
		return fmt.Sprintf("chunk %d, of %d sectors, has changed and is chunk %d of the COW device", i, s.chunk>>9, to)
	default:
		return fmt.Sprintf("chunk %d, of %d sectors, is that of the origin; a write copies it first", i, s.chunk>>9)
	}
}

// Info takes blocks that both devices take. FUA is left to the table, since a
// chunk may be on either.
func (s *snapshot) Info() block.Info {
	i, c := s.from.Info(), s.to.Info()
	writesBlock := c.WritesBlock
	i = together(i, c)
	i.WritesBlock, i.NeverBlocks, i.ReadOnly = writesBlock, false, c.ReadOnly
	i.FUA, i.Zeroes, i.Discard = block.None, block.None, block.None
	if s.zeroesCOW {
		i.Discard = block.Native
	}
	return i
}

func (s *snapshot) Under() []block.Span {
	return []block.Span{{Dev: s.from, Off: s.start, Len: s.length}, {Dev: s.to, Len: s.to.Info().Size}}
}

// Status is how much of the COW device is used, of how much, and how much of
// that for metadata, in sectors, or what became of it.
func (s *snapshot) Status(k dm.StatusKind) string {
	if k == dm.StatusTable {
		return s.tableText()
	}
	total := s.to.Info().Size >> 9
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead != nil:
		return "Invalid"
	case s.overflow:
		return "Overflow"
	}
	metadata := int64(0)
	if s.store != nil {
		metadata = 2 + s.committed/s.store.perArea // the header, and the areas so far
	}
	sectors := s.chunk >> 9
	return fmt.Sprintf("%d/%d %d", s.next*sectors, total, metadata*sectors)
}

func (s *snapshot) tableText() string {
	words := []string{dm.QuoteWord(s.originName), dm.QuoteWord(s.cowName), "N", strconv.FormatInt(s.chunk>>9, 10)}
	switch {
	case s.persistent && s.overflows:
		words[2] = "PO"
	case s.persistent:
		words[2] = "P"
	}
	var options []string
	if s.zeroesCOW {
		options = append(options, "discard_zeroes_cow")
	}
	if s.passesDown {
		options = append(options, "discard_passdown_origin")
	}
	if len(options) > 0 {
		words = append(words, strconv.Itoa(len(options)))
	}
	return strings.Join(append(words, options...), " ")
}

// Close leaves the devices to the builder that opened them, once nobody uses
// them for the snapshot.
func (s *snapshot) Close() error {
	s.detach()
	return nil
}
