package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/measure"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

const (
	slowLeaf    = 5 * time.Millisecond // what each request takes there
	outstanding = 32                   // requests
	dmDisk      = 16 << 20             // bytes
)

type reloadRow struct {
	Device      string `json:"device"`
	Outstanding int    `json:"requests_outstanding"`
	Reloads     int    `json:"reloads"`
	Pause       times  `json:"pause"`             // from the call to the first request through the new table
	Slowest     times  `json:"slowest_in_flight"` // of the requests of the old one
	// Of each reload, the pause as a part of what is allowed: twice the slowest
	// request in flight and a millisecond.
	OfAllowed struct {
		Median float64 `json:"median"`
		Worst  float64 `json:"worst"`
	} `json:"of_allowed"`
}

// A reloadRig is a mapped device whose table goes to and fro between two leaves,
// one with an engine, one without, so that each reload takes away the engine of
// keys in use or gives it back. It sees what the requests meet.
type reloadRig struct {
	fallback *keyslot.Manager
	leaves   [2]*dm.Mapped
	dev      *dm.Mapped
	keys     []*blkcrypto.Key
	served   [outstanding]atomic.Int32 // by which leaf, by lane

	asked   atomic.Int64 // when the reload was asked for, in ns since begin; 0: none is under way
	to      atomic.Int32 // to which leaf
	through atomic.Int64 // when the first request reached that, which reached tells
	slowest atomic.Int64 // of those that the other leaf served meanwhile, in ns
	reached chan struct{}
	begin   time.Time
	undo    []func() error
}

func (g *reloadRig) now() int64 { return int64(time.Since(g.begin)) }

// A probe is the medium of a leaf: it takes its time, and knows who came.
type probe struct {
	block.Device
	g     *reloadRig
	leaf  int32
	delay time.Duration
}

func (p *probe) Do(ctx context.Context, r block.Request) error {
	if p.g.to.Load() == p.leaf && p.g.asked.Load() != 0 && p.g.through.Load() == 0 && r.Op.HasData() {
		if p.g.through.CompareAndSwap(0, p.g.now()) {
			p.g.reached <- struct{}{}
		}
	}
	p.g.served[r.Lane].Store(p.leaf)
	if p.delay > 0 && r.Op.HasData() {
		time.Sleep(p.delay)
	}
	return p.Device.Do(ctx, r)
}

// Open is dm.Env's, as are Key and Fallback.
func (g *reloadRig) Open(_ context.Context, name string, _ bool) (block.Device, error) {
	if name == "without" {
		return g.leaves[1].Open("bench")
	}
	return g.leaves[0].Open("bench")
}

func (g *reloadRig) Key(context.Context, dm.KeyRef, blkcrypto.Config, bool) (*blkcrypto.Key, func(context.Context) error, error) {
	return nil, nil, errors.New("no table of the bench names a key")
}

func (g *reloadRig) Fallback() *keyslot.Manager { return g.fallback }

func (g *reloadRig) close() error {
	var errs []error
	for i := len(g.undo) - 1; i >= 0; i-- {
		errs = append(errs, g.undo[i]())
	}
	g.undo = nil
	return errors.Join(errs...)
}

