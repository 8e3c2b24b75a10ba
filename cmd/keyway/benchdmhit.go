package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/measure"
	"keyway/keyslot"
)

type hitRow struct {
	What     string  `json:"what"`
	Cores    int     `json:"cores"`
	Keys     int     `json:"keys"`           // of them all
	Engines  int     `json:"engines"`        // of them all
	NsPerReq float64 `json:"ns_per_request"` // of processor time
}

const (
	hitSlot  = "get and put a keyslot"
	hitLayer = "whole engine layer"
)

// A sharedRow tells how many writes to cache lines that cores share a hit costs. A
// line that two cores write in turn travels between them, and that is what makes a
// request dearer when cores share an engine than when each has one of its own. The
// difference is measured in what one such write costs there: that to a counter which
// all write after each request, instead of one for each core.
type sharedRow struct {
	What    string   `json:"what"`
	Cores   int      `json:"cores"`
	Write   float64  `json:"ns_per_write"`
	Written *float64 `json:"written_per_request,omitempty"` // nil: the cores did not run at once, so that nothing travelled
}

// leastWrite is what a write to a shared line takes at least, in ns, more than one to
// a line of one's own: the way between two cores takes several times as long.
const leastWrite = 5

// null is a medium and an engine that do nothing, so that what lies between shows.
type null struct{ slots int }

func (null) Do(context.Context, block.Request) error { return nil }
func (null) Info() block.Info {
	return block.Info{Size: dmDisk, LogicalBlock: 512, PhysicalBlock: 512, NeverBlocks: true}
}
func (null) Close() error                                { return nil }
func (null) Name() string                                { return "nothing" }
func (null) Profile() blkcrypto.Profile                  { return blkcrypto.AllRaw() }
func (n null) Slots() int                                { return n.slots }
func (null) Program(int, blkcrypto.Config, []byte) error { return nil }
func (null) Evict(int) error                             { return nil }
func (null) Crypt(int, keyslot.Direction, blkcrypto.DUN, block.Segments, block.Segments) error {
	return nil
}

// A hitRig is as many engines and keys as there are cores, and every key in a slot
// of each engine.
type hitRig struct {
	engines []*keyslot.Manager
	layers  []block.Device
	keys    []*blkcrypto.Key
	failed  atomic.Pointer[error]
}

func newHitRig(ctx context.Context, cores int) (*hitRig, error) {
	g := &hitRig{}
	for i := range cores {
		k, err := dmKey(fmt.Sprint("bench", i))
		if err != nil {
			g.close()
			return nil, err
		}
		m := keyslot.New(null{max(32, cores)})
		g.keys, g.engines, g.layers = append(g.keys, k), append(g.engines, m), append(g.layers, keyslot.Over(null{}, m))
	}
	for _, k := range g.keys {
		if err := program(ctx, k, g.engines...); err != nil {
			g.close()
			return nil, err
		}
	}
	return g, nil
}

func (g *hitRig) close() {
	for _, k := range g.keys {
		k.Evict(context.Background()) // from nothing: it cannot fail
	}
}

func (g *hitRig) fail(err error) {
	if err != nil {
		seen := err // so that only this is allocated
		g.failed.Store(&seen)
	}
}

// slot is a hit alone.
func (g *hitRig) slot(ctx context.Context, engine, key int) func() {
	m, k := g.engines[engine], g.keys[key]
	return func() {
		s, err := m.Get(ctx, k, true)
		g.fail(err)
		s.Put()
	}
}

// layer is a read through an engine, or without a key past it.
func (g *hitRig) layer(ctx context.Context, engine int, k *blkcrypto.Key, core int) func() {
	dev := g.layers[engine]
	q := block.Request{Op: block.OpRead, Lane: uint16(core), Len: 4096, Data: block.Bytes(make([]byte, 4096)), Crypt: blkcrypto.Context{Key: k}}
	return func() { g.fail(dev.Do(ctx, q)) }
}

