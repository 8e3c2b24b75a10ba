package dm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/test/naive"
)

var xts4k = blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}

// rawKey is the bytes that dmtest.NewKey makes.
func rawKey(c blkcrypto.Config, seed byte) []byte {
	b := make([]byte, c.Mode.KeySize())
	for i := range b {
		b[i] = seed + byte(i*7)
	}
	return b
}

// encrypted returns what the medium must hold for data written with a context,
// by the reference that shares no code with the product.
func encrypted(key []byte, c blkcrypto.Config, dun blkcrypto.DUN, data []byte) []byte {
	out := bytes.Clone(data)
	for i := 0; i < len(out); i += c.DataUnitSize {
		var iv [16]byte
		dun.PutIV(iv[:])
		naive.EncryptIV(key, iv, out[i:i+c.DataUnitSize])
		dun = c.DUN(dun, int64(c.DataUnitSize))
	}
	return out
}

//go:norace
func pattern(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

// TestContextOverEveryStack: the same request gives the same bytes on the
// medium whatever serves it, split wherever the tables split it (invariants 1
// to 4; blkcrypto.md 1, 2, 3, 5, 6, 9).
func TestContextOverEveryStack(t *testing.T) {
	const size = 1 << 20
	stacks := []struct {
		name  string
		build func(w *dmtest.World) (top *dm.Handle, medium func() []byte)
	}{
		{"leaf with an engine", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			d := w.Disk("a", size, 2)
			return w.Handle("a"), d.Bytes
		}},
		{"leaf without", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			d := w.Disk("a", size, 0)
			return w.Handle("a"), d.Bytes
		}},
		{"memory that lends its bytes to the engine", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			dev, err := backend.Open(t.Context(), "mem:1M", backend.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := dev.(block.Memory); !ok {
				t.Fatal("mem: does not lend its bytes")
			}
			w.Leaf("a", dev, newEngine(2))
			return w.Handle("a"), func() []byte { return dmtest.Read(t, w.Handle("a"), 0, size) }
		}},
		{"three linears over an engine", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			d := w.Disk("a", size, 1)
			w.Map("l1", "0 2048 linear a 0")
			w.Map("l2", "0 2048 linear l1 0")
			return w.Map("l3", "0 2048 linear l2 0"), d.Bytes
		}},
		{"rows cut inside data units, engine and none", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			a, b := w.Disk("a", size, 2), w.Disk("b", size, 0)
			top := w.Map("d", "0 3 linear a 0\n3 10 linear b 3\n13 1 linear a 13\n14 1000 linear a 14\n1014 1034 linear b 1014")
			return top, func() []byte {
				m, n := a.Bytes(), b.Bytes()
				copy(m[3*512:13*512], n[3*512:])
				copy(m[1014*512:], n[1014*512:])
				return m
			}
		}},
		{"stripes of whole units", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			a, b := w.Disk("a", size/2, 2), w.Disk("b", size/2, 2)
			return w.Map("d", "0 2048 striped 2 16 a 0 b 0"), unstripe(a, b, 16*512)
		}},
		{"stripes that cut units", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			a, b := w.Disk("a", size/2, 2), w.Disk("b", size/2, 2)
			return w.Map("d", "0 2048 striped 2 1 a 0 b 0"), unstripe(a, b, 512)
		}},
		{"one stripe with an engine", func(w *dmtest.World) (*dm.Handle, func() []byte) {
			a, b := w.Disk("a", size/2, 2), w.Disk("b", size/2, 0)
			return w.Map("d", "0 2048 striped 2 8 a 0 b 0"), unstripe(a, b, 4096)
		}},
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, unit := range []int{512, 4096} {
		for _, st := range stacks {
			t.Run(fmt.Sprintf("%s/%d", st.name, unit), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, uint64(unit)))
				w := dmtest.New(t)
				top, medium := st.build(w)
				c := xts4k
				c.DataUnitSize, c.DUNBytes = unit, 16
				k := dmtest.NewKey(t, "k", c, 9)
				want := medium()
				plain := bytes.Clone(want)
				duns := map[int64]blkcrypto.Context{} // what each unit-sized run was written with
				for range 60 {
					n := int64(unit) * (1 + r.Int64N(40))
					off := r.Int64N((size-n)/512) * 512
					ctx := blkcrypto.Context{Key: k, DUN: blkcrypto.DUN{^uint64(0) - r.Uint64N(20), r.Uint64N(3)}}
					data := pattern(r, int(n))
					flags := block.Flags(0)
					if r.IntN(2) == 0 {
						flags = block.Scratch
					}
					sent := bytes.Clone(data)
					err := top.Do(t.Context(), block.Request{
						Op: block.OpWrite, Flags: flags, Off: off, Len: n, Data: scatter(r, sent), Crypt: ctx,
					})
					if err != nil {
						t.Fatalf("write of %d at %d: %v", n, off, err)
					}
					if flags == 0 && !bytes.Equal(sent, data) {
						t.Fatal("the source of a write was changed")
					}
					copy(want[off:], encrypted(rawKey(c, 9), c, ctx.DUN, data))
					copy(plain[off:], data)
					clear(duns)
					duns[off] = ctx
					got := make([]byte, n)
					if err := top.Do(t.Context(), block.Request{
						Op: block.OpRead, Off: off, Len: n, Data: scatter(r, got), Crypt: ctx,
					}); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, data) {
						t.Fatalf("read back differs at %d", off)
					}
				}
				if got := medium(); !bytes.Equal(got, want) {
					i := 0
					for got[i] == want[i] {
						i++
					}
					t.Errorf("the medium differs from the reference at byte %d", i)
				}
			})
		}
	}
}

