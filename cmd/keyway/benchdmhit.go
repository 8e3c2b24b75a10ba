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
	Keys     int     `json:"keys"`
	Cores    int     `json:"cores"`
	NsPerReq float64 `json:"ns_per_request"` // of processor time
}

const (
	hitSlot  = "get and put a keyslot"
	hitLayer = "whole engine layer"
)

// A sharedRow tells how many writes to cache lines that cores share the hits cost.
// A line that two cores write in turn travels between them, and that is what makes
// a request dearer on many cores than on one; so the difference, measured in such
// writes, is their number.
type sharedRow struct {
	Cores   int      `json:"cores"`
	AddOne  float64  `json:"ns_per_add_alone"`              // to a counter, by one core
	AddAll  float64  `json:"ns_per_add_shared"`             // by all cores, to one counter
	Written *float64 `json:"written_per_request,omitempty"` // nil: the cores did not run at once, so that nothing travelled
}

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

// hits measures requests whose key is in a keyslot, for about d.
func (r *dmReport) hits(ctx context.Context, d time.Duration) error {
	cores := runtime.GOMAXPROCS(0)
	m := keyslot.New(null{max(32, cores)})
	dev := keyslot.Over(null{}, m)
	keys := make([]*blkcrypto.Key, cores)
	for i := range keys {
		k, err := dmKey(fmt.Sprint("bench", i))
		if err != nil {
			return err
		}
		defer k.Evict(context.Background())
		if err := program(ctx, k, m); err != nil {
			return err
		}
		keys[i] = k
	}
	var failed atomic.Pointer[error]
	fail := func(err error) {
		if err != nil {
			seen := err // so that only this is allocated
			failed.Store(&seen)
		}
	}
	slot := func(k *blkcrypto.Key) func() {
		return func() {
			s, err := m.Get(ctx, k, true)
			fail(err)
			s.Put()
		}
	}
	layer := func(k *blkcrypto.Key, core int) func() {
		data := block.Bytes(make([]byte, 4096))
		q := block.Request{Op: block.OpRead, Lane: uint16(core), Len: 4096, Data: data, Crypt: blkcrypto.Context{Key: k}}
		return func() { fail(dev.Do(ctx, q)) }
	}
	lone, shared := make([]counter, cores), new(counter)
	var bare, addOne, addAll, slotOne, slotAll float64
	put := func(what string, keys, cores int) func(float64) {
		return func(v float64) { r.Hits = append(r.Hits, hitRow{what, keys, cores, v}) }
	}
	figures := []hitFigure{
		{1, func(core int) func() { return layer(nil, core) }, func(v float64) { bare = v }},
		{1, func(int) func() { return slot(keys[0]) }, func(v float64) { slotOne = v; put(hitSlot, 1, 1)(v) }},
		{1, func(core int) func() { return layer(keys[0], core) }, func(v float64) { put(hitLayer, 1, 1)(v - bare) }},
	}
	if cores > 1 {
		figures = append(figures,
			hitFigure{1, func(int) func() { return func() { lone[0].n.Add(1) } }, func(v float64) { addOne = v }},
			hitFigure{cores, func(int) func() { return func() { shared.n.Add(1) } }, func(v float64) { addAll = v }},
			hitFigure{cores, func(core int) func() { return slot(keys[core]) }, func(v float64) { slotAll = v; put(hitSlot, cores, cores)(v) }},
			hitFigure{cores, func(core int) func() { return layer(keys[core], core) }, func(v float64) { put(hitLayer, cores, cores)(v - bare) }},
			hitFigure{cores, func(int) func() { return slot(keys[0]) }, put(hitSlot, 1, cores)},
			hitFigure{cores, func(core int) func() { return layer(keys[0], core) }, func(v float64) { put(hitLayer, 1, cores)(v - bare) }},
		)
	}
	if err := measureHits(ctx, figures, d); err != nil {
		return err
	}
	if p := failed.Load(); p != nil {
		return *p
	}
	if cores > 1 {
		s := &sharedRow{Cores: cores, AddOne: addOne, AddAll: addAll}
		if addAll > 2*addOne {
			n := max(0, slotAll-slotOne) / (addAll - addOne)
			s.Written = &n
		}
		r.Shared = s
	}
	return nil
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