// hits measures requests whose key is in a keyslot, for about d.
func (r *dmReport) hits(ctx context.Context, d time.Duration) error {
	cores := runtime.GOMAXPROCS(0)
	g, err := newHitRig(ctx, cores)
	if err != nil {
		return err
	}
	defer g.close()
	cases := []hitRow{{Cores: 1, Keys: 1, Engines: 1}}
	if cores > 1 {
		cases = append(cases, hitRow{Cores: cores, Keys: cores, Engines: cores}, hitRow{Cores: cores, Keys: cores, Engines: 1}, hitRow{Cores: cores, Keys: 1, Engines: 1})
	}
	var figures []hitFigure
	for _, c := range cases {
		at := func(core int) (engine, key int) { return core % c.Engines, core % c.Keys }
		var bare float64
		put := func(what string, v float64) {
			c := c
			c.What, c.NsPerReq = what, v
			r.Hits = append(r.Hits, c)
		}
		figures = append(figures,
			hitFigure{c.Cores, func(core int) func() { e, _ := at(core); return g.layer(ctx, e, nil, core) }, func(v float64) { bare = v }},
			hitFigure{c.Cores, func(core int) func() { e, k := at(core); return g.slot(ctx, e, k) }, func(v float64) { put(hitSlot, v) }},
			hitFigure{c.Cores, func(core int) func() { e, k := at(core); return g.layer(ctx, e, g.keys[k], core) }, func(v float64) { put(hitLayer, v-bare) }})
	}
	own, shared := make([]counter, cores), new(counter)
	for _, what := range []string{hitSlot, hitLayer} {
		if cores == 1 {
			break
		}
		hit := func(core int) func() {
			if what == hitSlot {
				return g.slot(ctx, core, core)
			}
			return g.layer(ctx, core, g.keys[core], core)
		}
		and := func(count func(core int) *counter) func(core int) func() {
			return func(core int) func() {
				f, c := hit(core), count(core)
				return func() { f(); c.n.Add(1) }
			}
		}
		var alone float64
		figures = append(figures,
			hitFigure{cores, and(func(core int) *counter { return &own[core] }), func(v float64) { alone = v }},
			hitFigure{cores, and(func(int) *counter { return shared }), func(v float64) {
				r.Shared = append(r.Shared, sharedRow{What: what, Cores: cores, Write: v - alone})
			}})
	}
	if err := measureHits(ctx, figures, d); err != nil {
		return err
	}
	if p := g.failed.Load(); p != nil {
		return *p
	}
	r.countShared()
	return nil
}

// countShared concludes from the hits how many writes to shared lines there are in
// one.
func (r *dmReport) countShared() {
	for i := range r.Shared {
		s := &r.Shared[i]
		if s.Write < leastWrite {
			continue
		}
		var apart, together float64
		for _, x := range r.Hits {
			switch {
			case x.What != s.What || x.Cores == 1 || x.Keys == 1:
			case x.Engines == 1:
				together = x.NsPerReq
			default:
				apart = x.NsPerReq
			}
		}
		n := max(0, together-apart) / s.Write
		s.Written = &n
	}
}

// A counter has a cache line, and its neighbour, to itself.
type counter struct {
	_ [128]byte
	n atomic.Int64
	_ [120]byte
}

// A hitFigure is measured by so many cores at once.
type hitFigure struct {
	cores int
	start func(core int) func()
	put   func(ns float64)
}

// measureHits measures each figure a few times, in turns, and puts the medians in
// order.
func measureHits(ctx context.Context, figures []hitFigure, d time.Duration) error {
	const passes = 5
	v := make([][]float64, len(figures))
	for range passes {
		for i, f := range figures {
			rate := measure.Rate(ctx, f.cores, d/time.Duration(passes*len(figures)), f.start)
			v[i] = append(v[i], 1e9*float64(f.cores)/rate)
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
	}
	for i, f := range figures {
		f.put(measure.Median(v[i]))
	}
	return nil
}
