package backend

import (
	"bytes"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/blocktest"
)

func openTest(t testing.TB, uri string, o Options) block.Device {
	t.Helper()
	dev, err := Open(context.Background(), uri, o)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func TestMemConforms(t *testing.T) {
	for _, uri := range []string{"mem:64M", "mem:1000K", "mem:4195840"} { // the last ends with half a page
		t.Run(uri, func(t *testing.T) {
			blocktest.Device(t, func(t *testing.T) block.Device { return openTest(t, uri, Options{}) }, blocktest.Options{
				NoAllocs:     true,
				OpenReadOnly: func(t *testing.T) block.Device { return openTest(t, uri, Options{ReadOnly: true}) },
			})
		})
	}
}

func do(dev block.Device, op block.Op, f block.Flags, off int64, data []byte) error {
	return dev.Do(context.Background(), block.Request{Op: op, Flags: f, Off: off, Len: int64(len(data)), Data: block.Bytes(data)})
}

func doRange(dev block.Device, op block.Op, f block.Flags, off, n int64) error {
	return dev.Do(context.Background(), block.Request{Op: op, Flags: f, Off: off, Len: n})
}

func holes(t *testing.T, dev block.Device) (total int64) {
	t.Helper()
	for e, err := range block.Extents(context.Background(), dev, 0, dev.Info().Size) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Hole {
			total += e.Len
		}
	}
	return total
}

// resident is the memory that the device really takes, as the kernel counts.
func resident(t *testing.T, m *mem) int64 {
	t.Helper()
	vec := make([]byte, len(m.data)/4096)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, addr(m.data), uintptr(len(m.data)), addr(vec)); e != 0 {
		t.Fatal(e)
	}
	return 4096 * int64(bytes.Count(vec, []byte{1}))
}

func TestMemTakesMemoryOnlyForWhatIsWritten(t *testing.T) {
	dev := openTest(t, "mem:1G", Options{})
	defer dev.Close()
	m := dev.(*mem)
	if got := holes(t, dev); got != 1<<30 {
		t.Errorf("a new device has %d bytes of holes, want all", got)
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < 256<<20; off += 1 << 20 {
		if err := do(dev, block.OpRead, 0, off, buf); err != nil {
			t.Fatal(err)
		}
	}
	if got := resident(t, m); got != 0 {
		t.Errorf("reading holes took %d bytes of memory", got)
	}
	for i := range buf {
		buf[i] = 1
	}
	if err := do(dev, block.OpWrite, 0, 10<<20, buf); err != nil {
		t.Fatal(err)
	}
	if got := holes(t, dev); got != 1<<30-1<<20 {
		t.Errorf("%d bytes of holes beside 1 MiB of data", got)
	}
	for _, op := range []block.Op{block.OpDiscard, block.OpWriteZeroes} {
		if err := do(dev, block.OpWrite, 0, 10<<20, buf); err != nil {
			t.Fatal(err)
		}
		// Half a chunk is left on either side.
		if err := doRange(dev, op, 0, 10<<20+32<<10, 1<<20-64<<10); err != nil {
			t.Fatal(err)
		}
		if got := resident(t, m); got != 128<<10 {
			t.Errorf("%v left %d bytes of memory, want two chunks", op, got)
		}
	}
	if err := doRange(dev, block.OpWriteZeroes, block.NoUnmap, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	for e := range dev.(block.Sparse).Extents(context.Background(), 0, 1<<20) {
		if e.Hole {
			t.Errorf("zeroes that keep their space left the hole %+v", e)
		}
	}
}

// TestMemDiscardsBesideReadsAndWrites looks for the one thing that must never
// happen: bytes that were read as gone, and come back.
func TestMemDiscardsBesideReadsAndWrites(t *testing.T) {
	dev := openTest(t, "mem:1M", Options{})
	defer dev.Close()
	const block0, block1 = 0, 32 << 10 // of one chunk
	stop := make(chan struct{})
	var wg sync.WaitGroup
	forever := func(f func(rnd *rand.Rand)) {
		seed := rand.Uint64()
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-stop:
					return
				default:
					f(rnd)
				}
			}
		})
	}
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	// Others write, read and discard the same chunk and its neighbours all the
	// time, and never write into the first block.
	other := bytes.Repeat([]byte{0xee}, 4096)
	forever(func(rnd *rand.Rand) { must(do(dev, block.OpWrite, 0, block1, other)); runtime.Gosched() })
	forever(func(rnd *rand.Rand) { must(doRange(dev, block.OpDiscard, 0, 0, 128<<10)) })
	forever(func(rnd *rand.Rand) { must(do(dev, block.OpRead, 0, 0, make([]byte, 128<<10))) })
	buf, zero := make([]byte, 4096), make([]byte, 4096)
	for i := 0; i < 5000 && !t.Failed(); i++ {
		for j := range buf {
			buf[j] = byte(i) | 1
		}
		must(do(dev, block.OpWrite, 0, block0, buf))
		must(doRange(dev, block.OpWriteZeroes, 0, 0, 64<<10))
		for range 3 { // whatever the others do, these bytes are zero from here on
			must(do(dev, block.OpRead, 0, block0, buf))
			if !bytes.Equal(buf, zero) {
				t.Errorf("round %d: %x after it was zeroed", i, buf[:4])
			}
		}
	}
	close(stop)
	wg.Wait()
	m := dev.(*mem)
	for i := range m.chunks {
		if at := m.data[i<<m.shift:][:1<<m.shift]; !allocated(&m.chunks[i]) && len(bytes.Trim(at, "\x00")) > 0 {
			t.Errorf("chunk %d is a hole whose memory is not zero", i)
		}
		if n := m.chunks[i].Load() & memWriters; n != 0 {
			t.Errorf("chunk %d has %d writers left", i, n)
		}
	}
}

