package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/race"
)

// Device tests a device. open returns a new one each time; the suite closes
// it. The content at the beginning does not matter.
func Device(t *testing.T, open func(t *testing.T) block.Device, o Options) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s *suite)
	}{
		{"InfoIsSound", testInfo},
		{"RefusesWhatIsOutOfRangeOrUnaligned", testRefusals},
		{"ReadsWhatWasWrittenAtEverySplit", testSplits},
		{"TakesSegmentsOfAnySize", testSegments},
		{"LeavesTheSourceOfAWriteAlone", testSource},
		{"NoWaitLeavesDataForTheNextTry", testNoWait},
		{"FlushAndFUA", testFlush},
		{"ZeroesReadAsZeroes", testZeroes},
		{"DiscardKeepsToItsRange", testDiscard},
		{"ExtentsCoverExactly", testExtents},
		{"CryptIsHonouredOrRefused", testCrypt},
		{"RandomHistory", testHistory},
		{"CancelledContext", testCancelled},
		{"ClosedDevice", testClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newSuite(t, open(t), o)) })
	}
	if o.NoAllocs && !race.Enabled { // the race detector allocates
		t.Run("NoAllocations", func(t *testing.T) { testAllocs(t, newSuite(t, open(t), o)) })
	}
	if o.OpenReadOnly != nil {
		t.Run("ReadOnly", func(t *testing.T) { testReadOnly(t, newSuite(t, o.OpenReadOnly(t), o)) })
	}
}

func testInfo(t *testing.T, s *suite) {
	i := s.info
	if b := i.LogicalBlock; b < 1 || b&(b-1) != 0 {
		t.Errorf("LogicalBlock %d is not a power of two", b)
	}
	if i.PhysicalBlock < i.LogicalBlock || i.PhysicalBlock%i.LogicalBlock != 0 {
		t.Errorf("PhysicalBlock %d with LogicalBlock %d", i.PhysicalBlock, i.LogicalBlock)
	}
	if i.Size <= 0 || i.Size%s.unit != 0 {
		t.Errorf("Size %d is not whole blocks of %d", i.Size, s.unit)
	}
	if i.NeverBlocks && i.WritesBlock {
		t.Error("NeverBlocks and WritesBlock")
	}
}

func testRefusals(t *testing.T, s *suite) {
	size, u := s.info.Size, s.unit
	before := pattern(1, 4*u)
	mustWrite(t, s.dev, 0, before)
	mustWrite(t, s.dev, size-4*u, before)
	ops := []block.Op{block.OpRead, block.OpWrite, block.OpDiscard, block.OpWriteZeroes}
	for _, op := range ops {
		for _, c := range []struct {
			off, n int64
			want   error
		}{
			{size, u, block.ErrOutOfRange},
			{size - u, 2 * u, block.ErrOutOfRange},
			{-u, u, block.ErrOutOfRange},
			{-u, 2 * u, block.ErrOutOfRange},
			{0, size + u, block.ErrOutOfRange},
			{u, -u, block.ErrOutOfRange},
			{1 << 62, u, block.ErrOutOfRange},
			{(1<<63 - 1) &^ (u - 1), 2 * u, block.ErrOutOfRange},
			{1, u, block.ErrInvalid},
			{0, u + 1, block.ErrInvalid},
			{u / 2, u, block.ErrInvalid},
		} {
			if c.want == block.ErrInvalid && u == 1 {
				continue
			}
			r := block.Request{Op: op, Off: c.off, Len: c.n}
			if op.HasData() && c.n >= 0 && c.n <= 16*u {
				r.Data = block.Bytes(make([]byte, c.n))
			}
			wantErr(t, fmt.Sprintf("%v of %d bytes at %d", op, c.n, c.off), s.dev.Do(context.Background(), r), c.want)
		}
		if err := s.dev.Do(context.Background(), block.Request{Op: op, Off: size}); err != nil {
			t.Errorf("%v of nothing at the end: %v", op, err)
		}
	}
	for _, op := range ops[:2] {
		r := block.Request{Op: op, Len: 2 * u, Data: block.Bytes(make([]byte, u))}
		wantErr(t, fmt.Sprintf("%v with too little data", op), s.dev.Do(context.Background(), r), block.ErrInvalid)
		r.Len, r.Data = u, block.Bytes(make([]byte, 2*u))
		wantErr(t, fmt.Sprintf("%v with too much data", op), s.dev.Do(context.Background(), r), block.ErrInvalid)
	}
	wantErr(t, "an op that does not exist", doRange(s.dev, 200, 0, 0, u), block.ErrInvalid)
	same(t, "the first blocks after refusals", mustRead(t, s.dev, 0, 4*u), before)
	same(t, "the last blocks after refusals", mustRead(t, s.dev, size-4*u, 4*u), before)
}

