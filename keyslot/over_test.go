package keyslot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/race"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
	"keyway/keyslot/soft"
)

const maxBounce = 256 << 10 // as in over.go

func xtsConfig(m blkcrypto.Mode, unit int, n blkcrypto.Numbering) blkcrypto.Config {
	return blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 16, Numbering: n}
}

// blkcrypto.md invariants 2, 3, 5 and 6: the naive cipher's bytes for every
// numbering, shape of memory, length and set of flags, on disks that block and
// that do not.
func TestCiphertextIsThatOfTheReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 6))
	m := keyslot.New(soft.New("cpu", 3))
	configs := []blkcrypto.Config{
		xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit),
		xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.ByUnit),
		xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.BySector),
		xtsConfig(blkcrypto.AES128XTS, 2048, blkcrypto.BySector),
		xtsConfig(blkcrypto.AES256XTS, 65536, blkcrypto.ByUnit),
	}
	duns := []blkcrypto.DUN{{}, {7}, {1<<32 - 1}, {1<<64 - 3}, {1<<64 - 1, 1<<63 - 1}}
	for _, c := range configs {
		k := newKeyOf(t, c.String(), c)
		unit := c.DataUnitSize
		for _, size := range []int{unit, 3 * unit, maxBounce, maxBounce + unit, 2*maxBounce + 5*unit} {
			for i, shape := range []int{0, 100, unit / 2, unit, 3 * unit} { // typical segment, 0: one
				if race.Enabled && size > maxBounce/2 && rng.IntN(5) > 0 {
					continue // the naive cipher takes 10 times as long
				}
				f := overRun{
					t: t, rng: rng, m: m, k: k, dun: duns[rng.IntN(len(duns))], size: size, shape: shape,
					flags: []block.Flags{0, block.Scratch, block.Shared, block.Scratch | block.Shared}[rng.IntN(4)],
					disk:  newRAM(t, size+4096),
				}
				f.disk.info.NeverBlocks = i%2 == 0
				f.disk.info.WritesBlock = i%3 == 1
				f.run()
			}
		}
	}
}

type overRun struct {
	t           *testing.T
	rng         *rand.Rand
	m           *keyslot.Manager
	k           testKey
	dun         blkcrypto.DUN
	size, shape int
	flags       block.Flags
	disk        *ram
}

func (f *overRun) run() {
	f.t.Helper()
	dev := keyslot.Over(f.disk, f.m)
	what := fmt.Sprintf("%v, DUN %v, %d bytes, segments of about %d, flags %b", f.k.Config(), f.dun, f.size, f.shape, f.flags)
	plain := random(f.rng, f.size)
	want := bytes.Clone(plain)
	reference(f.k, f.dun, want)
	mine := f.memory(plain)
	r := block.Request{
		Op: block.OpWrite, Flags: f.flags, Off: 512, Len: int64(f.size), Data: block.Vec(mine),
		Crypt: blkcrypto.Context{Key: f.k.Key, DUN: f.dun},
	}
	f.disk.log = true
	f.do(dev, r, mine, plain, what)
	if !bytes.Equal(f.disk.mem[512:][:f.size], want) {
		f.t.Fatalf("%s: the ciphertext differs from the reference", what)
	}
	if f.flags != block.Scratch && !bytes.Equal(join(mine), plain) {
		f.t.Errorf("%s: the data of the write has changed (invariant 6)", what)
	}
	for _, down := range f.disk.take() {
		if shares(down.Data, mine) && f.flags != block.Scratch {
			f.t.Errorf("%s: the disk got the caller's memory", what)
		}
		if down.Flags&block.Shared != 0 || down.Len > maxBounce && f.flags != block.Scratch {
			f.t.Errorf("%s: the disk got %d bytes with flags %b", what, down.Len, down.Flags)
		}
	}

	mine = f.memory(random(f.rng, f.size))
	r.Op, r.Data, r.Flags = block.OpRead, block.Vec(mine), f.flags&block.Shared
	if err := dev.Do(ctx, r); err != nil {
		f.t.Fatalf("%s: read: %v", what, err)
	}
	if !bytes.Equal(join(mine), plain) {
		f.t.Errorf("%s: reads back other bytes (invariant 5)", what)
	}
	for _, down := range f.disk.take() {
		if shares(down.Data, mine) && f.flags&block.Shared != 0 {
			f.t.Errorf("%s: the disk read ciphertext into shared memory", what)
		}
	}
}