// The state between the claim of a chunk and its release, by hand.
func TestMemChunkBeingReleasedReadsAsZeroes(t *testing.T) {
	dev := openTest(t, "mem:1M", Options{})
	defer dev.Close()
	m := dev.(*mem)
	buf := bytes.Repeat([]byte{1}, 64<<10)
	for _, state := range []uint32{memReleasing, memReleasing | memAllocated, memReleasing | memAllocated | 1} {
		m.chunks[0].Store(memAllocated)
		if err := do(dev, block.OpWrite, 0, 0, buf); err != nil {
			t.Fatal(err)
		}
		m.chunks[0].Store(state)
		got := bytes.Repeat([]byte{2}, 64<<10)
		if err := do(dev, block.OpRead, 0, 0, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, make([]byte, 64<<10)) {
			t.Errorf("state %#x reads as %x", state, got[:4])
		}
	}
	m.chunks[0].Store(memAllocated)
}

func TestMemDiscardBesideAWriterKeepsTheChunk(t *testing.T) {
	dev := openTest(t, "mem:1M", Options{})
	defer dev.Close()
	m := dev.(*mem)
	if err := do(dev, block.OpWrite, 0, 0, bytes.Repeat([]byte{1}, 128<<10)); err != nil {
		t.Fatal(err)
	}
	enterChunk(&m.chunks[1])
	if err := doRange(dev, block.OpDiscard, 0, 0, 128<<10); err != nil {
		t.Fatal(err)
	}
	m.data[64<<10] = 0xee // what the writer does late
	m.chunks[1].Add(^uint32(0))
	got := make([]byte, 512)
	if err := do(dev, block.OpRead, 0, 64<<10, got); err != nil || got[0] != 0xee {
		t.Errorf("the byte of a writer inside is hidden, and would come back later: %x, %v", got[0], err)
	}
	if got := holes(t, dev); got != 1<<20-64<<10 {
		t.Errorf("%d bytes of holes, want all but the writer's chunk", got)
	}
}

func TestMemCloseWaitsForRequestsInProgress(t *testing.T) {
	for range 20 {
		dev := openTest(t, "mem:8M", Options{})
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for lane := range uint16(4) {
			wg.Go(func() {
				buf := make([]byte, 8<<20)
				started <- struct{}{}
				for {
					r := block.Request{Op: block.Op(lane % 2), Lane: lane, Len: int64(len(buf)), Data: block.Bytes(buf)}
					if err := dev.Do(context.Background(), r); err != nil {
						if err != block.ErrClosed {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		<-started
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestMemRefusesBadSizes(t *testing.T) {
	for uri, o := range map[string]Options{
		"mem:":            {},
		"mem:12x":         {},
		"mem:1000":        {},
		"mem:1M":          {Size: 2 << 20},
		"mem:8388607T":    {},
		"mem:1M?direct=1": {},
	} {
		if dev, err := Open(context.Background(), uri, o); err == nil {
			dev.Close()
			t.Errorf("%s with size %d opened", uri, o.Size)
		}
	}
	dev := openTest(t, "mem:", Options{Size: 1 << 20})
	if dev.Info().Size != 1<<20 {
		t.Errorf("size %d from the options, want 1 MiB", dev.Info().Size)
	}
	dev.Close()
	// More than any machine's memory: only address space. Chunks grow.
	dev = openTest(t, "mem:4T", Options{})
	defer dev.Close()
	if m := dev.(*mem); len(m.chunks) > memMaxChunks {
		t.Errorf("%d chunks for 4 TiB", len(m.chunks))
	}
	buf := bytes.Repeat([]byte{7}, 512)
	if err := do(dev, block.OpWrite, 0, 4<<40-512, buf); err != nil {
		t.Error(err)
	}
	if err := doRange(dev, block.OpDiscard, 0, 0, 4<<40); err != nil {
		t.Error(err)
	}
	if got := holes(t, dev); got != 4<<40 {
		t.Errorf("%d bytes of holes after a discard of all", got)
	}
}