func newReloadRig(ctx context.Context, delay time.Duration) (_ *reloadRig, err error) {
	g := &reloadRig{fallback: keyslot.New(soft.New("fallback", soft.FallbackSlots)), begin: time.Now(), reached: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	for i := range g.leaves {
		dev, err := backend.Open(ctx, fmt.Sprintf("mem:%d", dmDisk), backend.Options{})
		if err != nil {
			return nil, err
		}
		if err := fill(ctx, dev, dmDisk); err != nil {
			return nil, errors.Join(err, dev.Close())
		}
		leaf := dm.Leaf{Dev: &probe{dev, g, int32(i), delay}, Text: "mem", Fallback: g.fallback}
		if i == 0 {
			leaf.Engine = keyslot.New(soft.New("engine", soft.DefaultSlots))
		}
		if g.leaves[i], err = dm.NewLeaf("leaf", leaf, dm.Options{}); err != nil {
			return nil, err
		}
		g.undo = append(g.undo, func() error { return g.leaves[i].Remove(context.Background(), dm.RemoveOptions{}) })
	}
	g.dev = dm.New("bench", dm.Options{})
	g.undo = append(g.undo, func() error { return g.dev.Remove(context.Background(), dm.RemoveOptions{}) })
	for i := range 4 {
		k, err := dmKey(fmt.Sprint("bench", i))
		if err != nil {
			return nil, err
		}
		g.keys = append(g.keys, k)
		g.undo = append(g.undo, func() error { _, err := k.Evict(context.Background()); return err })
	}
	return g, g.reload(ctx, 0)
}

func (g *reloadRig) table(ctx context.Context, leaf int) (*dm.Table, error) {
	return dm.Parse(ctx, fmt.Sprintf("0 %d linear %s 0", dmDisk>>9, []string{"with", "without"}[leaf]), g, dm.ParseOptions{})
}

func (g *reloadRig) reload(ctx context.Context, leaf int) error {
	t, err := g.table(ctx, leaf)
	if err != nil {
		return err
	}
	return g.dev.Reload(ctx, t, dm.SuspendOptions{})
}

// work sends requests, one after the other, until stop is closed.
func (g *reloadRig) work(ctx context.Context, lane uint16, stop <-chan struct{}) error {
	data := block.Bytes(make([]byte, 4096))
	rng := rand.New(rand.NewPCG(1, uint64(lane)))
	k := g.keys[int(lane)%len(g.keys)]
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		unit := rng.Int64N(dmDisk / 4096)
		runtime.Gosched() // or the clock would interrupt requests where there are fewer cores
		r := block.Request{
			Op: block.Op(rng.IntN(2)), Lane: lane, Off: unit * 4096, Len: 4096, Data: data,
			Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(uint64(unit))},
		}
		begin := g.now()
		if err := g.dev.Do(ctx, r); err != nil {
			return err
		}
		end := g.now()
		asked := g.asked.Load()
		if asked == 0 || end < asked || begin > asked || g.served[lane].Load() == g.to.Load() {
			continue
		}
		for took := end - begin; ; { // it was under way in the old table
			most := g.slowest.Load()
			if took <= most || g.slowest.CompareAndSwap(most, took) {
				break
			}
		}
	}
}

// one reloads to a leaf and returns for how long requests did not pass, and how
// long the slowest took that passed before.
func (g *reloadRig) one(ctx context.Context, leaf int) (pause, slowest float64, err error) {
	t, err := g.table(ctx, leaf)
	if err != nil {
		return 0, 0, err
	}
	g.slowest.Store(0)
	g.through.Store(0)
	g.to.Store(int32(leaf))
	begin := g.now()
	g.asked.Store(begin)
	if err := g.dev.Reload(ctx, t, dm.SuspendOptions{}); err != nil {
		return 0, 0, err
	}
	select {
	case <-g.reached:
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	pause, slowest = float64(g.through.Load()-begin), float64(g.slowest.Load())
	g.asked.Store(0)
	return pause, slowest, nil
}

// reload measures reloads for about d, a few at least.
func (r *dmReport) reload(ctx context.Context, delay, d time.Duration) (err error) {
	g, err := newReloadRig(ctx, delay)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	stop := make(chan struct{})
	errs := make([]error, outstanding)
	var wg sync.WaitGroup
	for lane := range outstanding {
		wg.Go(func() { errs[lane] = g.work(ctx, uint16(lane), stop) })
	}
	var pauses, slowest, parts []float64
	const fewest = 4
	for begin := time.Now(); (time.Since(begin) < d || len(pauses) < fewest) && err == nil; {
		// Requests that waited are done by then, and the next reload meets them at
		// any stage of theirs.
		pauseFor(ctx, 2*delay+time.Duration(1+rand.IntN(6))*time.Millisecond)
		var p, s float64
		if p, s, err = g.one(ctx, (len(pauses)+1)%2); err == nil {
			pauses, slowest, parts = append(pauses, p), append(slowest, s), append(parts, p/(2*s+aimBeyond))
		}
	}
	close(stop)
	wg.Wait()
	name := "in memory"
	if delay > 0 {
		name = fmt.Sprintf("of %v a request", delay)
	}
	row := reloadRow{Device: name, Outstanding: outstanding, Reloads: len(pauses), Pause: timesOf(pauses), Slowest: timesOf(slowest)}
	if len(parts) > 0 {
		row.OfAllowed.Median, row.OfAllowed.Worst = measure.Median(parts), slices.Max(parts)
	}
	r.Reloads = append(r.Reloads, row)
	return errors.Join(append(errs, err)...)
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