// places returns offsets around which devices have seams: chunks, pages,
// rows, stripes.
func (s *suite) places() []int64 {
	all := []int64{0}
	for n := int64(4 << 10); n < s.size; n *= 2 {
		if s.unit <= n {
			all = append(all, n)
		}
	}
	return append(all, s.size)
}

func testSplits(t *testing.T, s *suite) {
	span := 4 * s.unit
	if s.unit == 1 {
		span = 5 // crosses from either side at each byte
	}
	for _, at := range s.places() {
		lo := max(0, at-span)
		n := min(2*span, s.size-lo)
		want := pattern(uint64(at), n)
		mustWrite(t, s.dev, lo, want)
		step := max(s.unit, 1)
		for off := int64(0); off < n; off += step {
			for k := step; off+k <= n; k += step {
				part := pattern(uint64(at)<<20|uint64(off)<<10|uint64(k), k)
				mustWrite(t, s.dev, lo+off, part)
				copy(want[off:], part)
				if !same(t, fmt.Sprintf("after a write of %d at %d", k, lo+off), mustRead(t, s.dev, lo, n), want) ||
					!same(t, fmt.Sprintf("a read of %d at %d", k, lo+off), mustRead(t, s.dev, lo+off, k), part) {
					return
				}
			}
		}
	}
	all := pattern(7, s.size)
	mustWrite(t, s.dev, 0, all)
	same(t, "one request over everything", mustRead(t, s.dev, 0, s.size), all)
}

