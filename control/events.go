package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An Event is a line of the answer of GET /v1/events: what happened to a device or a
// key. Which fields are set depends on Kind.
type Event struct {
	// Seq counts the events of one daemon from 1; Daemon is a word that is another
	// after each start of it.
	Seq    uint64    `json:"seq"`
	Daemon string    `json:"daemon"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`

	Device string `json:"device,omitempty"`
	Key    string `json:"key,omitempty"`
	// Number is what Wait returns for the device from then on.
	Number uint64 `json:"event,omitempty"`
	From   string `json:"from,omitempty"` // renamed: the name before
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"`

	OldProfile *[]Config `json:"old_profile,omitempty"`
	NewProfile *[]Config `json:"new_profile,omitempty"`

	Places  int      `json:"places,omitempty"`  // key-evicted: how many held it
	Devices []string `json:"devices,omitempty"` // key-evicted: that cannot work without it
	Slot    *int     `json:"slot,omitempty"`    // keyslot-quarantined and keyslot-cleared
	Lost    uint64   `json:"lost,omitempty"`    // lost: how many events are missing before the next
}

// Kinds of events.
const (
	EventStarted     = "started"   // the daemon: what there was before is to be asked for anew
	EventLost        = "lost"      // the reader was too slow, or away too long
	EventCreated     = "created"   // a device
	EventRemoved     = "removed"   // and so on
	EventRenamed     = "renamed"   //
	EventLoaded      = "loaded"    // a table, into the inactive slot
	EventCleared     = "cleared"   // the inactive slot
	EventReloaded    = "reloaded"  // another table is live
	EventSuspended   = "suspended" //
	EventResumed     = "resumed"   //
	EventProfile     = "profile"   // what engines beneath serve has changed
	EventTarget      = "target"    // a target reported something
	EventQuarantined = "keyslot-quarantined"
	EventSlotCleared = "keyslot-cleared"
	EventReset       = "engine-reset"
	EventKeyAdded    = "key-added"
	EventKeyEvicted  = "key-evicted" // or not everywhere: Error says where not
)

// EventsFrom says which events Events begins with, and which it leaves out. The zero
// value is all from now on.
type EventsFrom struct {
	Since   *uint64  // those after this number; nil: after the newest
	Daemon  string   // that counted Since; another daemon sends all that it has
	Devices []string // only of these, and of keys that they cannot work without
}

// Events returns what happens, until ctx ends, the caller breaks off, or the daemon
// goes: then comes an error, after the last event. Events of a time when the caller
// did not read are kept for it up to a number; past that it gets a lost event in
// their place.
func (c *Client) Events(ctx context.Context, from EventsFrom) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		body, err := c.eventStream(ctx, from)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer body.Close()
		dec := json.NewDecoder(bufio.NewReader(body))
		for {
			var e Event
			switch err := dec.Decode(&e); {
			case ctx.Err() != nil:
				yield(Event{}, context.Cause(ctx))
				return
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				yield(Event{}, &Error{Message: fmt.Sprintf("the daemon at %s has ended the events", c.Socket)})
				return
			case err != nil:
				yield(Event{}, c.explain(err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// eventStream opens the stream: from its return on, no event is missed.
func (c *Client) eventStream(ctx context.Context, from EventsFrom) (io.ReadCloser, error) {
	q := url.Values{"device": from.Devices}
	if from.Since != nil {
		q.Set("since", strconv.FormatUint(*from.Since, 10))
	}
	if from.Daemon != "" {
		q.Set("daemon", from.Daemon)
	}
	resp, err := c.send(ctx, http.MethodGet, "events", q, nil, -1)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