func unstripe(a, b *dmtest.RAM, chunk int) func() []byte {
	return func() []byte {
		x, y := a.Bytes(), b.Bytes()
		var m []byte
		for i := 0; i < len(x); i += chunk {
			m = append(append(m, x[i:i+chunk]...), y[i:i+chunk]...)
		}
		return m
	}
}

// scatter cuts b into slices of odd lengths.
func scatter(r *rand.Rand, b []byte) block.Segments {
	if r.IntN(3) == 0 {
		return block.Bytes(b)
	}
	var v [][]byte
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(9000))
		v = append(v, b[:n])
		b = b[n:]
	}
	return block.Vec(v)
}

// TestProfileIsWhatEngineServes: a row that passes no contexts, a leaf
// without an engine, a boundary inside a unit each take their part away, and
// a change beneath is seen above at once (blkcrypto.md 28, 31, 33).
func TestProfile(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("e", 1<<20, 2)
	w.Disk("n", 1<<20, 0)
	c512, c4k := xts4k, xts4k
	c512.DataUnitSize = 512
	for _, c := range []struct {
		table     string
		u512, u4k bool
	}{
		{"0 1024 linear e 0", true, true},
		{"0 1024 linear n 0", false, false},
		{"0 8 linear e 0\n8 8 linear e 8", true, true},
		{"0 4 linear e 0\n4 12 linear e 8", true, false},
		{"0 8 linear e 0\n8 8 linear n 8", false, false},
		{"0 8 linear e 0\n8 8 zero", false, false},
		{"0 8 linear e 0\n8 8 error", false, false},
		{"0 1024 striped 2 8 e 0 e 512", true, true},
		{"0 1024 striped 2 4 e 0 e 512", true, false},
		{"0 1024 striped 1 4 e 0", true, true},
		{"0 1024 striped 2 8 e 0 n 0", false, false},
	} {
		dev := w.Map("d", c.table)
		p := dev.Info().Crypto
		if p.Supports(c512) != c.u512 || p.Supports(c4k) != c.u4k {
			t.Errorf("%q: 512 %v, 4096 %v; want %v, %v", c.table, p.Supports(c512), p.Supports(c4k), c.u512, c.u4k)
		}
		dev.Close()
	}

	mid := w.Map("mid", "0 1024 linear n 0")
	top := w.Map("top", "0 1024 linear mid 0")
	if !top.Info().Crypto.Empty() {
		t.Error("profile without an engine")
	}
	n := top.Event()
	w.Reload("mid", "0 1024 linear e 0")
	if p := top.Info().Crypto; !p.Supports(c4k) {
		t.Error("growth beneath is not seen above")
	}
	if top.Event() == n {
		t.Error("growth is no event above")
	}
	w.Reload("mid", "0 1024 linear n 0")
	if !top.Info().Crypto.Empty() {
		t.Error("shrinking beneath is not seen above")
	}
	_ = mid
}