func (f *overRun) memory(b []byte) [][]byte {
	if f.shape == 0 {
		return [][]byte{bytes.Clone(b)}
	}
	return cut(f.rng, b, f.shape)
}

// do tries without waiting first, as exports do.
func (f *overRun) do(dev block.Device, r block.Request, mine [][]byte, plain []byte, what string) {
	f.t.Helper()
	r.Flags |= block.NoWait
	err := dev.Do(ctx, r)
	if errors.Is(err, block.ErrWouldBlock) {
		if !bytes.Equal(join(mine), plain) {
			f.t.Fatalf("%s: the data has changed although the write would block", what)
		}
		r.Flags &^= block.NoWait
		err = dev.Do(ctx, r)
	}
	if err != nil {
		f.t.Fatalf("%s: write: %v", what, err)
	}
}

// A NoWait write that cannot go on leaves the data as it was, wherever it stops.
func TestWouldBlockLeavesTheData(t *testing.T) {
	c := xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit)
	for _, tt := range []struct {
		name    string
		prepare func(d *ram, m *keyslot.Manager, k testKey) (undo func())
		calls   int // of the disk
	}{
		{"the disk blocks after the encryption in place", func(d *ram, m *keyslot.Manager, k testKey) func() {
			use2(t, m, k)
			d.before = func(r block.Request) error { return fmt.Errorf("disk: %w", block.ErrWouldBlock) }
			return func() { d.before = nil }
		}, 1},
		{"and the slot has gone to another key meanwhile", func(d *ram, m *keyslot.Manager, k testKey) func() {
			use2(t, m, k)
			d.before = func(r block.Request) error { use2(t, m, newKeyOf(t, "other", c)); return block.ErrWouldBlock }
			return func() { d.before = nil }
		}, 1},
		{"the disk may block", func(d *ram, m *keyslot.Manager, k testKey) func() {
			use2(t, m, k)
			d.info.NeverBlocks = false
			d.before = func(r block.Request) error { return block.ErrWouldBlock }
			return func() { d.before = nil }
		}, 1},
		{"writes always block", func(d *ram, m *keyslot.Manager, k testKey) func() {
			use2(t, m, k)
			d.info.NeverBlocks, d.info.WritesBlock = false, true
			return func() {}
		}, 0},
		{"the slot is busy", func(d *ram, m *keyslot.Manager, k testKey) func() {
			s, err := m.Get(ctx, newKeyOf(t, "other", c).Key, false)
			if err != nil {
				t.Fatal(err)
			}
			return s.Put
		}, 0},
		{"the key is in no slot", func(*ram, *keyslot.Manager, testKey) func() { return func() {} }, 0},
	} {
		for _, flags := range []block.Flags{0, block.Scratch, block.Scratch | block.Shared} {
			m := keyslot.New(soft.New("cpu", 1))
			k, disk := newKeyOf(t, "k", c), newRAM(t, 8192)
			disk.log = true
			undo := tt.prepare(disk, m, k)
			dev := keyslot.Over(disk, m)
			plain := random(rand.New(rand.NewPCG(1, 1)), 4096)
			mine := [][]byte{bytes.Clone(plain[:700]), bytes.Clone(plain[700:])}
			r := block.Request{
				Op: block.OpWrite, Flags: flags | block.NoWait, Len: 4096, Data: block.Vec(mine),
				Crypt: blkcrypto.Context{Key: k.Key},
			}
			if err := dev.Do(ctx, r); !errors.Is(err, block.ErrWouldBlock) {
				t.Errorf("%s: %v, want %v", tt.name, err, block.ErrWouldBlock)
			}
			if got := len(disk.take()); got != tt.calls {
				t.Errorf("%s: the disk was asked %d times, want %d", tt.name, got, tt.calls)
			}
			if !bytes.Equal(join(mine), plain) {
				t.Errorf("%s, flags %b: the data has changed", tt.name, flags)
			}
			if !bytes.Equal(disk.mem, make([]byte, len(disk.mem))) {
				t.Errorf("%s: something was written", tt.name)
			}
			undo()
			r.Flags &^= block.NoWait
			if err := dev.Do(ctx, r); err != nil {
				t.Errorf("%s: again: %v", tt.name, err)
			}
			reference(k, blkcrypto.DUN{}, plain)
			if !bytes.Equal(disk.mem[:4096], plain) {
				t.Errorf("%s: the second attempt wrote other bytes than the reference", tt.name)
			}
		}
	}
}

