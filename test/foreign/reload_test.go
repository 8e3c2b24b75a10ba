package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyway/test/harness"
	"keyway/test/naive"
)

// A row maps sectors of the device to the same sectors of a leaf.
type row struct {
	start, length int64 // sectors of 512 bytes
	leaf          string
}

type layout []row

func (l layout) table() string {
	var b strings.Builder
	for _, r := range l {
		fmt.Fprintf(&b, "%d %d linear %s %d\n", r.start, r.length, r.leaf, r.start)
	}
	return b.String()
}

// inTurns covers n sectors with rows that end at the given sectors and lie on
// first and second by turns.
func inTurns(n int64, first, second string, ends ...int64) (l layout) {
	at, leaf, other := int64(0), first, second
	for _, e := range append(ends, n) {
		l = append(l, row{at, e - at, leaf})
		at, leaf, other = e, other, leaf
	}
	return l
}

// Fio writes and verifies through a default-key device while the mapped device
// below is reloaded again and again: onto a leaf with an inline engine, onto one
// without (so that the fallback encrypts), onto rows of both, with borders inside
// data units, and back. Between suspend and resume the leaves are kept in step by
// copying. No request may fail, no byte may be wrong, and what lies on both leaves
// is what an independent XTS makes of key, DUN and plaintext.
func TestReloadUnderLoad(t *testing.T) {
	harness.Need(t, "fio")
	const (
		size      = 16 * miB
		sectors   = size / 512
		wantSwaps = 200
	)
	d := harness.Start(t)
	key := testKey(11)
	addKey(t, d, "k", 4096, key)
	files := map[string]string{"with": filepath.Join(d.Dir, "with.img"), "without": filepath.Join(d.Dir, "without.img")}
	d.OK("create", "with", "--backend", "file:"+files["with"], "--size", "16M", "--engine", "cpu")
	d.OK("create", "without", "--backend", "file:"+files["without"], "--size", "16M", "--engine", "none")
	layouts := []layout{
		inTurns(sectors, "with", "without"),
		inTurns(sectors, "without", "with"),
		inTurns(sectors, "with", "without", sectors/2),
		inTurns(sectors, "without", "with", sectors/2),
		inTurns(sectors, "with", "without", 8, 4096, 12000, 20000, 32760),
		inTurns(sectors, "without", "with", 1001, 9002, 17003, 25004), // inside data units
	}
	create(d, "map", layouts[0].table())
	create(d, "vol", fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:k 0 map 0 2 sector_size:4096 iv_large_sectors", sectors))
	sock, uri := export(d, "vol")

	// inStep copies what the active layout says is current to the other leaf.
	inStep := func(active layout) {
		for _, r := range active {
			other := "with"
			if r.leaf == "with" {
				other = "without"
			}
			copyRange(t, files[other], files[r.leaf], r.start*512, r.length*512)
		}
	}

	stop := make(chan struct{})
	var swaps atomic.Int64
	at, active := 0, layouts[0]
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			n := int(swaps.Load())
			at = (at + 1 + n%(len(layouts)-1)) % len(layouts) // never the same twice
			next := layouts[at]
			for _, args := range [][]string{{"load", "map", "--table", "-"}, {"suspend", "map", "--timeout", "20s"}, {"resume", "map"}} {
				if args[0] == "resume" {
					inStep(active)
				}
				stdin := ""
				if args[0] == "load" {
					stdin = next.table()
				}
				if r := d.RunInput(stdin, args...); r.Code != 0 {
					t.Errorf("swap %d: keyway %s: exit status %d\n%s", n, strings.Join(args, " "), r.Code, r.Stderr)
					return
				}
			}
			active = next
			swaps.Add(1)
		}
	})

	length := harness.Soak(t, 30*time.Second)
	begin := time.Now()
	rounds := 0
	// Rounds until both the time and the number of swaps are reached; the limit
	// keeps a daemon that cannot swap from holding the test.
	for time.Since(begin) < length || (swaps.Load() < wantSwaps && time.Since(begin) < length+2*time.Minute) {
		rounds++
		bs := [][]string{{"--bs=4k"}, {"--bsrange=4096-65536", "--blockalign=4096"}, {"--bs=64k"}}[rounds%3]
		fio(t, 3*time.Minute, uri, append(bs, "--rw=randwrite", "--size=16M", "--loops=4", "--iodepth=16", fmt.Sprint("--randseed=", rounds))...)
	}
	close(stop)
	swapper.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d swaps and %d rounds of fio in %v", swaps.Load(), rounds, time.Since(begin).Round(time.Second))
	if n := swaps.Load(); n < wantSwaps {
		t.Errorf("%d swaps, want at least %d", n, wantSwaps)
	}

	c := dial(t, sock, "vol")
	flush(t, c)
	want := read(t, c, 0, size)
	d.OK("suspend", "map")
	inStep(active)
	d.OK("resume", "map")
	for u := 0; u < size; u += 4096 {
		naive.Encrypt(key, uint64(u/4096), want[u:u+4096])
	}
	for leaf, f := range files {
		got, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if i := firstDifference(got, want); i >= 0 {
			t.Errorf("leaf %q: ciphertext differs from the independent one at byte %d (data unit %d)", leaf, i, i/4096)
		}
	}
}

func copyRange(t testing.TB, dst, src string, off, n int64) {
	from, err := os.Open(src)
	if err != nil {
		t.Error(err)
		return
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer to.Close()
	b := make([]byte, n)
	if _, err := from.ReadAt(b, off); err != nil {
		t.Error(err)
	}
	if _, err := to.WriteAt(b, off); err != nil {
		t.Error(err)
	}
}

// A write that waits at a suspended device lands where the new table says.
func TestWriteDuringSuspendLandsInTheNewTable(t *testing.T) {
	d := harness.Start(t)
	files := map[string]string{"old": leaf(t, d, "old", nil, miB), "new": leaf(t, d, "new", nil, miB)}
	create(d, "vol", "0 2048 linear old 0")
	sock, _ := export(d, "vol")
	c := dial(t, sock, "vol")
	d.OKInput("0 2048 linear new 0\n", "load", "vol", "--table", "-")
	d.OK("suspend", "vol")
	want := []byte("written while suspended")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if e, err := c.Do(harness.NBDWrite, 0, 4096, 0, want); e != 0 || err != nil {
			t.Errorf("write: NBD error %d, %v", e, err)
		}
	}()
	select {
	case <-done:
		t.Error("a write was answered while the device was suspended")
	case <-time.After(300 * time.Millisecond):
	}
	d.OK("resume", "vol")
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the write is not answered after resume")
	}
	flush(t, c)
	for name, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b[4096:4096+len(want)]) == string(want); got != (name == "new") {
			t.Errorf("the data lies on %q: %v", name, got)
		}
	}
}