// TestContextsThatAreRefused at the entry, before any device sees them
// (blkcrypto.md 4, 8, 25).
func TestContextsThatAreRefused(t *testing.T) {
	w := dmtest.New(t)
	disk := w.Disk("a", 1<<20, 2)
	dev := w.Map("d", "0 2048 linear a 0")
	c := xts4k
	c.DUNBytes = 4
	k := dmtest.NewKey(t, "k", c, 1)
	good := block.Request{Op: block.OpWrite, Len: 8192, Data: block.Bytes(make([]byte, 8192)), Crypt: blkcrypto.Context{Key: k}}
	for name, change := range map[string]func(*block.Request){
		"half a unit":        func(r *block.Request) { r.Len = 4096 + 512; r.Data = block.Bytes(make([]byte, r.Len)) },
		"DUN beyond 4 bytes": func(r *block.Request) { r.Crypt.DUN[0] = 1<<32 - 1 },
		"DUN in limb 1":      func(r *block.Request) { r.Crypt.DUN[1] = 1 },
		"discard":            func(r *block.Request) { r.Op = block.OpDiscard },
		"write zeroes":       func(r *block.Request) { r.Op = block.OpWriteZeroes },
		"flush":              func(r *block.Request) { r.Op = block.OpFlush },
	} {
		r := good
		change(&r)
		if err := dev.Do(t.Context(), r); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if n := disk.Count(block.OpWrite) + disk.Count(block.OpDiscard) + disk.Count(block.OpFlush); n != 0 {
		t.Errorf("%d refused requests reached the disk", n)
	}
	good.Crypt.DUN[0] = 1<<32 - 2 // the last two that fit
	if err := dev.Do(t.Context(), good); err != nil {
		t.Errorf("the last DUN: %v", err)
	}
	if receipt, err := k.Evict(t.Context()); err != nil || len(receipt.Places) != 1 {
		t.Errorf("evict: %+v, %v", receipt, err)
	}
	if err := dev.Do(t.Context(), good); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("an evicted key: %v", err)
	}
}

const metaKey = "00112233445566778899aabbccddeeff112233445566778899aabbccddeeff0022334455667788990011aabbccddeeff33445566778899001122aabbccddeeff"

// TestDefaultKey: what is marked keeps its own encryption, all else gets the
// default key, each block exactly once (invariant 68); a context without the
// mark is encrypted and then encrypted again, as dm-crypt over it would.
func TestDefaultKey(t *testing.T) {
	meta, _ := hex.DecodeString(metaKey)
	for _, slots := range []int{0, 1} {
		t.Run(fmt.Sprintf("slots %d", slots), func(t *testing.T) {
			w := dmtest.New(t)
			disk := w.Disk("a", 1<<20, slots)
			w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 a 0 2 sector_size:4096 iv_large_sectors")
			top := w.Map("top", "0 2048 linear d 0")
			k := dmtest.NewKey(t, "file", xts4k, 5)
			data := pattern(rand.New(rand.NewPCG(1, 2)), 8192)
			own := blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(77)}
			do := func(off int64, flags block.Flags, c blkcrypto.Context) []byte {
				t.Helper()
				for _, op := range []block.Op{block.OpWrite, block.OpRead} {
					buf := bytes.Clone(data)
					if op == block.OpRead {
						clear(buf)
					}
					r := block.Request{Op: op, Flags: flags, Off: off, Len: 8192, Data: block.Bytes(buf), Crypt: c}
					if err := top.Do(t.Context(), r); err != nil {
						t.Fatal(err)
					}
					if op == block.OpRead && !bytes.Equal(buf, data) {
						t.Error("does not read back")
					}
				}
				return disk.Bytes()[off : off+8192]
			}
			once := encrypted(rawKey(xts4k, 5), xts4k, own.DUN, data)
			if !bytes.Equal(do(0, 0, blkcrypto.Context{}), encrypted(meta, xts4k, blkcrypto.DUN64(0), data)) {
				t.Error("plain data does not have the default key's bytes")
			}
			if !bytes.Equal(do(8192, block.SkipDefaultKey, own), once) {
				t.Error("a marked context does not have its own key's bytes")
			}
			if !bytes.Equal(do(16384, block.SkipDefaultKey, blkcrypto.Context{}), data) {
				t.Error("marked data without a context was changed")
			}
			if !bytes.Equal(do(24576, 0, own), encrypted(meta, xts4k, blkcrypto.DUN64(6), once)) {
				t.Error("an unmarked context is not encrypted under the default key")
			}
			// Zeroes are encrypted zeroes, and read as zeroes.
			if err := top.Do(t.Context(), block.Request{Op: block.OpWriteZeroes, Len: 8192}); err != nil {
				t.Fatal(err)
			}
			if got := dmtest.Read(t, top, 0, 8192); !bytes.Equal(got, make([]byte, 8192)) {
				t.Error("zeroes do not read back")
			}
			if bytes.Equal(disk.Bytes()[:8192], make([]byte, 8192)) {
				t.Error("zeroes lie on the medium in plain")
			}
			if err := top.Do(t.Context(), block.Request{Op: block.OpDiscard, Len: 8192}); !errors.Is(err, block.ErrNotSupported) {
				t.Errorf("discard without allow_discards: %v", err)
			}
		})
	}
}