// More than one piece is not begun without leave to wait: to stop in the
// middle would mean to write the first ones twice.
func TestLargeNoWaitWriteIsNotBegun(t *testing.T) {
	m := keyslot.New(soft.New("cpu", 1))
	k, disk := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit)), newRAM(t, 1<<20)
	use2(t, m, k)
	disk.log = true
	const size = maxBounce + 512
	r := block.Request{
		Op: block.OpWrite, Flags: block.NoWait, Len: size, Data: block.Bytes(make([]byte, size)),
		Crypt: blkcrypto.Context{Key: k.Key},
	}
	if err := keyslot.Over(disk, m).Do(ctx, r); !errors.Is(err, block.ErrWouldBlock) {
		t.Errorf("got %v, want %v", err, block.ErrWouldBlock)
	}
	if n := len(disk.take()); n != 0 {
		t.Errorf("the disk was asked %d times, want 0", n)
	}
}

// use2 is use with an engine whose slots cannot be looked into.
func use2(t *testing.T, m *keyslot.Manager, k testKey) {
	t.Helper()
	s, err := m.Get(ctx, k.Key, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Put()
}

// The data cannot be restored without the key: the caller must not be told to
// issue it again, for it would be encrypted twice.
func TestKeyEvictedBetweenEncryptionAndRetry(t *testing.T) {
	m := keyslot.New(soft.New("cpu", 1))
	k, disk := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit)), newRAM(t, 4096)
	use2(t, m, k)
	disk.before = func(block.Request) error {
		if _, err := k.Key.Revoke(ctx); err != nil {
			t.Error(err)
		}
		return block.ErrWouldBlock
	}
	err := keyslot.Over(disk, m).Do(ctx, block.Request{
		Op: block.OpWrite, Flags: block.Scratch | block.NoWait, Len: 4096, Data: block.Bytes(make([]byte, 4096)),
		Crypt: blkcrypto.Context{Key: k.Key},
	})
	if !errors.Is(err, blkcrypto.ErrKeyEvicted) || errors.Is(err, block.ErrWouldBlock) {
		t.Errorf("got %v, want %v", err, blkcrypto.ErrKeyEvicted)
	}
}

// A read is in flight when its key dies: no error is turned into success, and
// the eviction does not wait for the disk.
func TestKeyRevokedDuringARead(t *testing.T) {
	m, e := newManager(t, 1)
	k, disk := newKey(t, "k"), newRAM(t, 4096)
	use(t, m, k)
	disk.before = func(block.Request) error {
		if _, err := k.Key.Revoke(ctx); err != nil {
			t.Error(err)
		}
		return nil
	}
	calls := e.Calls(enginetest.Crypt)
	err := keyslot.Over(disk, m).Do(ctx, block.Request{
		Op: block.OpRead, Len: 512, Data: block.Bytes(make([]byte, 512)), Crypt: blkcrypto.Context{Key: k.Key},
	})
	if !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("got %v, want %v", err, blkcrypto.ErrKeyEvicted)
	}
	if e.Calls(enginetest.Crypt) != calls {
		t.Error("the engine was used after the eviction (blkcrypto.md invariant 25)")
	}
}

