package foreign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/test/harness"
)

const blockSize = 4096

// tagged fills b with the number and generation of a block, over and over, so
// that a torn, misplaced or stale block shows.
func tagged(b []byte, block, generation uint64) {
	for o := 0; o < len(b); o += 16 {
		binary.LittleEndian.PutUint64(b[o:], block)
		binary.LittleEndian.PutUint64(b[o+8:], generation)
	}
}

// generation returns the generation in b, or an error if b is not one whole
// block as tagged makes it.
func generation(b []byte, block uint64) (uint64, error) {
	g := binary.LittleEndian.Uint64(b[8:])
	for o := 0; o < len(b); o += 16 {
		if n := binary.LittleEndian.Uint64(b[o:]); n != block {
			return 0, fmt.Errorf("byte %d holds block number %d", o, n)
		}
		if h := binary.LittleEndian.Uint64(b[o+8:]); h != g {
			return 0, fmt.Errorf("torn: generation %d at byte 0, %d at byte %d", g, h, o)
		}
	}
	return g, nil
}

// A ledger is what the test knows of the disk, per block.
type ledger struct {
	mu                     sync.Mutex
	issued, acked, durable []uint64 // generations
}

// writer keeps writing the blocks lo to hi-1 with several requests in flight and
// flushes now and then, until the server is gone. A block is not written again
// before its last write was answered.
func (l *ledger) writer(c *harness.NBD, lo, hi int, seed uint64) error {
	const inFlight = 8
	errs := make(chan error, inFlight)
	for w := range inFlight {
		go func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			mine := func() int { // block numbers of this goroutine only
				return lo + rnd.IntN((hi-lo)/inFlight)*inFlight + w
			}
			buf := make([]byte, blockSize)
			for {
				var e uint32
				var err error
				if rnd.IntN(16) == 0 {
					l.mu.Lock()
					before := append([]uint64(nil), l.acked...)
					l.mu.Unlock()
					if e, err = c.Do(harness.NBDFlush, 0, 0, 0, nil); e == 0 && err == nil {
						// Also what other connections wrote: that is multi-conn's promise.
						l.mu.Lock()
						for i, g := range before {
							l.durable[i] = max(l.durable[i], g)
						}
						l.mu.Unlock()
					}
				} else {
					b := mine()
					fua := uint16(0)
					if rnd.IntN(8) == 0 {
						fua = harness.NBDFUA
					}
					l.mu.Lock()
					l.issued[b]++
					g := l.issued[b]
					l.mu.Unlock()
					tagged(buf, uint64(b), g)
					if e, err = c.Do(harness.NBDWrite, fua, int64(b)*blockSize, 0, buf); e == 0 && err == nil {
						l.mu.Lock()
						l.acked[b] = g
						if fua != 0 {
							l.durable[b] = g
						}
						l.mu.Unlock()
					}
				}
				if err != nil {
					errs <- err
					return
				}
				if e != 0 {
					errs <- fmt.Errorf("NBD error %d", e)
					return
				}
			}
		}()
	}
	var first error
	for range inFlight {
		if err := <-errs; !errors.Is(err, harness.ErrDisconnected) && first == nil {
			first = err
		}
	}
	return first
}

// The daemon is killed fifty times in the middle of writes, flushes and changes
// to its devices. Each time it starts again from its state directory, and what a
// flush, FUA or a finished command acknowledged is there.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	const (
		blocks = 2048
		conns  = 4
	)
	kills := 50
	if testing.Short() {
		kills = 5
	}
	d := harness.Start(t)
	addKey(t, d, "k", 4096, testKey(21))
	d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "8M", "--engine", "cpu")
	create(d, "vol", fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:k 0 leaf 0 2 sector_size:4096 iv_large_sectors", blocks*8))
	sock, _ := export(d, "vol")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))

	l := &ledger{issued: make([]uint64, blocks), acked: make([]uint64, blocks), durable: make([]uint64, blocks)}
	c := dial(t, sock, "vol")
	buf := make([]byte, blockSize)
	for b := range uint64(blocks) {
		tagged(buf, b, 0)
		write(t, c, int64(b)*blockSize, buf)
	}
	flush(t, c)
	c.Close()

	var written uint64
	for kill := range kills {
		var wg sync.WaitGroup
		for i := range conns {
			c, err := harness.DialNBD("unix", sock, "vol")
			if err != nil {
				t.Fatalf("kill %d: %v", kill, err)
			}
			defer c.Close()
			wg.Go(func() {
				if err := l.writer(c, i*blocks/conns, (i+1)*blocks/conns, seed+uint64(kill*conns+i)); err != nil {
					t.Errorf("kill %d, connection %d: %v", kill, i, err)
				}
			})
		}
		// Commands in flight at the kill may have happened or not; finished ones have.
		made := ""
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("tmp%d-%d", kill, i)
				if d.Run("create", name, "--backend", "mem:1M").Code != 0 {
					return
				}
				made = name
				if i > 0 && d.Run("remove", fmt.Sprintf("tmp%d-%d", kill, i-1)).Code != 0 {
					return
				}
			}
		})
		time.Sleep(time.Duration(20+rnd.IntN(120)) * time.Millisecond) // when the power goes is chance
		d.Kill()
		wg.Wait()
		d.Begin()

		if made != "" {
			if r := d.Run("info", made); r.Code != 0 {
				t.Errorf("kill %d: device %q was created, then lost: %s", kill, made, r.Stderr)
			}
			for _, x := range strings.Fields(d.OK("ls")) {
				if strings.HasPrefix(x, "tmp") {
					d.OK("remove", x)
				}
			}
		}
		c, err := harness.DialNBD("unix", sock, "vol")
		if err != nil {
			t.Fatalf("kill %d: the export did not come back: %v", kill, err)
		}
		disk := read(t, c, 0, blocks*blockSize)
		c.Close()
		for b := range blocks {
			g, err := generation(disk[b*blockSize:(b+1)*blockSize], uint64(b))
			switch {
			case err != nil:
				t.Fatalf("kill %d: block %d: %v", kill, b, err)
			case g < l.durable[b]:
				t.Fatalf("kill %d: block %d has generation %d, but %d was acknowledged as durable", kill, b, g, l.durable[b])
			case g > l.issued[b]:
				t.Fatalf("kill %d: block %d has generation %d, but only %d were written", kill, b, g, l.issued[b])
			}
			written += l.acked[b] - min(l.acked[b], l.durable[b])
			l.issued[b], l.acked[b], l.durable[b] = g, g, g
		}
		if t.Failed() {
			return
		}
	}
	var total uint64
	for _, g := range l.issued {
		total += g
	}
	t.Logf("%d kills, about %d writes survived, %d acknowledged ones were not yet flushed", kills, total, written)
	if total == 0 {
		t.Error("nothing was written: the test proves nothing")
	}
}
