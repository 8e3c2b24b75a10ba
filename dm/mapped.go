package dm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"

	"keyway/block"
	"keyway/internal/point"
)

// Errors of the control of mapped devices, compared with errors.Is.
var (
	ErrNoTable = errors.New("no table is loaded")
	ErrRemoved = errors.New("the device has been removed")
	ErrLeaf    = errors.New("is a leaf device: it has no table to change")

	// ErrImmutable refuses another table for a device that was promised to have one.
	ErrImmutable = errors.New("was made immutable: its first table is its last")
)

// Options of a new mapped device.
type Options struct {
	UUID string
	// Immutable promises that the first live table stays until the device is
	// removed. Where all devices beneath promise that too, what engines serve they
	// will always serve, and nothing is kept in reserve for keys that are started.
	Immutable bool
	// Warn is told of what went wrong after a change had taken effect, such
	// as closing a replaced table. It may be nil.
	Warn func(m *Mapped, err error)
	// Gone is called once, when the device has been removed and everything it
	// held is released. It may be nil.
	Gone func(m *Mapped)
	// Event is called at each event of the device, one at a time, in order and
	// before Wait tells of it. It must neither wait nor call this package. It
	// may be nil.
	Event func(m *Mapped, e Event)
}

// A Mapped is a device whose table can be replaced while it is in use. Use it
// through a Handle: the Device that Open returns.
type Mapped struct {
	o    Options
	gate block.Gate
	live atomic.Pointer[Table] // nil before the first resume and after removal

	// control holds the token of whoever changes the state.
	control   chan struct{}
	suspended atomic.Bool // changed only with the token

	ability atomic.Pointer[ability] // what the live table serves natively
	events  events

	unaligned func() block.Device // made at the first call
	entered   keySet              // of requests from outside

	// Guarded by graph.mu.
	name     string
	inactive *Table
	aside    *Table // what Reload will put back if it fails: as good as inactive
	handles  map[*Handle]bool
	uses     map[*use]bool // keys that were started here
	leaf     bool
	removed  bool
	deferred bool // remove at the last close
}

// New returns a device without a table.
func New(name string, o Options) *Mapped {
	m := &Mapped{o: o, name: name, control: make(chan struct{}, 1), handles: map[*Handle]bool{}, uses: map[*use]bool{}}
	m.ability.Store(&ability{})
	m.events.init(m)
	m.unaligned = sync.OnceValue(func() block.Device { return block.RMW(held{m}) })
	return m
}

// lock takes the control token.
func (m *Mapped) lock(ctx context.Context) error {
	select {
	case m.control <- struct{}{}:
		return nil
	default:
	}
	select {
	case m.control <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("device %q: waiting for another change of it to end: %w", m.Name(), context.Cause(ctx))
	}
}

func (m *Mapped) unlock() { <-m.control }

// Do maps r by the table that is live when the gate admits it.
//
// Hot: no allocation for a request within one row.
func (m *Mapped) Do(ctx context.Context, r block.Request) error {
	return m.enter(ctx, &r, &m.entered)
}

func (m *Mapped) do(ctx context.Context, r *block.Request) error {
	if err := m.gate.Enter(ctx, r.Lane, r.NoWait()); err != nil {
		if err == block.ErrWouldBlock {
			return err
		}
		return m.opError(r, fmt.Errorf("the device is suspended: %w", err))
	}
	point.At("dm: admitted")
	t := m.live.Load()
	if t == nil {
		m.gate.Leave(r.Lane)
		return m.opError(r, m.noTable())
	}
	by, err := t.do(ctx, r)
	if err == nil {
		m.gate.Count(r.Lane, r.Op, r.Len, by)
	}
	m.gate.Leave(r.Lane)
	if err != nil && err != block.ErrWouldBlock {
		return m.opError(r, err)
	}
	return err
}

// enter is do for a request from outside. If its context begins here, it counts
// as one that uses the key from now on, also while it waits at the gate
// (dm-fscrypt.md, invariant 52), and the key is noted in keys.
func (m *Mapped) enter(ctx context.Context, r *block.Request, keys *keySet) error {
	if !r.Crypt.Active() || r.Flags&block.KeyHeld != 0 {
		return m.do(ctx, r)
	}
	k := r.Crypt.Key
	if err := k.Enter(r.Lane); err != nil {
		return m.opError(r, fmt.Errorf("key %v: %w", k, err))
	}
	keys.add(k) // before any engine can know it
	held := *r
	held.Flags |= block.KeyHeld
	err := m.do(ctx, &held)
	k.Leave(r.Lane)
	return err
}