// dm-fscrypt.md invariant 52, blkcrypto.md invariant 22: a read that waits at
// the device has no keyslot, and is waited for all the same; an eviction that
// must find the key idle refuses and changes nothing.
func TestEvictionWaitsForAReadAtTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newManager(t, 1)
		k, disk := newKey(t, "k"), newRAM(t, 4096)
		dev := keyslot.Over(disk, m)
		plain := bytes.Repeat([]byte("data"), 128)
		do := func(op block.Op, data []byte) error {
			return dev.Do(ctx, block.Request{Op: op, Len: 512, Data: block.Bytes(data), Crypt: blkcrypto.Context{Key: k.Key}})
		}
		if err := do(block.OpWrite, bytes.Clone(plain)); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		disk.before = func(block.Request) error { <-gate; return nil }
		got := make([]byte, 512)
		read, evicted := make(chan error), make(chan error, 1)
		go func() { read <- do(block.OpRead, got) }()
		synctest.Wait()
		if _, err := k.Key.EvictIdle(ctx); !errors.Is(err, blkcrypto.ErrKeyBusy) || k.Key.Evicted() || k.Key.InUse() != 1 {
			t.Errorf("eviction of a key in use: %v, evicted %v, %d requests; want %v, and all as before",
				err, k.Key.Evicted(), k.Key.InUse(), blkcrypto.ErrKeyBusy)
		}
		go func() { _, err := k.Key.Evict(ctx); evicted <- err }()
		synctest.Wait()
		if len(evicted) > 0 {
			t.Error("the eviction did not wait for the read")
		}
		if err := do(block.OpRead, make([]byte, 512)); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
			t.Errorf("a new read while the eviction waits: %v, want %v", err, blkcrypto.ErrKeyEvicted)
		}
		close(gate)
		if err := <-read; err != nil || !bytes.Equal(got, plain) {
			t.Errorf("the read that was under way: %v, right data %v", err, bytes.Equal(got, plain))
		}
		if err := <-evicted; err != nil {
			t.Error(err)
		}
		if r := resident(m, k); r != nil {
			t.Errorf("the key is in slots %v", r)
		}
	})
}

