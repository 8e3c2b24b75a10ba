package block

import (
	"context"
	"sync"
	"sync/atomic"

	"keyway/internal/point"
)

// gateShards bounds the cache lines of a gate: lanes beyond it share. 32
// keeps a gate at 4 KiB and is more than the cores that carry requests.
const gateShards = 32

// A Gate admits requests and can be closed to drain them. The goroutines
// that wait at a closed gate are the deferred list of device-mapper. It also
// counts what passed, on the cache line that admission touches anyway. The
// zero Gate is open.
type Gate struct {
	shards [gateShards]gateShard
	closed atomic.Bool

	mu      sync.Mutex
	opened  chan struct{} // closed by Open; guarded by mu
	drained chan struct{} // a Leave while closed; made once, before closed is first set
	waiting atomic.Int64  // goroutines at the closed gate
}

type gateShard struct {
	inside atomic.Int64
	ops    [numCounts]atomic.Uint64 // by countOf
	bytes  [numOps]atomic.Uint64
	_      [128 - 8*(1+numCounts+numOps)]byte // two cache lines: adjacent ones are fetched in pairs
}

// A Service says who transforms the data of a request.
type Service uint8

const (
	NoContext  Service = iota // nobody: it has no encryption context
	ByEngine                  // engines beneath, to which it goes with its context
	BySoftware                // the fallback, at least a part of it
	numServices
)

// numCounts is one for each Op, and for the two that may have a context, which come
// first, one for each Service.
const numCounts = numOps + 2*(int(numServices)-1)

// countOf is which counter is for requests of op that are served so.
func countOf(op Op, by Service) int {
	if by == NoContext || op > OpWrite {
		return int(op)
	}
	return int(numOps) - 2 + 2*int(by) + int(op)
}

// Counters is what passed through a gate, by Op.
type Counters struct {
	Ops, Bytes       [numOps]uint64
	Native, Software [2]uint64 // of Ops: reads and writes with a context
}

// Enter admits the caller, who must call Leave with the same lane. At a
// closed gate it waits for Open, or returns ErrWouldBlock if nowait, or the
// cause of ctx when that ends first.
//
// Hot: no allocation while the gate is open.
func (g *Gate) Enter(ctx context.Context, lane uint16, nowait bool) error {
	s := &g.shards[lane%gateShards]
	s.inside.Add(1)
	point.At("block: entering")
	if !g.closed.Load() {
		return nil
	}
	g.Leave(lane)
	if nowait {
		return ErrWouldBlock
	}
	return g.enterSlow(ctx, lane)
}

func (g *Gate) enterSlow(ctx context.Context, lane uint16) error {
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		select {
		case <-opened:
			point.At("block: opened")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		g.shards[lane%gateShards].inside.Add(1)
		if !g.closed.Load() {
			return nil
		}
		g.Leave(lane)
	}
}

// Leave ends what Enter admitted.
func (g *Gate) Leave(lane uint16) {
	g.shards[lane%gateShards].inside.Add(-1)
	point.At("block: left")
	if g.closed.Load() {
		select {
		case g.drained <- struct{}{}:
		default: // one notice is enough: Close looks at every shard again
		}
	}
}

// Count adds one request to the counters.
func (g *Gate) Count(lane uint16, op Op, n int64, by Service) {
	s := &g.shards[lane%gateShards]
	s.ops[countOf(op, by)].Add(1)
	s.bytes[op].Add(uint64(n))
}

// Close stops admitting and waits for those inside. If ctx ends first Close
// returns the cause; the gate stays closed, so that the caller can see who is
// inside before it calls Open. Closing a closed gate only waits. One caller at
// a time may use Close and Open.
func (g *Gate) Close(ctx context.Context) error {
	if !g.closed.Load() {
		g.mu.Lock()
		g.opened = make(chan struct{})
		if g.drained == nil {
			g.drained = make(chan struct{}, 1)
		}
		g.mu.Unlock()
		g.closed.Store(true)
	}
	point.At("block: closed")
	for !g.empty() {
		select {
		case <-g.drained:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// empty reports whether nobody is inside a closed gate. Shards may be read
// one after the other: whoever enters one that was already seen empty finds
// the gate closed and leaves again.
func (g *Gate) empty() bool {
	for i := range g.shards {
		if g.shards[i].inside.Load() != 0 {
			return false
		}
	}
	return true
}

// Open admits again, those who wait first come.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed.Load() {
		g.closed.Store(false)
		close(g.opened)
	}
}

// Closed reports whether the gate is closed.
func (g *Gate) Closed() bool { return g.closed.Load() }

// Inside is the number of requests inside, for people: it may be out of date.
func (g *Gate) Inside() (n int64) {
	for i := range g.shards {
		n += g.shards[i].inside.Load()
	}
	return max(n, 0)
}

// Waiting is the number of requests that wait at the closed gate.
func (g *Gate) Waiting() int64 { return g.waiting.Load() }

// Counters returns what has passed so far.
func (g *Gate) Counters() (c Counters) {
	for i := range g.shards {
		for op := range numOps {
			c.Ops[op] += g.shards[i].ops[op].Load()
			c.Bytes[op] += g.shards[i].bytes[op].Load()
		}
		for op := range Op(2) {
			native, software := g.shards[i].ops[countOf(op, ByEngine)].Load(), g.shards[i].ops[countOf(op, BySoftware)].Load()
			c.Ops[op] += native + software
			c.Native[op] += native
			c.Software[op] += software
		}
	}
	return c
}
