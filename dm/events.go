package dm

import (
	"context"
	"fmt"
	"sync"

	"keyway/blkcrypto"
	"keyway/internal/plural"
	"keyway/internal/point"
	"keyway/keyslot"
)

// An EventKind says what happened to a device.
type EventKind string

// What counts in Mapped.Event, and ends a Wait.
const (
	EventReloaded EventKind = "reloaded" // another table is live
	EventProfile  EventKind = "profile"  // what engines beneath serve has changed, perhaps by a reload of a device beneath
	EventRenamed  EventKind = "renamed"
	EventRemoved  EventKind = "removed"
	EventTarget   EventKind = "target"  // a target reported something
	EventRevoked  EventKind = "revoked" // a reload evicted a wrapped key that the new table cannot serve

	// Of the engine of a leaf device.
	EventQuarantined EventKind = "keyslot-quarantined" // it could not empty a keyslot
	EventSlotCleared EventKind = "keyslot-cleared"     // and now it could
	EventReset       EventKind = "engine-reset"
)

// What does not count, as in device-mapper.
const (
	EventLoaded    EventKind = "loaded"  // a table is in the inactive slot
	EventCleared   EventKind = "cleared" // the inactive slot is empty
	EventSuspended EventKind = "suspended"
	EventResumed   EventKind = "resumed"
)

func (k EventKind) counts() bool {
	switch k {
	case EventLoaded, EventCleared, EventSuspended, EventResumed:
		return false
	}
	return true
}

// An Event is one thing that happened to a device.
type Event struct {
	Kind   EventKind
	Device string // its name at that moment; of EventRenamed, the new one
	Number uint64 // what Mapped.Event returns from then on
	From   string // of EventRenamed: the name before
	Detail string // for people, or ""
	Err    error  // EventQuarantined: what the engine said; EventReset: which keys are not in place; EventRevoked: where it is not gone
	Slot   int    // EventQuarantined, EventSlotCleared

	Old, New blkcrypto.Profile // of EventProfile

	Key    string // of EventRevoked
	Places int    // that held it
}

// events counts what happened to a device, and tells who listens.
type events struct {
	mu      sync.Mutex
	name    string // the device's; here because graph.mu may be held, or not
	tell    func(Event)
	n       uint64
	changed chan struct{} // closed and replaced at each event that counts
}

func (e *events) init(m *Mapped) {
	e.name, e.changed = m.name, make(chan struct{})
	if f := m.o.Event; f != nil {
		e.tell = func(ev Event) { f(m, ev) }
	}
}

// raise tells of ev first, and then wakes: whoever a Wait has woken finds what
// woke it among the events.
func (e *events) raise(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.raiseLocked(ev)
}

func (e *events) raiseLocked(ev Event) {
	if ev.Kind.counts() {
		e.n++
	}
	ev.Device, ev.Number = e.name, e.n
	if e.tell != nil {
		e.tell(ev)
	}
	if ev.Kind.counts() {
		close(e.changed)
		e.changed = make(chan struct{})
	}
}

func (e *events) rename(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.name
	e.name = name
	e.raiseLocked(Event{Kind: EventRenamed, From: old})
}

func (e *events) number() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// noteSuspension raises what became of a device that was suspended or not; the
// caller has the token. What a reload suspends on the way nobody is told.
func (m *Mapped) noteSuspension(was bool) {
	switch now := m.suspended.Load(); {
	case now && !was:
		m.events.raise(Event{Kind: EventSuspended})
	case was && !now:
		m.events.raise(Event{Kind: EventResumed})
	}
}

// Raise makes text an event of the device whose table the target is in, as
// dm_table_event does. It does nothing before the table is loaded. It waits for
// nobody and may be called from any goroutine and with any lock of the target held;
// it costs too much to be called for each request.
func (b *Builder) Raise(text string) {
	if e := b.events.Load(); e != nil {
		e.raise(Event{Kind: EventTarget, Detail: fmt.Sprintf("%s: %s", b.typ, text)})
	}
}

// engineEvent makes what an engine tells an event of its leaf device.
func (e *events) engineEvent(k keyslot.Event) {
	ev := Event{Slot: k.Slot, Err: k.Err}
	switch k.Kind {
	case keyslot.Quarantined:
		ev.Kind, ev.Detail = EventQuarantined, fmt.Sprintf("keyslot %d, with %s", k.Slot, plural.Of(k.Keys, "key"))
	case keyslot.Cleared:
		ev.Kind, ev.Detail = EventSlotCleared, fmt.Sprintf("keyslot %d", k.Slot)
	case keyslot.WasReset:
		ev.Kind, ev.Detail = EventReset, plural.Of(k.Keys, "key")+" in place again"
	}
	e.raise(ev)
}

// raiseTo makes the targets' events those of the device that e is of.
func (t *Table) raiseTo(e *events) {
	for i := range t.rows {
		t.rows[i].builder.events.Store(e)
	}
}

// extent says how much a table is, for people.
func (t *Table) extent() string {
	rows := fmt.Sprint(t.Rows(), " rows")
	if t.Rows() == 1 {
		rows = "1 row"
	}
	return fmt.Sprintf("%s, %d sectors", rows, t.Size()>>sectorShift)
}

// Event is the number of events so far that count.
func (m *Mapped) Event() uint64 { return m.events.number() }

// Wait returns the number of events as soon as it differs from n, also if n
// is yet to come (dm-fscrypt.md, invariant 32).
func (m *Mapped) Wait(ctx context.Context, n uint64) (uint64, error) {
	for {
		m.events.mu.Lock()
		now, changed := m.events.n, m.events.changed
		m.events.mu.Unlock()
		if now != n {
			return now, nil
		}
		point.At("dm: waiting for an event")
		select {
		case <-changed:
		case <-ctx.Done():
			return now, context.Cause(ctx)
		}
	}
}