// blkcrypto.md invariants 4, 8 and 25, section 6: refused before the disk is
// asked, and never passed on without encryption.
func TestRequestsRefusedBeforeTheDisk(t *testing.T) {
	m, _ := newManager(t, 1)
	dead, ok := newKey(t, "dead"), newKey(t, "ok")
	if _, err := dead.Key.Evict(ctx); err != nil {
		t.Fatal(err)
	}
	foreign := newKeyOf(t, "foreign", xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.BySector))
	full := block.Bytes(make([]byte, 4096))
	for _, tt := range []struct {
		name string
		r    block.Request
		want error
	}{
		{"flush", block.Request{Op: block.OpFlush, Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"discard", block.Request{Op: block.OpDiscard, Len: 512, Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"write zeroes", block.Request{Op: block.OpWriteZeroes, Len: 512, Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"read without data", block.Request{Op: block.OpRead, Len: 512, Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"half a unit read", block.Request{Op: block.OpRead, Len: 256, Data: full.Slice(0, 256), Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"half a unit written", block.Request{Op: block.OpWrite, Len: 768, Data: full.Slice(0, 768), Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"less data than its length", block.Request{Op: block.OpWrite, Len: 1024, Data: full.Slice(0, 512), Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"negative length", block.Request{Op: block.OpWrite, Len: -512, Data: full, Crypt: blkcrypto.Context{Key: ok.Key}}, block.ErrInvalid},
		{"read with a dead key", block.Request{Op: block.OpRead, Len: 4096, Data: full, Crypt: blkcrypto.Context{Key: dead.Key}}, blkcrypto.ErrKeyEvicted},
		{"write with a dead key", block.Request{Op: block.OpWrite, Len: 4096, Data: full, Crypt: blkcrypto.Context{Key: dead.Key}}, blkcrypto.ErrKeyEvicted},
		{"read with an unsupported config", block.Request{Op: block.OpRead, Len: 4096, Data: full, Crypt: blkcrypto.Context{Key: foreign.Key}}, block.ErrNoCrypto},
		{"write with an unsupported config", block.Request{Op: block.OpWrite, Flags: block.Scratch, Len: 4096, Data: full, Crypt: blkcrypto.Context{Key: foreign.Key}}, block.ErrNoCrypto},
	} {
		disk := newRAM(t, 8192)
		disk.log = true
		if err := keyslot.Over(disk, m).Do(ctx, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if got := disk.take(); len(got) != 0 {
			t.Errorf("%s: the disk was asked for %v", tt.name, got)
		}
	}
}

func TestRequestsThatNeedNoEngine(t *testing.T) {
	m, e := newManager(t, 1)
	disk := newRAM(t, 8192)
	disk.log = true
	dev := keyslot.Over(disk, m)
	k := newKey(t, "k")
	for _, r := range []block.Request{
		{Op: block.OpRead, Len: 100, Data: block.Bytes(make([]byte, 100))},
		{Op: block.OpWrite, Flags: block.FUA | block.Scratch, Len: 512, Data: block.Bytes(make([]byte, 512))},
		{Op: block.OpFlush}, {Op: block.OpDiscard, Len: 512}, {Op: block.OpWriteZeroes, Flags: block.NoUnmap, Len: 512},
		{Op: block.OpRead, Off: 512, Crypt: blkcrypto.Context{Key: k.Key}},
		{Op: block.OpWrite, Off: 512, Flags: block.FUA, Crypt: blkcrypto.Context{Key: k.Key}},
	} {
		if err := dev.Do(ctx, r); err != nil {
			t.Errorf("%v: %v", r.Op, err)
		}
		got := disk.take()
		if len(got) != 1 || got[0].Op != r.Op || got[0].Flags != r.Flags || got[0].Off != r.Off || got[0].Len != r.Len {
			t.Errorf("%v: the disk got %+v", r.Op, got)
		}
	}
	if n := e.Calls(enginetest.Crypt) + e.Calls(enginetest.Program); n != 0 {
		t.Errorf("the engine was called %d times", n)
	}
	if p := e.Profile(); dev.Info().Crypto != p || dev.Info().Size != 8192 {
		t.Errorf("info %+v", dev.Info())
	}
	under := dev.(block.Stacked).Under()
	if len(under) != 1 || under[0] != (block.Span{Dev: disk, Len: 8192}) {
		t.Errorf("under %+v", under)
	}
}

// blkcrypto.md invariants 7 and 38.
func TestErrorsOfDiskAndEngineAreReported(t *testing.T) {
	for _, size := range []int{4096, maxBounce + 4096} {
		for _, flags := range []block.Flags{0, block.Shared, block.Scratch} {
			m, e := newManager(t, 1)
			k, disk := newKey(t, "k"), newRAM(t, maxBounce+8192)
			dev := keyslot.Over(disk, m)
			read := block.Request{
				Op: block.OpRead, Flags: flags &^ block.Scratch, Len: int64(size),
				Data: block.Bytes(bytes.Repeat([]byte{7}, size)), Crypt: blkcrypto.Context{Key: k.Key},
			}
			disk.before = func(block.Request) error { return block.ErrIO }
			if err := dev.Do(ctx, read); !errors.Is(err, block.ErrIO) {
				t.Errorf("read: %v, want %v", err, block.ErrIO)
			}
			if n := e.Calls(enginetest.Crypt); n != 0 {
				t.Errorf("the engine decrypted %d times after a failed read", n)
			}
			if b, _ := read.Data.Contiguous(); !bytes.Equal(b, bytes.Repeat([]byte{7}, size)) {
				t.Error("the memory has changed after a failed read")
			}
			write := read
			write.Op, write.Flags = block.OpWrite, flags
			if err := dev.Do(ctx, write); !errors.Is(err, block.ErrIO) {
				t.Errorf("write: %v, want %v", err, block.ErrIO)
			}
			disk.before, disk.log = nil, true
			for _, op := range []enginetest.Op{enginetest.Crypt, enginetest.Program} {
				e.Fault = fault(op, always)
				if err := m.Reprogram(); (err != nil) != (op == enginetest.Program) {
					t.Fatal(err)
				}
				for _, r := range []block.Request{read, write} {
					disk.take()
					if err := dev.Do(ctx, r); !errors.Is(err, errFault) {
						t.Errorf("%v with a fault of %v: %v, want %v", r.Op, op, err, errFault)
					}
					if n := len(disk.take()); r.Op == block.OpWrite && n != 0 {
						t.Errorf("%d requests reached the disk although the engine failed (invariant 1)", n)
					}
				}
			}
		}
	}
}

// blkcrypto.md invariant 9: pieces of a large write are whole data units, in
// order, and each is as durable as asked for.
func TestLargeWritesGoDownInPieces(t *testing.T) {
	m := keyslot.New(soft.New("cpu", 1))
	const unit = 65536
	k, disk := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, unit, blkcrypto.ByUnit)), newRAM(t, 1<<20)
	disk.log = true
	dev := keyslot.Over(disk, m)
	r := block.Request{
		Op: block.OpWrite, Flags: block.FUA, Lane: 3, Len: 9 * unit, Off: unit,
		Data: block.Bytes(make([]byte, 9*unit)), Crypt: blkcrypto.Context{Key: k.Key},
	}
	if err := dev.Do(ctx, r); err != nil {
		t.Fatal(err)
	}
	at := r.Off
	for _, down := range disk.take() {
		if down.Off != at || down.Len%unit != 0 || down.Len > maxBounce || down.Flags&block.FUA == 0 || down.Lane != 3 {
			t.Errorf("piece %+v, want one at %d", down, at)
		}
		at += down.Len
	}
	if at != r.Off+r.Len {
		t.Errorf("pieces end at %d, want %d", at, r.Off+r.Len)
	}
	n := 0
	disk.before = func(block.Request) error {
		if n++; n == 2 {
			return block.ErrNoSpace
		}
		return nil
	}
	if err := dev.Do(ctx, r); !errors.Is(err, block.ErrNoSpace) || n != 2 {
		t.Errorf("second piece fails: %v after %d pieces, want %v after 2", err, n, block.ErrNoSpace)
	}
}

// The wait for a slot ends with the context; a request that encrypted in place
// and must restore the data does so nevertheless.
func TestWaitForASlotEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keyslot.New(soft.New("cpu", 1))
		conf := xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit)
		k, disk := newKeyOf(t, "k", conf), newRAM(t, 4096)
		busy, err := m.Get(ctx, newKeyOf(t, "other", conf).Key, false)
		if err != nil {
			t.Fatal(err)
		}
		dev := keyslot.Over(disk, m)
		c, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		plain := bytes.Repeat([]byte{1}, 512)
		r := block.Request{
			Op: block.OpWrite, Flags: block.Scratch, Len: 512, Data: block.Bytes(bytes.Clone(plain)),
			Crypt: blkcrypto.Context{Key: k.Key},
		}
		if err := dev.Do(c, r); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		busy.Put()
		disk.before = func(block.Request) error {
			// Somebody else has the slot for a second.
			s, err := m.Get(ctx, newKeyOf(t, "third", conf).Key, false)
			if err != nil {
				t.Error(err)
			}
			go func() {
				time.Sleep(time.Second)
				s.Put()
			}()
			return block.ErrWouldBlock
		}
		if err := dev.Do(c, r); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, block.ErrWouldBlock) {
			t.Errorf("got %v", err)
		}
		if b, _ := r.Data.Contiguous(); !bytes.Equal(b, plain) {
			t.Error("the data has changed")
		}
	})
}

