package foreign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/control"
	"keyway/test/harness"
)

// The volume has so many areas, each of which lies on some leaf at its own place,
// so that it can move to any other.
const (
	areas    = 4
	areaSize = miB
	volume   = areas * areaSize
)

// loadEngines are the leaves with an engine, of few slots, for keys must contend.
var loadEngines = []struct{ leaf, engine string }{
	{"cpu", "cpu?slots=1"}, {"ufs", "ufs?slots=2&program-delay=1ms"}, {"cqhci", "cqhci?slots=1&evict-delay=200us"}, {"fmp", "fmp"},
}

// A piece is a row of the volume's table.
type piece struct {
	start, length int64 // sectors
	over          bool  // through the device over the leaf
}

// A plan says where the areas lie and by which rows the way goes there.
type plan struct {
	leaf [areas]string
	rows [areas][]piece
}

func (p plan) table() string {
	var b strings.Builder
	for a, rows := range p.rows {
		for _, r := range rows {
			name := p.leaf[a]
			if r.over {
				name = "over-" + name
			}
			fmt.Fprintf(&b, "%d %d linear %s %d\n", r.start, r.length, name, r.start)
		}
	}
	return b.String()
}

// A world is the stack of the load test, what is done to it, and counts of that.
type world struct {
	t      *testing.T
	d      *harness.Daemon
	c      *control.Client
	rng    *rand.Rand
	files  map[string]string // by leaf
	leaves []string          // the one without an engine is last
	kinds  map[string]string // of the devices over leaves

	now    plan
	native []control.Config // what engines serve for it

	reloads, shrunk, grown, moved, rippled int
	resets, evictions, others              int // by one goroutine each
}

// ctx bounds one command: none takes long, whatever is under way.
func (w *world) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.t.Context(), 2*time.Minute)
}

