package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"keyway/control"
	"keyway/dm"
	"keyway/internal/plural"
)

// keptEvents is how many events a reader may be behind. One is some 300 bytes.
const keptEvents = 1024

// A hub keeps the latest events. Readers have a number, not a queue: who is behind
// by more than is kept has lost the rest, and holds nobody up.
type hub struct {
	daemon string // of control.Event; set before use

	mu   sync.Mutex
	last uint64 // number of the newest
	kept [keptEvents]control.Event
	more chan struct{} // closed at the next event; nil: nobody waits
}

// publish gives e the next number. It waits for nobody.
func (h *hub) publish(e control.Event) {
	e.Time, e.Daemon = time.Now(), h.daemon
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.Seq = h.last
	h.kept[h.last%keptEvents] = e
	if h.more != nil {
		close(h.more)
		h.more = nil
	}
}

func (h *hub) newest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// after appends to all the events that are kept of those after n, preceded by one of
// lost if some are not, and the number of the newest. If there are none it returns a
// channel that is closed at the next.
func (h *hub) after(n uint64, all []control.Event) (_ []control.Event, last uint64, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n == h.last {
		if h.more == nil {
			h.more = make(chan struct{})
		}
		return all, n, h.more
	}
	oldest := max(h.last, keptEvents) - keptEvents + 1
	if n+1 < oldest {
		all = append(all, control.Event{Seq: oldest - 1, Daemon: h.daemon, Time: time.Now(), Kind: control.EventLost, Lost: oldest - 1 - n})
		n = oldest - 1
	}
	for n < h.last {
		n++
		all = append(all, h.kept[n%keptEvents])
	}
	return all, n, nil
}

// streamEvents answers GET /v1/events.
func (d *Daemon) streamEvents(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
	n, devices, err := d.eventsFrom(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	out.Flush() // tells the client that it will miss nothing from here on
	d.waiting.Add(1)
	defer d.waiting.Add(-1)
	var batch []control.Event
	for {
		var more <-chan struct{}
		batch, n, more = d.events.after(n, batch[:0])
		for _, e := range batch {
			if devices.want(e) {
				if err := enc.Encode(e); err != nil {
					return nil // the client has gone
				}
			}
		}
		if len(batch) > 0 {
			out.Flush()
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// eventsFrom reads after which event the client wants to begin, and of which devices.
func (d *Daemon) eventsFrom(r *http.Request) (n uint64, f deviceFilter, err error) {
	q := r.URL.Query()
	for _, name := range q["device"] {
		if err := checkName(name); err != nil {
			return 0, f, badRequest{err}
		}
	}
	f.names = slices.Clone(q["device"])
	n = d.events.newest()
	if q.Has("since") {
		since, err := strconv.ParseUint(q.Get("since"), 10, 64)
		if err != nil {
			return 0, f, badRequest{fmt.Errorf("since: %q is not the number of an event", q.Get("since"))}
		}
		// Of another daemon, or of one that counted further, nothing here has been
		// seen. Its first event says that it has started.
		if by := q.Get("daemon"); by != "" && by != d.events.daemon || since > n {
			since = 0
		}
		n = since
	}
	return n, f, nil
}

// A deviceFilter keeps the events of some devices, under whatever names they get; of
// all if it is empty.
type deviceFilter struct{ names []string }

func (f *deviceFilter) want(e control.Event) bool {
	switch {
	case len(f.names) == 0, e.Kind == control.EventLost, e.Kind == control.EventStarted:
		return true
	case e.From != "" && slices.Contains(f.names, e.From) && !slices.Contains(f.names, e.Device):
		f.names = append(f.names, e.Device)
		return true
	}
	return slices.Contains(f.names, e.Device) ||
		slices.ContainsFunc(e.Devices, func(name string) bool { return slices.Contains(f.names, name) })
}

// newDaemonWord tells this life of the daemon from others.
func newDaemonWord() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// deviceEvent passes on what dm tells of v; what happens before a device is there
// for others is no event.
func (d *Daemon) deviceEvent(v *device, e dm.Event) {
	if !v.announced.Load() {
		return
	}
	c := control.Event{Kind: string(e.Kind), Device: e.Device, Number: e.Number, From: e.From, Detail: e.Detail}
	if e.Err != nil {
		c.Error = e.Err.Error()
	}
	switch e.Kind {
	case dm.EventProfile:
		before, after := configs(e.Old), configs(e.New)
		c.OldProfile, c.NewProfile = &before, &after
	case dm.EventRevoked:
		c.Kind, c.Key, c.Places = control.EventKeyEvicted, e.Key, e.Places
		c.Device, c.Devices, c.Detail = "", []string{e.Device}, "revoked by a reload"
	case dm.EventQuarantined, dm.EventSlotCleared:
		c.Slot = &e.Slot
	}
	d.events.publish(c)
}

// announce tells that v is there. The caller has its token.
func (d *Daemon) announce(v *device, detail string) {
	d.mu.Lock()
	e := control.Event{Kind: control.EventCreated, Device: v.spec.Name, Detail: detail}
	m := v.m
	d.mu.Unlock()
	if m != nil {
		e.Number = m.Event()
	}
	d.events.publish(e)
	v.announced.Store(true)
}

// announceAll begins the events of what a start has brought up.
func (d *Daemon) announceAll() {
	d.mu.Lock()
	devices, exports := len(d.devices), len(d.exports)
	for _, v := range d.devices {
		v.announced.Store(true)
	}
	d.mu.Unlock()
	d.events.publish(control.Event{Kind: control.EventStarted, Detail: fmt.Sprintf("%s, %s, %s", plural.Of(devices, "device"), plural.Of(len(d.keys.List()), "key"), plural.Of(exports, "export"))})
}

// keyEvicted tells of an eviction, complete or not.
func (d *Daemon) keyEvicted(e control.Eviction) {
	c := control.Event{Kind: control.EventKeyEvicted, Key: e.Key, Places: len(e.Places), Devices: e.Devices, Error: e.Error}
	d.events.publish(c)
}