// attach gives every request a context, as dm-inlinecrypt does.
type attach struct {
	block.Device
	key *blkcrypto.Key
}

func (a attach) Do(ctx context.Context, r block.Request) error {
	r.Crypt = blkcrypto.Context{Key: a.key, DUN: blkcrypto.DUN64(uint64(r.Off) / 512)}
	return a.Device.Do(ctx, r)
}

// blkcrypto.md invariant 37, race R19: two layers that share one slot.
func TestStackedEnginesShareOneSlot(t *testing.T) {
	m := keyslot.New(soft.New("cpu", 1))
	conf := xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.ByUnit)
	low := newKeyOf(t, "low", conf)
	const workers, size = 32, 2048
	disk := newRAM(t, workers*size)
	dev := keyslot.Over(attach{keyslot.Over(disk, m), low.Key}, m)
	var wg sync.WaitGroup
	var done atomic.Int64
	for w := range int64(workers) {
		wg.Go(func() {
			k := newKeyOf(t, fmt.Sprintf("high%d", w%5), conf)
			rng := rand.New(rand.NewPCG(37, uint64(w)))
			for i := range 20 {
				plain := random(rng, size)
				r := block.Request{
					Op: block.OpWrite, Flags: []block.Flags{0, block.Scratch}[i%2], Off: w * size, Len: size,
					Data: block.Bytes(bytes.Clone(plain)), Crypt: blkcrypto.Context{Key: k.Key, DUN: blkcrypto.DUN64(5)},
				}
				if err := dev.Do(ctx, r); err != nil {
					t.Error(err)
					return
				}
				want := bytes.Clone(plain)
				reference(k, blkcrypto.DUN64(5), want)
				reference(low, blkcrypto.DUN64(uint64(w*size/512)), want)
				if !bytes.Equal(disk.mem[w*size:][:size], want) {
					t.Error("the ciphertext of two layers differs from the reference")
				}
				r.Op, r.Flags = block.OpRead, 0
				if err := dev.Do(ctx, r); err != nil {
					t.Error(err)
					return
				}
				if b, _ := r.Data.Contiguous(); !bytes.Equal(b, plain) {
					t.Error("reads back other bytes")
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if done.Load() != workers*20 {
		t.Errorf("%d rounds done, want %d", done.Load(), workers*20)
	}
}

// Requests of many keys on few slots, with keys evicted from the engine and
// the engine reset under them: every byte is right (blkcrypto.md invariants 2,
// 5 and 20).
func TestRequestsUnderEvictionAndReset(t *testing.T) {
	seed, rounds := rand.Uint64(), 100
	if race.Enabled {
		rounds = 30
	}
	for _, n := range slotNums {
		e := soft.New("cpu", n)
		m := keyslot.New(e)
		conf := xtsConfig(blkcrypto.AES256XTS, 512, blkcrypto.BySector)
		var keys []testKey
		for i := range 6 {
			keys = append(keys, newKeyOf(t, fmt.Sprintf("k%d", i), conf))
		}
		const workers, size = 4, 4096
		disk := newRAM(t, workers*size)
		dev := keyslot.Over(disk, m)
		var workersDone, all sync.WaitGroup
		stop := make(chan struct{})
		for w := range int64(workers) {
			workersDone.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(w)))
				for range rounds {
					k, dun := keys[rng.IntN(len(keys))], blkcrypto.DUN64(rng.Uint64())
					plain := random(rng, size)
					mine := cut(rng, plain, 700)
					r := block.Request{
						Op: block.OpWrite, Flags: []block.Flags{0, block.Scratch, block.Shared}[rng.IntN(3)],
						Off: w * size, Len: size, Data: block.Vec(mine), Crypt: blkcrypto.Context{Key: k.Key, DUN: dun},
					}
					if err := dev.Do(ctx, r); err != nil {
						t.Errorf("seed %#x: %v", seed, err)
					}
					want := bytes.Clone(plain)
					reference(k, dun, want)
					if !bytes.Equal(disk.mem[w*size:][:size], want) {
						t.Errorf("seed %#x: wrong ciphertext", seed)
					}
					r.Op, r.Flags = block.OpRead, r.Flags&block.Shared
					if err := dev.Do(ctx, r); err != nil || !bytes.Equal(join(mine), plain) {
						t.Errorf("seed %#x: reads back other bytes, %v", seed, err)
					}
				}
			})
		}
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 99))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if rng.IntN(2) == 0 {
					if err := m.Evict(ctx, keys[rng.IntN(len(keys))].Key); err != nil {
						t.Error(err)
					}
				} else if err := m.Reset(func() {
					for i := range n {
						if err := e.Evict(i); err != nil {
							t.Error(err)
						}
					}
				}); err != nil {
					t.Error(err)
				}
			}
		})
		workersDone.Wait()
		close(stop)
		all.Wait()
	}
}