// do gives a command and fails the test with it.
func (w *world) do(what string, f func(ctx context.Context) error) bool {
	ctx, cancel := w.ctx()
	defer cancel()
	err := f(ctx)
	if err != nil {
		w.t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, d: harness.Start(t), rng: rand.New(rand.NewPCG(seed, 0)), files: map[string]string{}, kinds: map[string]string{}}
	w.c = &control.Client{Socket: w.d.Socket, Timeout: time.Minute}
	for _, e := range append(slices.Clone(loadEngines), struct{ leaf, engine string }{"none", "none"}) {
		w.leaves = append(w.leaves, e.leaf)
		w.files[e.leaf] = filepath.Join(w.d.Dir, e.leaf+".img")
		w.d.OK("create", e.leaf, "--backend", "file:"+w.files[e.leaf], "--size", fmt.Sprint(volume+guestSize), "--engine", e.engine)
		create(w.d, "over-"+e.leaf, w.over(e.leaf, passing))
	}
	w.now = w.plan(w.now, true)
	create(w.d, "map", w.now.table())
	addKey(t, w.d, "k", 4096, testKey(21))
	create(w.d, "vol", fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:k 0 map 0 2 sector_size:4096 iv_large_sectors", volume/512))
	w.native = w.profile()
	return w
}

// The kinds of devices over a leaf.
const (
	passing = ""
	slow    = "slow"    // writes stay under way for as long as a careless move takes
	cutting = "cutting" // passes no contexts
)

// over is the table of the device over a leaf.
func (w *world) over(leaf, kind string) string {
	sectors := (volume + guestSize) / 512
	switch kind {
	case cutting:
		return fmt.Sprintf("0 %d flakey %s 0 1 0 1 corrupt_ciphertext", sectors, leaf) // it is up for ever
	case slow:
		return fmt.Sprintf("0 %d delay %s 0 0 %[2]s 0 8", sectors, leaf)
	}
	return fmt.Sprintf("0 %d linear %s 0", sectors, leaf)
}

// plan makes another plan; with move areas go to other leaves. Half of the plans are
// such that engines can serve them.
func (w *world) plan(p plan, move bool) plan {
	rough, over := w.rng.IntN(4) == 0, w.rng.IntN(2) == 0
	for a := range areas {
		if move && (p.leaf[a] == "" || p.leaf[a] == "none" || w.rng.IntN(2) == 0) {
			p.leaf[a] = w.leaves[w.rng.IntN(len(w.leaves)-1)]
			if a == 0 && w.rng.IntN(4) == 0 {
				p.leaf[a] = "none"
			}
		}
		start, end := int64(a*areaSize/512), int64((a+1)*areaSize/512)
		p.rows[a] = nil
		for start < end {
			n := 1 + w.rng.Int64N(end-start)
			if !rough {
				n = min((n+7)&^7, end-start) // no border inside a data unit
			}
			if w.rng.IntN(2) == 0 {
				n = end - start
			}
			p.rows[a] = append(p.rows[a], piece{start, n, over && w.rng.IntN(2) == 0})
			start += n
		}
	}
	return p
}

// served is whether engines serve the volume's key for p: all rows must lead to one,
// and none may end inside a data unit.
func (w *world) served(p plan) bool {
	for a, rows := range p.rows {
		for _, r := range rows {
			if p.leaf[a] == "none" || r.over && w.kinds[p.leaf[a]] == cutting || r.start%8 != 0 {
				return false
			}
		}
	}
	return true
}

// profile is what engines serve on the map.
func (w *world) profile() (native []control.Config) {
	w.do("crypto", func(ctx context.Context) error {
		x, err := w.c.Crypto(ctx, "map")
		native = x.Native
		return err
	})
	return native
}

// requests is how many the volume has done.
func (w *world) requests() (n uint64) {
	w.do("info", func(ctx context.Context) error {
		x, err := w.c.Device(ctx, "vol")
		n = x.Requests["read"] + x.Requests["write"]
		return err
	})
	return n
}

// reload changes the table of the map, or of a device over a leaf beneath it.
func (w *world) reload() bool {
	var ok bool
	switch w.rng.IntN(4) {
	case 0:
		ok = w.move()
	case 1:
		ok = w.ripple()
	default:
		next := w.plan(w.now, false)
		ok = w.do("reload", func(ctx context.Context) error {
			_, err := w.c.Reload(ctx, "map", control.Load{Table: next.table(), NoFlush: w.rng.IntN(4) > 0})
			return err
		})
		w.now = next
	}
	if !ok {
		return false
	}
	w.reloads++
	before, after := w.native, w.profile()
	w.native = after
	lacks := func(a, b []control.Config) bool {
		return slices.ContainsFunc(b, func(c control.Config) bool { return !slices.Contains(a, c) })
	}
	if lacks(after, before) {
		w.shrunk++
	}
	if lacks(before, after) {
		w.grown++
	}
	have := slices.ContainsFunc(after, func(c control.Config) bool { return c.Mode == "AES-256-XTS" && c.DataUnit == 4096 })
	if want := w.served(w.now); have != want {
		w.t.Errorf("reload %d: engines serve the map: %v, want %v\n%s", w.reloads, have, want, w.now.table())
		return false
	}
	return true
}

// move has areas go to other leaves: between suspend and resume their ciphertext,
// which does not depend on the leaf, is copied.
func (w *world) move() bool {
	next := w.plan(w.now, true)
	return w.do("move", func(ctx context.Context) error {
		if _, err := w.c.Load(ctx, "map", control.Load{Table: next.table()}); err != nil {
			return err
		}
		if _, err := w.c.Suspend(ctx, "map", control.Suspend{NoFlush: true}); err != nil {
			return err
		}
		for a, from := range w.now.leaf {
			if to := next.leaf[a]; to != from {
				copyRange(w.t, w.files[to], w.files[from], int64(a)*areaSize, areaSize)
				w.moved++
			}
		}
		w.now = next
		_, err := w.c.Resume(ctx, "map")
		return err
	})
}

// ripple changes the kind of the device over a leaf: what it passes, the map and the
// volume above it learn without being reloaded.
func (w *world) ripple() bool {
	leaf := w.leaves[w.rng.IntN(len(w.leaves))]
	next := map[string][]string{passing: {slow, cutting}, slow: {passing, cutting}, cutting: {passing, slow}}[w.kinds[leaf]]
	w.kinds[leaf] = next[w.rng.IntN(2)]
	w.rippled++
	return w.do("reload over "+leaf, func(ctx context.Context) error {
		_, err := w.c.Reload(ctx, "over-"+leaf, control.Load{Table: w.over(leaf, w.kinds[leaf]), NoFlush: true})
		return err
	})
}

// reset resets one engine after the other, each once a second, until stop.
func (w *world) reset(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second / time.Duration(len(loadEngines)))
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		leaf := loadEngines[i%len(loadEngines)].leaf
		if !w.do("reset of "+leaf, func(ctx context.Context) error {
			_, err := w.c.Message(ctx, leaf, control.Message{Words: []string{"reset"}})
			return err
		}) {
			return
		}
		w.resets++
	}
}

