package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/blocktest"
)

func xts(unit, dunBytes int) blkcrypto.Config {
	return blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: dunBytes}
}

func TestSubMovesTheDataUnitNumber(t *testing.T) {
	key := blocktest.Key(t, xts(512, 8))
	data := make([]byte, 4096)
	for i := range data {
		data[i] = byte(i / 512)
	}
	r := block.Request{
		Op: block.OpWrite, Flags: block.FUA | block.Scratch, Lane: 7, Off: 1 << 20, Len: 4096,
		Data: block.Bytes(data), Crypt: blkcrypto.Context{Key: key, DUN: blkcrypto.DUN{1<<64 - 2}},
	}
	for off := int64(0); off < r.Len; off += 512 {
		for n := int64(512); off+n <= r.Len; n += 512 {
			s := r.Sub(off, n)
			want, _ := r.Crypt.DUN.Add(uint64(off / 512))
			if s.Off != r.Off+off || s.Len != n || s.Crypt.DUN != want || s.Crypt.Key != key ||
				s.Op != r.Op || s.Flags != r.Flags || s.Lane != r.Lane {
				t.Fatalf("Sub(%d, %d) = %+v", off, n, s)
			}
			if got := join(s.Data); !bytes.Equal(got, data[off:off+n]) {
				t.Fatalf("Sub(%d, %d) has other data", off, n)
			}
		}
	}
	// blkcrypto.md invariant 10: a split of a split is the split.
	if a, b := r.Sub(512, 3072).Sub(1024, 512), r.Sub(1536, 512); a.Crypt != b.Crypt || a.Off != b.Off {
		t.Errorf("%+v and %+v", a.Crypt, b.Crypt)
	}
	zeroes := block.Request{Op: block.OpWriteZeroes, Off: 100, Len: 50}
	if s := zeroes.Sub(10, 20); s.Off != 110 || s.Len != 20 || s.Data.Len() != 0 {
		t.Errorf("Sub of a request without data: %+v", s)
	}
	defer func() {
		if recover() == nil {
			t.Error("a split inside a data unit did not panic")
		}
	}()
	r.Sub(256, 256)
}