func overRequests(k testKey, size int) map[string]block.Request {
	one, two := make([]byte, size), [][]byte{make([]byte, size/2-64), make([]byte, size/2+64)}
	c := blkcrypto.Context{Key: k.Key}
	n := int64(size)
	return map[string]block.Request{
		"read":            {Op: block.OpRead, Flags: block.NoWait, Len: n, Data: block.Bytes(one), Crypt: c},
		"read/shared":     {Op: block.OpRead, Flags: block.NoWait | block.Shared, Len: n, Data: block.Bytes(one), Crypt: c},
		"read/scattered":  {Op: block.OpRead, Flags: block.NoWait, Len: n, Data: block.Vec(two), Crypt: c},
		"write":           {Op: block.OpWrite, Flags: block.NoWait, Len: n, Data: block.Bytes(one), Crypt: c},
		"write/scratch":   {Op: block.OpWrite, Flags: block.NoWait | block.Scratch, Len: n, Data: block.Bytes(one), Crypt: c},
		"write/scattered": {Op: block.OpWrite, Flags: block.NoWait, Len: n, Data: block.Vec(two), Crypt: c},
		"plain":           {Op: block.OpWrite, Flags: block.NoWait, Len: n, Data: block.Bytes(one)},
	}
}

func TestOverDoesNotAllocate(t *testing.T) {
	for _, numbering := range []blkcrypto.Numbering{blkcrypto.ByUnit, blkcrypto.BySector} {
		m := keyslot.New(soft.New("cpu", 1))
		k := newKeyOf(t, "k", xtsConfig(blkcrypto.AES256XTS, 4096, numbering))
		use2(t, m, k)
		dev := keyslot.Over(newRAM(t, 1<<20), m)
		for name, r := range overRequests(k, 64<<10) {
			n := testing.AllocsPerRun(50, func() {
				if err := dev.Do(ctx, r); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 && !race.Enabled { // under the race detector sync.Pool forgets on purpose
				t.Errorf("%s: %v allocations, want 0", name, n)
			}
		}
	}
}

func BenchmarkOver(b *testing.B) {
	for _, size := range []int{4096, 256 << 10} {
		m := keyslot.New(soft.New("cpu", 32))
		k := newKeyOf(b, "k", xtsConfig(blkcrypto.AES256XTS, 4096, blkcrypto.ByUnit))
		s, err := m.Get(ctx, k.Key, false)
		if err != nil {
			b.Fatal(err)
		}
		s.Put()
		dev := keyslot.Over(newRAM(b, 1<<20), m)
		for name, r := range overRequests(k, size) {
			b.Run(fmt.Sprintf("%dK/%s", size>>10, name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := dev.Do(ctx, r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// meddling is an engine before each request of which others write to memory.
type meddling struct {
	keyslot.Engine
	meddle func()
}

func (m meddling) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	m.meddle()
	return m.Engine.Crypt(slot, d, dun, dst, src)
}

// A cipher that reads its source twice gets memory that nobody else can change;
// one that reads it once needs no copy.
func TestWideBlockCiphersWorkOnACopyOfSharedMemory(t *testing.T) {
	for _, mode := range []blkcrypto.Mode{blkcrypto.Adiantum, blkcrypto.AES256XTS} {
		for _, lends := range []bool{false, true} {
			c := blkcrypto.Config{Mode: mode, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}
			k := newKeyOf(t, "k", c)
			data := make([]byte, 3*4096)
			m := keyslot.New(meddling{soft.New("cpu", 1), func() { data[5] = 1 }})
			disk := newRAM(t, len(data))
			var dev block.Device = disk
			if lends {
				mem, err := backend.Open(ctx, "mem:12K", backend.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer mem.Close()
				dev = mem
			}
			over := keyslot.Over(dev, m)
			r := block.Request{Op: block.OpWrite, Flags: block.Shared, Len: int64(len(data)), Data: block.Bytes(data), Crypt: blkcrypto.Context{Key: k.Key}}
			if err := over.Do(ctx, r); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(data))
			r = block.Request{Op: block.OpRead, Len: int64(len(data)), Data: block.Bytes(got), Crypt: r.Crypt}
			if err := over.Do(ctx, r); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, len(data))
			if want[5] = 1; mode.WideBlock() {
				want[5] = 0 // as it was when the request came
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%v, medium lends %v: byte 5 is %d, want %d", mode, lends, got[5], want[5])
			}
		}
	}
}