// Fio writes and verifies from several connections with many requests each, while
// the tables beneath its volume are reloaded a thousand times: rows split and join,
// lead to leaves with engines of four kinds and to one without, directly and through
// devices that pass contexts or cease to, and areas move from leaf to leaf. Every
// engine is reset once a second, and keys that fio does not use are evicted and
// added again: one that nobody uses, and that of a second volume on the same leaves,
// whose traffic stops before. No request fails, no byte is wrong, and what lies on
// the leaves is what an independent XTS makes of key, DUN and plaintext.
// dm-fscrypt.md, invariants 40 to 44; blkcrypto.md, invariants 20 to 24.
//
// It ends early, but not before a hundred reloads, where a thousand take long; with
// KEYWAY_SOAK it does not.
func TestThousandReloadsUnderLoad(t *testing.T) {
	harness.Need(t, "fio")
	const want, fewest, patience = 1000, 100, 20 * time.Second
	length := harness.Soak(t, 0)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := newWorld(t, seed)
	sock, uri := export(w.d, "vol")
	guest := w.newGuest()

	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { w.reset(stop) })
	all.Go(func() { guest.run(stop) })
	var totals [2]fioCounts
	for half := range totals { // two of fio, so that one has requests when the other begins or ends
		all.Go(func() {
			for round := 0; !t.Failed(); round++ {
				select {
				case <-stop:
					return
				default:
					totals[half].add(fioJobs(t, uri, half, round))
				}
			}
		})
	}
	begin, loaded := time.Now(), 0 // loaded: reloads with requests of fio since the one before
	enough := func() bool {
		took := time.Since(begin)
		return loaded >= want && took >= length || loaded >= fewest && took > patience && length == 0
	}
	for last := w.requests(); !enough() && !t.Failed() && w.reload(); {
		if n := w.requests(); n != last {
			last = n
			loaded++
		}
	}
	took := time.Since(begin)
	close(stop)
	all.Wait()
	t.Logf("%d reloads, %d of them under load, in %v: %d shrank and %d grew what engines serve, %d areas moved, %d rippled from beneath",
		w.reloads, loaded, took.Round(time.Millisecond), w.shrunk, w.grown, w.moved, w.rippled)
	t.Logf("fio: %d rounds, %d writes, %d verified reads; %d resets of engines; %d evictions of a key with traffic before, which took %d requests, %d of one that nobody used",
		totals[0].rounds+totals[1].rounds, totals[0].writes+totals[1].writes, totals[0].reads+totals[1].reads, w.resets, w.evictions, guest.requests, w.others)
	if t.Failed() {
		return
	}
	for what, n := range map[string]int{"shrunk": w.shrunk, "grown": w.grown, "moved": w.moved, "rippled": w.rippled,
		"resets": w.resets, "evictions": w.evictions, "evictions of others": w.others} {
		if n < 4 {
			t.Errorf("%d %s: the test does not do what it says", n, what)
		}
	}
	w.wantEnginesUsed()
	w.wantCiphertext(sock, guest)
}