func TestCheck(t *testing.T) {
	info := block.Info{Size: 8192, LogicalBlock: 512}
	readOnly := info
	readOnly.ReadOnly = true
	unit512, unit4096, narrow := blocktest.Key(t, xts(512, 8)), blocktest.Key(t, xts(4096, 8)), blocktest.Key(t, xts(512, 1))
	with := func(k *blkcrypto.Key, dun uint64) blkcrypto.Context {
		return blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(dun)}
	}
	data := func(n int) block.Segments { return block.Bytes(make([]byte, n)) }
	for _, c := range []struct {
		name string
		r    block.Request
		i    block.Info
		want error
	}{
		{"read", block.Request{Len: 512, Data: data(512)}, info, nil},
		{"all", block.Request{Op: block.OpWrite, Len: 8192, Data: data(8192)}, info, nil},
		{"nothing at the end", block.Request{Off: 8192}, info, nil},
		{"flush ignores the rest", block.Request{Op: block.OpFlush, Off: -5, Len: 3}, readOnly, nil},
		{"beyond", block.Request{Off: 8192, Len: 512, Data: data(512)}, info, block.ErrOutOfRange},
		{"across the end", block.Request{Off: 7680, Len: 1024, Data: data(1024)}, info, block.ErrOutOfRange},
		{"far beyond", block.Request{Op: block.OpDiscard, Off: 1<<63 - 512, Len: 512}, info, block.ErrOutOfRange},
		{"sum overflows", block.Request{Op: block.OpDiscard, Off: 512, Len: 1<<63 - 512}, info, block.ErrOutOfRange},
		{"before", block.Request{Op: block.OpDiscard, Off: -512, Len: 512}, info, block.ErrOutOfRange},
		{"negative length", block.Request{Op: block.OpDiscard, Off: 512, Len: -512}, info, block.ErrOutOfRange},
		{"unaligned offset", block.Request{Op: block.OpDiscard, Off: 1, Len: 512}, info, block.ErrInvalid},
		{"unaligned length", block.Request{Op: block.OpDiscard, Len: 511}, info, block.ErrInvalid},
		{"too little data", block.Request{Len: 1024, Data: data(512)}, info, block.ErrInvalid},
		{"too much data", block.Request{Len: 512, Data: data(1024)}, info, block.ErrInvalid},
		{"unknown op", block.Request{Op: 5, Len: 512}, info, block.ErrInvalid},
		{"read of read-only", block.Request{Len: 512, Data: data(512)}, readOnly, nil},
		{"write", block.Request{Op: block.OpWrite, Len: 512, Data: data(512)}, readOnly, block.ErrReadOnly},
		{"discard", block.Request{Op: block.OpDiscard, Len: 512}, readOnly, block.ErrReadOnly},
		{"write-zeroes", block.Request{Op: block.OpWriteZeroes, Len: 512}, readOnly, block.ErrReadOnly},
		{"context", block.Request{Len: 1024, Data: data(1024), Crypt: with(unit512, 1<<60)}, info, nil},
		{"whole units", block.Request{Off: 512, Len: 4096, Data: data(4096), Crypt: with(unit4096, 0)}, info, nil},
		{"part of a unit", block.Request{Len: 512, Data: data(512), Crypt: with(unit4096, 0)}, info, block.ErrInvalid},
		{"a unit and a half", block.Request{Len: 6144, Data: data(6144), Crypt: with(unit4096, 0)}, info, block.ErrInvalid},
		{"context on flush", block.Request{Op: block.OpFlush, Crypt: with(unit512, 0)}, info, block.ErrInvalid},
		{"context on discard", block.Request{Op: block.OpDiscard, Len: 512, Crypt: with(unit512, 0)}, info, block.ErrInvalid},
		{"context on zeroes", block.Request{Op: block.OpWriteZeroes, Len: 512, Crypt: with(unit512, 0)}, info, block.ErrInvalid},
		// blkcrypto.md invariant 4.
		{"last number that fits", block.Request{Len: 1024, Data: data(1024), Crypt: with(narrow, 254)}, info, nil},
		{"one number too many", block.Request{Len: 1024, Data: data(1024), Crypt: with(narrow, 255)}, info, block.ErrInvalid},
		{"first number too large", block.Request{Len: 512, Data: data(512), Crypt: with(narrow, 256)}, info, block.ErrInvalid},
	} {
		if err := block.Check(c.r, c.i); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	r := block.Request{Len: 512, Data: data(512), Crypt: with(unit512, 0)}
	if n := testing.AllocsPerRun(100, func() { _ = block.Check(r, info) }); n != 0 {
		t.Errorf("Check: %v allocations", n)
	}
}

func TestOpAndErrorTexts(t *testing.T) {
	for op, want := range map[block.Op]string{
		block.OpRead: "read", block.OpWrite: "write", block.OpFlush: "flush", block.OpDiscard: "discard", block.OpWriteZeroes: "write-zeroes", 9: "op(9)",
	} {
		if op.String() != want {
			t.Errorf("Op(%d) is %q", uint8(op), op)
		}
	}
	err := error(&block.OpError{Dev: "vol", Op: block.OpWrite, Off: 4096, Len: 512, Err: fmt.Errorf("disk: %w", block.ErrNoSpace)})
	if want := "vol: write of 512 bytes at 4096: disk: no space left on the medium"; err.Error() != want || !errors.Is(err, block.ErrNoSpace) {
		t.Errorf("%q, want %q", err, want)
	}
}

// A fake answers as its function does.
type fake struct {
	info block.Info
	do   func(ctx context.Context, r block.Request) error
}

func (f fake) Do(ctx context.Context, r block.Request) error { return f.do(ctx, r) }
func (f fake) Info() block.Info                              { return f.info }
func (f fake) Close() error                                  { return nil }

func TestParallelReturnsTheErrorOfTheFirstPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var parts []block.Part
		done := make([]bool, 4)
		for i := range done {
			parts = append(parts, block.Part{Req: block.Request{Off: int64(i)}, Dev: fake{do: func(_ context.Context, r block.Request) error {
				time.Sleep(time.Duration(len(done)-i) * time.Second) // the last is done first
				done[r.Off] = true
				if i == 0 {
					return nil
				}
				return fmt.Errorf("part %d", i)
			}}})
		}
		began := time.Now()
		if err := block.Parallel(t.Context(), parts); err == nil || err.Error() != "part 1" {
			t.Errorf("%v, want the error of part 1", err)
		}
		for i, ok := range done {
			if !ok {
				t.Errorf("part %d was not performed", i)
			}
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("took %v, want that of the slowest part", took)
		}
	})
	if err := block.Parallel(context.Background(), nil); err != nil {
		t.Errorf("no parts: %v", err)
	}
}