// opError adds which request it was, at the lowest device that knows.
func (m *Mapped) opError(r *block.Request, err error) error {
	if _, known := errors.AsType[*block.OpError](err); known || errors.Is(err, block.ErrWouldBlock) {
		return err
	}
	return &block.OpError{Dev: m.Name(), Op: r.Op, Off: r.Off, Len: r.Len, Err: err}
}

func (m *Mapped) noTable() error {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	if m.removed {
		return fmt.Errorf("%w: %w", block.ErrClosed, ErrRemoved)
	}
	return fmt.Errorf("%w: %w", block.ErrIO, ErrNoTable)
}

// Info describes the device under its live table; without one it has no size. What
// it serves natively is what was published last, in one piece: the devices beneath,
// asked one by one, might not agree (dm-fscrypt.md, invariant 42).
func (m *Mapped) Info() block.Info {
	if t := m.live.Load(); t != nil {
		i := t.Info()
		i.Crypto = *m.cryptoProfile()
		return i
	}
	return block.Info{LogicalBlock: 512, PhysicalBlock: 512}
}

// Extents are those of the live table. The whole walk counts as one request.
func (m *Mapped) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return func(yield func(block.Extent, error) bool) {
		if err := m.gate.Enter(ctx, 0, false); err != nil {
			yield(block.Extent{}, err)
			return
		}
		defer m.gate.Leave(0)
		t := m.live.Load()
		if t == nil || off < 0 || n < 0 || off > t.Size() || n > t.Size()-off {
			yield(block.Extent{}, block.ErrOutOfRange)
			return
		}
		for e, err := range t.Extents(ctx, off, n) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// Under is what the live table stands on.
func (m *Mapped) Under() []block.Span {
	var all []block.Span
	if t := m.live.Load(); t != nil {
		for i := range t.rows {
			all = append(all, t.rows[i].target.Under()...)
		}
	}
	return all
}

// Name returns the device's name of this moment.
func (m *Mapped) Name() string {
	graph.mu.Lock()
	defer graph.mu.Unlock()
	return m.name
}

// UUID returns the identifier given at creation, or "".
func (m *Mapped) UUID() string { return m.o.UUID }

// Counters returns what the device has done.
func (m *Mapped) Counters() block.Counters { return m.gate.Counters() }

// A State is what dmsetup info shows.
type State struct {
	Name, UUID      string
	Suspended       bool
	ReadOnly        bool
	Leaf, Immutable bool
	Live, Inactive  bool // which tables are present
	Open            int  // handles
	Holders         []string
	Rows            int
	Event           uint64
	DeferredRemove  bool
	Inside, Waiting int64 // requests in progress, and held by a suspension
	Size            int64 // bytes
}

// State returns the state of this moment.
func (m *Mapped) State() State {
	s := State{
		UUID: m.o.UUID, Suspended: m.suspended.Load(), Event: m.events.number(),
		Inside: m.gate.Inside(), Waiting: m.gate.Waiting(),
	}
	if t := m.live.Load(); t != nil {
		s.Live, s.Rows, s.ReadOnly, s.Size = true, t.Rows(), t.ReadOnly(), t.Size()
	}
	graph.mu.Lock()
	defer graph.mu.Unlock()
	s.Name, s.Leaf, s.Immutable, s.Inactive = m.name, m.leaf, m.o.Immutable, m.inactive != nil
	s.Open, s.DeferredRemove = len(m.handles), m.deferred
	s.Holders = m.holders()
	return s
}

// TableText returns the text of the live or the inactive table, "" if there
// is none.
func (m *Mapped) TableText(inactive bool, k StatusKind) string {
	t := m.live.Load()
	if inactive {
		graph.mu.Lock()
		defer graph.mu.Unlock()
		t = m.inactive
	}
	if t == nil {
		return ""
	}
	return t.Text(k)
}