func testSegments(t *testing.T, s *suite) {
	off := s.size/2/s.unit*s.unit - 2*s.unit
	for _, n := range []int64{s.unit, 3 * s.unit, min(s.size-off, 256<<10) / s.unit * s.unit} {
		want := pattern(uint64(n), n)
		src := bytes.Clone(want)
		r := block.Request{Op: block.OpWrite, Off: off, Len: n, Data: scatter(src)}
		if err := s.dev.Do(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%d bytes written from many segments", n), mustRead(t, s.dev, off, n), want)

		// The window begins and ends inside segments.
		dst := make([]byte, n+1000)
		r = block.Request{Op: block.OpRead, Off: off, Len: n, Data: scatter(dst).Slice(499, int(n))}
		if err := s.dev.Do(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%d bytes read into many segments", n), dst[499:499+n], want)
		if len(bytes.Trim(dst[:499], "\x00"))+len(bytes.Trim(dst[499+n:], "\x00")) != 0 {
			t.Error("a read wrote outside its window")
		}
	}
}

func testSource(t *testing.T, s *suite) {
	n := 8 * s.unit
	for _, f := range []block.Flags{0, block.Shared, block.Scratch, block.FUA, block.Scratch | block.FUA} {
		for _, vec := range []bool{false, true} {
			want := pattern(uint64(f), n)
			src := bytes.Clone(want)
			data := block.Bytes(src)
			if vec {
				data = scatter(src)
			}
			if err := s.dev.Do(context.Background(), block.Request{Op: block.OpWrite, Flags: f, Off: n, Len: n, Data: data}); err != nil {
				t.Fatal(err)
			}
			if f&block.Scratch == 0 {
				same(t, fmt.Sprintf("source after a write with flags %#x", f), src, want)
			}
			for i := range src { // done means done: nobody looks at it any more
				src[i] = 0xdb
			}
			same(t, fmt.Sprintf("medium after the source was overwritten, flags %#x", f), mustRead(t, s.dev, n, n), want)
		}
	}
	got := make([]byte, n)
	if err := do(s.dev, block.OpRead, block.Shared, n, got); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = 0xdb
	}
	same(t, "medium after the target of a read was overwritten", mustRead(t, s.dev, n, n), pattern(uint64(block.Scratch|block.FUA), n))
}

func testNoWait(t *testing.T, s *suite) {
	n := 8 * s.unit
	mustWrite(t, s.dev, 0, pattern(1, s.size)) // keys are in their slots from here on
	try := func(op block.Op, f block.Flags, off int64, data []byte) {
		t.Helper()
		r := block.Request{Op: op, Flags: f | block.NoWait, Off: off, Len: n, Data: block.Bytes(data)}
		if !op.HasData() {
			r.Data = block.Segments{}
		}
		err := s.dev.Do(context.Background(), r)
		switch {
		case err == nil:
			if s.info.WritesBlock && op.Changes() {
				t.Errorf("WritesBlock, but %v with NoWait is done", op)
			}
			return
		case op == block.OpDiscard && s.info.Discard == block.None && mayRefuse(err):
			return
		case !errors.Is(err, block.ErrWouldBlock):
			t.Fatalf("%v with NoWait: %v", op, err)
		case s.info.NeverBlocks:
			t.Fatalf("NeverBlocks, but %v with NoWait would block", op)
		}
		r.Flags &^= block.NoWait
		if err := s.dev.Do(context.Background(), r); err != nil {
			t.Fatalf("%v again without NoWait: %v", op, err)
		}
	}
	for round, f := range []block.Flags{0, block.Scratch, block.FUA, block.Scratch | block.Shared} {
		for _, off := range []int64{0, s.size - n} {
			want := pattern(uint64(round)+1000, n)
			try(block.OpWrite, f, off, bytes.Clone(want))
			got := make([]byte, n)
			try(block.OpRead, 0, off, got)
			same(t, fmt.Sprintf("NoWait write, flags %#x, then NoWait read", f), got, want)
			try(block.OpFlush, 0, 0, nil)
			try(block.OpWriteZeroes, 0, off, nil)
			same(t, "NoWait zeroes", mustRead(t, s.dev, off, n), make([]byte, n))
			try(block.OpDiscard, 0, off, nil)
		}
	}
}

func testFlush(t *testing.T, s *suite) {
	n := 4 * s.unit
	want := pattern(3, n)
	for _, op := range []block.Op{block.OpWrite, block.OpWriteZeroes} {
		if op == block.OpWriteZeroes {
			want = make([]byte, n)
		}
		r := block.Request{Op: op, Flags: block.FUA, Off: n, Len: n}
		if op == block.OpWrite {
			r.Data = block.Bytes(want)
		}
		if err := s.dev.Do(context.Background(), r); err != nil {
			t.Fatalf("%v with FUA: %v", op, err)
		}
		same(t, fmt.Sprintf("%v with FUA", op), mustRead(t, s.dev, n, n), want)
		for range 2 {
			if err := s.dev.Do(context.Background(), block.Request{Op: block.OpFlush, Lane: 65535}); err != nil {
				t.Fatalf("flush: %v", err)
			}
		}
	}
}

// mayRefuse reports whether err answers a request that a device need not support.
func mayRefuse(err error) bool { return errors.Is(err, block.ErrNotSupported) }

func testZeroes(t *testing.T, s *suite) {
	for _, f := range []block.Flags{0, block.NoUnmap, block.FastZero, block.NoUnmap | block.FastZero, block.FUA} {
		for _, c := range s.ranges() {
			before := pattern(uint64(c.off), c.n+2*s.unit)
			lo := c.off - s.unit
			mustWrite(t, s.dev, lo, before)
			err := doRange(s.dev, block.OpWriteZeroes, f, c.off, c.n)
			want := bytes.Clone(before)
			got := mustRead(t, s.dev, lo, c.n+2*s.unit)
			switch {
			case err == nil:
				clear(want[s.unit : s.unit+c.n])
			case f&block.FastZero != 0 && mayRefuse(err):
				// Some places may have been zeroed before another refused.
				for at := s.unit; at < s.unit+c.n; at += s.unit {
					if b := got[at : at+s.unit]; len(bytes.Trim(b, "\x00")) == 0 {
						clear(want[at : at+s.unit])
					}
				}
			default:
				t.Fatalf("zeroes of %d at %d, flags %#x: %v", c.n, c.off, f, err)
			}
			if !same(t, fmt.Sprintf("zeroes of %d at %d, flags %#x (%v)", c.n, c.off, f, err), got, want) {
				return
			}
			// Written over, everything is there again, and nothing older.
			part := pattern(5, s.unit)
			mid := c.off + c.n/2/s.unit*s.unit
			mustWrite(t, s.dev, mid, part)
			copy(want[mid-lo:], part)
			if !same(t, "a block written into zeroes", mustRead(t, s.dev, lo, c.n+2*s.unit), want) {
				return
			}
		}
	}
}

func testDiscard(t *testing.T, s *suite) {
	for _, c := range s.ranges() {
		before := pattern(uint64(c.off), c.n+2*s.unit)
		lo := c.off - s.unit
		mustWrite(t, s.dev, lo, before)
		err := doRange(s.dev, block.OpDiscard, 0, c.off, c.n)
		if err != nil && (s.info.Discard != block.None || !mayRefuse(err)) {
			t.Fatalf("discard of %d at %d: %v", c.n, c.off, err)
		}
		got := mustRead(t, s.dev, lo, c.n+2*s.unit)
		same(t, "the block before a discard", got[:s.unit], before[:s.unit])
		same(t, "the block after a discard", got[s.unit+c.n:], before[s.unit+c.n:])
		mustWrite(t, s.dev, c.off, before[:c.n])
		same(t, "a discarded range written again", mustRead(t, s.dev, c.off, c.n), before[:c.n])
	}
}

type span struct{ off, n int64 }

// ranges returns ranges with a block before and after, that begin and end on
// seams, beside them, and far from them.
func (s *suite) ranges() (all []span) {
	u := s.unit
	add := func(off, n int64) {
		off, n = off/u*u, n/u*u
		if n > 0 && off >= u && off+n+u <= s.size {
			all = append(all, span{off, n})
		}
	}
	add(u, u)
	add(5*u, 3*u)
	add(4096, 4096)
	add(64<<10, 64<<10)
	add(64<<10-u, 64<<10+2*u)
	add(128<<10+u, 192<<10)
	add(100<<10, s.size-200<<10)
	add(u, s.size-2*u)
	if u == 1 {
		add(4095, 2)
		add(4097, 4094)
		add(8191, 8194)
		add(4096, 8191)
	}
	return all
}

func testExtents(t *testing.T, s *suite) {
	mustWrite(t, s.dev, 0, pattern(1, s.size))
	for _, f := range []block.Flags{0, block.NoUnmap} {
		if err := doRange(s.dev, block.OpWriteZeroes, f, s.size/4/s.unit*s.unit, s.size/4/s.unit*s.unit); err != nil {
			t.Fatal(err)
		}
	}
	_ = doRange(s.dev, block.OpDiscard, 0, s.size*5/8/s.unit*s.unit, s.size/8/s.unit*s.unit)
	content := mustRead(t, s.dev, 0, s.size)
	for _, c := range append(s.ranges(), span{0, s.size}, span{0, s.unit}, span{s.size - s.unit, s.unit}, span{0, 0}, span{s.size, 0}) {
		at := c.off
		for e, err := range block.Extents(context.Background(), s.dev, c.off, c.n) {
			if err != nil {
				t.Fatalf("extents of %d at %d: %v", c.n, c.off, err)
			}
			if e.Off != at || e.Len <= 0 || e.Off+e.Len > c.off+c.n {
				t.Fatalf("extents of %d at %d: %+v after everything up to %d", c.n, c.off, e, at)
			}
			if e.Zero && len(bytes.Trim(content[e.Off:e.Off+e.Len], "\x00")) > 0 {
				t.Errorf("extent %+v does not read as zeroes", e)
			}
			at += e.Len
		}
		if at != c.off+c.n {
			t.Errorf("extents of %d at %d end at %d", c.n, c.off, at)
		}
		for range block.Extents(context.Background(), s.dev, c.off, c.n) {
			break // a caller may stop
		}
	}
	for _, c := range []span{{s.info.Size, 1}, {-1, 1}, {0, -1}, {0, s.info.Size + 1}} {
		var got error
		for _, err := range block.Extents(context.Background(), s.dev, c.off, c.n) {
			got = err
		}
		wantErr(t, fmt.Sprintf("extents of %d at %d", c.n, c.off), got, block.ErrOutOfRange)
	}
}

// testCrypt: a context is honoured or refused, never ignored.
func testCrypt(t *testing.T, s *suite) {
	for _, unit := range []int{512, 4096} {
		c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8}
		n := int64(max(unit, s.info.PhysicalBlock) * 4) // aligned for whatever is beneath
		ctx := blkcrypto.Context{Key: Key(t, c), DUN: blkcrypto.DUN64(1 << 40)}
		medium := s.o.Medium
		if medium == nil {
			medium = func(t *testing.T, dev block.Device, off, n int64) []byte { return mustRead(t, dev, off, n) }
		}
		before, plain := pattern(1, n), pattern(2, n)
		mustWrite(t, s.dev, 0, before)
		r := block.Request{Op: block.OpWrite, Len: n, Data: block.Bytes(bytes.Clone(plain)), Crypt: ctx}
		if err := s.dev.Do(context.Background(), r); err != nil {
			wantErr(t, "write with a context", err, block.ErrNoCrypto)
			if s.info.Crypto.Supports(c) {
				t.Errorf("%v is in the profile and refused", c)
			}
			same(t, "content after a refused write", mustRead(t, s.dev, 0, n), before)
			r.Op, r.Data = block.OpRead, block.Bytes(make([]byte, n))
			wantErr(t, "read with a context", s.dev.Do(context.Background(), r), block.ErrNoCrypto)
			continue
		}
		raw := medium(t, s.dev, 0, n)
		for i := int64(0); i < n; i += 16 {
			if bytes.Equal(raw[i:i+16], plain[i:i+16]) {
				t.Fatalf("%v: plaintext on the medium at %d", c, i)
			}
		}
		got := make([]byte, n)
		r.Op, r.Data = block.OpRead, block.Bytes(got)
		if err := s.dev.Do(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		same(t, "read with the context of the write", got, plain)
		r.Crypt.DUN = blkcrypto.DUN64(7)
		if err := s.dev.Do(context.Background(), r); err == nil && bytes.Equal(got, plain) {
			t.Errorf("%v: the data unit number makes no difference", c)
		}
	}
}

func testReadOnly(t *testing.T, s *suite) {
	if !s.info.ReadOnly {
		t.Fatal("Info does not say that the device is read-only")
	}
	before := mustRead(t, s.dev, 0, 2*s.unit)
	wantErr(t, "write", do(s.dev, block.OpWrite, 0, 0, pattern(1, s.unit)), block.ErrReadOnly)
	wantErr(t, "discard", doRange(s.dev, block.OpDiscard, 0, 0, s.unit), block.ErrReadOnly)
	wantErr(t, "write-zeroes", doRange(s.dev, block.OpWriteZeroes, 0, 0, s.unit), block.ErrReadOnly)
	if err := doRange(s.dev, block.OpFlush, 0, 0, 0); err != nil {
		t.Errorf("flush: %v", err)
	}
	same(t, "content", mustRead(t, s.dev, 0, 2*s.unit), before)
}

// testCancelled: a context that has ended may stop a wait, and never leaves
// half a request.
func testCancelled(t *testing.T, s *suite) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	before, after := pattern(1, 4*s.unit), pattern(2, 4*s.unit)
	mustWrite(t, s.dev, 0, before)
	r := block.Request{Op: block.OpWrite, Len: 4 * s.unit, Data: block.Bytes(bytes.Clone(after))}
	switch err := s.dev.Do(ctx, r); {
	case err == nil:
		same(t, "content after a write with an ended context", mustRead(t, s.dev, 0, 4*s.unit), after)
	case errors.Is(err, cause):
		same(t, "content after a refused write", mustRead(t, s.dev, 0, 4*s.unit), before)
	default:
		t.Errorf("write with an ended context: %v, want its cause", err)
	}
}