// TestMarkEndsAtATargetThatEncrypts: what crypt sends down is its own data, and
// default-key beneath it encrypts that again, whoever marked the request
// above; the medium holds what dm-crypt over dm-default-key would write.
func TestMarkEndsAtATargetThatEncrypts(t *testing.T) {
	const other = "ff112233445566778899aabbccddeeff112233445566778899aabbccddeeff0022334455667788990011aabbccddeeff33445566778899001122aabbccddeeff"
	meta, _ := hex.DecodeString(metaKey)
	upper, _ := hex.DecodeString(other)
	for _, slots := range []int{0, 2} {
		w := dmtest.New(t)
		disk := w.Disk("a", 1<<20, slots)
		w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 a 0 2 sector_size:4096 iv_large_sectors")
		top := w.Map("c", "0 2048 crypt aes-xts-plain64 "+other+" 0 d 0 2 sector_size:4096 iv_large_sectors")
		data := pattern(rand.New(rand.NewPCG(1, 2)), 8192)
		want := encrypted(meta, xts4k, blkcrypto.DUN64(1), encrypted(upper, xts4k, blkcrypto.DUN64(1), data))
		for _, flags := range []block.Flags{0, block.SkipDefaultKey} {
			r := block.Request{Op: block.OpWrite, Flags: flags, Off: 4096, Len: 8192, Data: block.Bytes(data)}
			if err := top.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(disk.Bytes()[4096:12288], want) {
				t.Errorf("slots %d, flags %b: not encrypted once by each", slots, flags)
			}
		}
	}
}

// TestTableTakesItsKeyAlong: tables of one key share its slot, and a table that goes takes its key along
// (invariants 29, 55 and 58).
func TestTableTakesItsKeyAlong(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 4)
	line := "0 1024 inlinecrypt aes-xts-plain64 " + metaKey + " 0 a 0"
	dev := w.Map("d", line)
	w.Map("e", line)
	engine := w.Device("a").Engine()
	dmtest.Write(t, dev, 0, make([]byte, 512))
	dmtest.Write(t, w.Handle("e"), 0, make([]byte, 512))
	if n := engine.Stats().Resident; n != 1 {
		t.Errorf("%d slots for one key of two tables", n)
	}
	w.Reload("d", "0 1024 linear a 0")
	if n := engine.Stats().Resident; n != 1 {
		t.Errorf("the key left with the first of two tables: %d slots", n)
	}
	w.Reload("e", "0 1024 linear a 0")
	if n := engine.Stats().Resident; n != 0 {
		t.Errorf("%d keys left after the last table that used them", n)
	}
}

// TestEvictionPassesThrough a mapped device to every engine beneath and to
// the fallback; the key stays usable (dm-fscrypt.md, invariants 51 and 57).
func TestEvictionPassesThrough(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 2)
	w.Disk("b", 1<<20, 2)
	w.Disk("n", 1<<20, 0)
	w.Map("low", "0 64 linear b 0")
	top := w.Map("top", "0 64 linear a 0\n64 64 linear low 0\n128 64 linear n 0")
	k := dmtest.NewKey(t, "k", xts4k, 3)
	r := block.Request{Op: block.OpWrite, Len: 192 * 512, Data: block.Bytes(make([]byte, 192*512)), Crypt: blkcrypto.Context{Key: k}}
	managers := []*keyslot.Manager{w.Device("a").Engine(), w.Device("b").Engine(), w.Fallback()}
	resident := func() (n int) {
		for _, m := range managers {
			n += m.Stats().Resident
		}
		return n
	}
	for range 2 {
		if err := top.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if n := resident(); n != 3 {
			t.Fatalf("the key is in %d places, want 3", n)
		}
		if err := top.Keyslots().Evict(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if n := resident(); n != 0 {
			t.Fatalf("the key is still in %d places", n)
		}
	}
	if p := top.Keyslots().Profile(); p != top.Info().Crypto {
		t.Error("the passthrough manager advertises another profile than the device")
	}
}