func TestParallelOfPartsThatMustNotWait(t *testing.T) {
	var order []int64
	dev := fake{do: func(_ context.Context, r block.Request) error {
		order = append(order, r.Off)
		if r.Flags&block.Scratch != 0 {
			t.Error("a part may scribble on data that will be issued again")
		}
		if r.Off == 2 {
			return block.ErrWouldBlock
		}
		return nil
	}}
	var parts []block.Part
	for i := range int64(4) {
		parts = append(parts, block.Part{Dev: dev, Req: block.Request{Op: block.OpWrite, Flags: block.NoWait | block.Scratch, Off: i}})
	}
	if err := block.Parallel(context.Background(), parts); err != block.ErrWouldBlock {
		t.Errorf("%v, want ErrWouldBlock", err)
	}
	if fmt.Sprint(order) != "[0 1 2]" {
		t.Errorf("parts performed: %v, want in turn up to the one that would block", order)
	}
}

func TestEmulateFUA(t *testing.T) {
	var log []string
	fail := ""
	dev := fake{do: func(_ context.Context, r block.Request) error {
		log = append(log, fmt.Sprintf("%v %#x", r.Op, r.Flags))
		if r.Op.String() == fail {
			return errors.New(fail + " failed")
		}
		return nil
	}}
	for _, c := range []struct{ fail, want string }{
		{"", "write 0x2, flush 0x2"}, {"write", "write 0x2"}, {"flush", "write 0x2, flush 0x2"},
	} {
		log, fail = nil, c.fail
		err := block.EmulateFUA(context.Background(), dev, block.Request{Op: block.OpWrite, Flags: block.FUA | block.NoWait, Len: 1, Data: block.Bytes([]byte{1})})
		if (err != nil) != (c.fail != "") || strings.Join(log, ", ") != c.want {
			t.Errorf("failing %q: %v, %v; want %v", c.fail, err, log, c.want)
		}
	}
}

func TestEmulateZeroes(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int64{0, 512, 256 << 10, 256<<10 + 512, 1 << 20} {
		d := newDisk(2<<20, 512)
		for i := range d.mem {
			d.mem[i] = 1
		}
		var flags block.Flags
		d.before = func(r block.Request) error { flags = r.Flags; return nil }
		r := block.Request{Op: block.OpWriteZeroes, Flags: block.FUA | block.NoUnmap | block.SkipDefaultKey, Off: 4096, Len: n}
		if err := block.EmulateZeroes(ctx, d, r); err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte{1}, 2<<20)
		clear(want[4096 : 4096+n])
		if !bytes.Equal(d.mem, want) {
			t.Errorf("zeroes of %d bytes: the medium is wrong", n)
		}
		if n > 0 && flags != block.FUA|block.SkipDefaultKey {
			t.Errorf("the writes have flags %#x", flags)
		}
	}
	d := newDisk(2<<20, 512)
	fast := block.Request{Op: block.OpWriteZeroes, Flags: block.FastZero, Len: 512}
	if err := block.EmulateZeroes(ctx, d, fast); err != block.ErrNotSupported {
		t.Errorf("FastZero: %v", err)
	}
	// Half of a request that must not wait could not be taken back.
	d.before = func(block.Request) error { t.Error("a part was written"); return nil }
	long := block.Request{Op: block.OpWriteZeroes, Flags: block.NoWait, Len: 1 << 20}
	if err := block.EmulateZeroes(ctx, d, long); err != block.ErrWouldBlock {
		t.Errorf("a long NoWait request: %v", err)
	}
}

func TestExtentsOfAPlainDevice(t *testing.T) {
	dev := fake{info: block.Info{Size: 4096}}
	var got []block.Extent
	for e, err := range block.Extents(context.Background(), dev, 512, 1024) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(got) != 1 || got[0] != (block.Extent{Off: 512, Len: 1024}) {
		t.Errorf("%+v", got)
	}
	for _, err := range block.Extents(context.Background(), dev, 4096, 1) {
		if !errors.Is(err, block.ErrOutOfRange) {
			t.Errorf("beyond the end: %v", err)
		}
	}
}