func testClose(t *testing.T, s *suite) {
	if err := s.dev.Close(); err != nil {
		t.Fatal(err)
	}
	n := int64(s.info.PhysicalBlock) // enough that a discard is not rounded to nothing
	for _, op := range []block.Op{block.OpRead, block.OpWrite, block.OpFlush, block.OpDiscard, block.OpWriteZeroes} {
		r := block.Request{Op: op, Len: n}
		if op.HasData() {
			r.Data = block.Bytes(make([]byte, n))
		}
		wantErr(t, fmt.Sprintf("%v after Close", op), s.dev.Do(context.Background(), r), block.ErrClosed)
	}
}

func testAllocs(t *testing.T, s *suite) {
	n := max(4096, s.unit)
	buf := aligned(n)
	for _, op := range []block.Op{block.OpRead, block.OpWrite} {
		for _, f := range []block.Flags{0, block.NoWait, block.FUA} {
			if op == block.OpRead && f == block.FUA {
				continue
			}
			r := block.Request{Op: op, Flags: f, Off: n, Len: n, Data: block.Bytes(buf)}
			runs := 100
			if f == block.FUA {
				runs = 5 // each may wait for a disk
			}
			if got := testing.AllocsPerRun(runs, func() { _ = s.dev.Do(context.Background(), r) }); got != 0 {
				t.Errorf("%v with flags %#x: %v allocations, want 0", op, f, got)
			}
		}
	}
}