// TestReloadUnderLoad: tables with an engine, without one, with both in rows
// that cut data units, and with stripes take turns while verified I/O with
// contexts runs. No error, no wrong byte, and the media hold what the
// reference computes (invariants 36 to 41, seed problem 1 of the mails).
func TestReloadUnderLoad(t *testing.T) {
	const size, workers, swaps = 256 << 10, 4, 120
	w := dmtest.NewWithFallback(t, 2)
	// Both leaves are windows on one medium, so that tables can alternate.
	medium := dmtest.NewRAM(size)
	w.Leaf("plain", medium, nil)
	w.Leaf("engine", shared{medium}, newEngine(1))
	tables := []string{
		"0 512 linear engine 0",
		"0 512 linear plain 0",
		"0 131 linear engine 0\n131 3 linear plain 131\n134 378 linear engine 134",
		"0 256 linear plain 0\n256 256 linear engine 256",
	}
	low := w.Map("low", tables[0])
	top := w.Map("top", "0 512 linear low 0")
	keys := make([]*blkcrypto.Key, workers)
	for i := range keys {
		keys[i] = dmtest.NewKey(t, fmt.Sprint("k", i), xts4k, byte(i))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var ios atomic.Int64
	want := make([]byte, size)
	region := int64(size / workers)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			base := int64(i) * region
			mine := make([]byte, region) // plaintext of the region
			dun := func(off int64) blkcrypto.Context {
				return blkcrypto.Context{Key: keys[i], DUN: blkcrypto.DUN64(1000 + uint64(off)/4096)}
			}
			write := func(off int64, data []byte) error {
				buf := bytes.Clone(data)
				copy(mine[off:], data)
				return top.Do(context.Background(), block.Request{
					Op: block.OpWrite, Flags: block.Scratch, Lane: uint16(i), Off: base + off, Len: int64(len(buf)), Data: block.Bytes(buf), Crypt: dun(off),
				})
			}
			if err := write(0, mine); err != nil {
				t.Error(err)
				return
			}
			for running := true; running; {
				select {
				case <-stop:
					running = false
				default:
				}
				n := 4096 * (1 + r.Int64N(4))
				off := r.Int64N((region-n)/4096+1) * 4096
				if r.IntN(2) == 0 {
					if err := write(off, pattern(r, int(n))); err != nil {
						t.Error(err)
						return
					}
				} else {
					got := make([]byte, n)
					err := top.Do(context.Background(), block.Request{
						Op: block.OpRead, Lane: uint16(i), Off: base + off, Len: n, Data: block.Bytes(got), Crypt: dun(off),
					})
					if err != nil || !bytes.Equal(got, mine[off:off+n]) {
						t.Errorf("worker %d, read at %d: %v, equal %v", i, off, err, bytes.Equal(got, mine[off:off+n]))
						return
					}
				}
				ios.Add(1)
			}
			copy(want[base:], encrypted(rawKey(xts4k, byte(i)), xts4k, blkcrypto.DUN64(1000), mine))
		})
	}
	for i := range swaps {
		if i%2 == 0 {
			w.Reload("low", tables[i/2%len(tables)])
		} else {
			w.Reload("top", []string{"0 512 linear low 0", "0 100 linear low 0\n100 412 linear low 100"}[i/2%2])
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests, %d reloads", ios.Load(), swaps)
	if got := medium.Bytes(); !bytes.Equal(got, want) {
		t.Error("the medium is not what the reference computes")
	}
	_ = low
}

// shared is a second owner of a disk that closes with the first.
type shared struct{ *dmtest.RAM }

func (shared) Close() error { return nil }

// TestEmulatedFUALeavesDataForAnotherTry: the write has been done, in place
// where it may, and the flush after it would block.
func TestEmulatedFUALeavesDataForAnotherTry(t *testing.T) {
	w := dmtest.New(t)
	disk := dmtest.NewRAM(1 << 20)
	disk.SetInfo(func(i *block.Info) { i.FUA, i.VolatileCache = block.None, true })
	disk.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpFlush && r.NoWait() {
			return block.ErrWouldBlock
		}
		return nil
	}
	w.Leaf("a", disk, newEngine(2))
	dev := w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 a 0 2 sector_size:4096 iv_large_sectors")
	dmtest.Write(t, dev, 0, make([]byte, 4096)) // the key is in its slot from then on
	data := pattern(rand.New(rand.NewPCG(3, 4)), 4096)
	sent := bytes.Clone(data)
	r := block.Request{Op: block.OpWrite, Flags: block.FUA | block.NoWait | block.Scratch, Len: 4096, Data: block.Bytes(sent)}
	if err := dev.Do(t.Context(), r); err != block.ErrWouldBlock {
		t.Fatalf("%v, want ErrWouldBlock", err)
	}
	if !bytes.Equal(sent, data) {
		t.Fatal("the data of a write that is to be issued again was changed")
	}
	r.Flags &^= block.NoWait
	if err := dev.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if got := dmtest.Read(t, dev, 0, 4096); !bytes.Equal(got, data) {
		t.Error("the second try wrote something else")
	}
}
