package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/control"
)

// TestHubLosesOnlyWhatIsTooOld: a reader gets each event once and in order, and for
// those that are no longer kept one event with their number.
func TestHubLosesOnlyWhatIsTooOld(t *testing.T) {
	for _, c := range []struct {
		published, since uint64
		lost             uint64
		first, n         uint64
	}{
		{0, 0, 0, 0, 0},
		{1, 0, 0, 1, 1},
		{1, 1, 0, 0, 0},
		{keptEvents, 0, 0, 1, keptEvents},
		{keptEvents + 1, 0, 1, 2, keptEvents},
		{keptEvents + 1, 1, 0, 2, keptEvents},
		{5*keptEvents + 7, 0, 4*keptEvents + 7, 4*keptEvents + 8, keptEvents},
		{5*keptEvents + 7, 4 * keptEvents, 7, 4*keptEvents + 8, keptEvents},
		{5*keptEvents + 7, 5 * keptEvents, 0, 5*keptEvents + 1, 7},
	} {
		h := hub{daemon: "d"}
		for range c.published {
			h.publish(control.Event{Kind: "x"})
		}
		all, last, more := h.after(c.since, nil)
		if (more == nil) != (c.n > 0) {
			t.Errorf("%+v: a channel: %v", c, more != nil)
		}
		if c.lost > 0 {
			if all[0].Kind != control.EventLost || all[0].Lost != c.lost || all[0].Seq != c.first-1 {
				t.Errorf("%+v: first %+v", c, all[0])
			}
			all = all[1:]
		}
		if uint64(len(all)) != c.n || last != c.published {
			t.Fatalf("%+v: %d events up to %d", c, len(all), last)
		}
		for i, e := range all {
			if e.Seq != c.first+uint64(i) || e.Kind != "x" || e.Daemon != "d" || e.Time.IsZero() {
				t.Fatalf("%+v: event %d is %+v", c, i, e)
			}
		}
	}
}

// TestHubWakesAllWhoWait: none of many readers misses one of many events, and none
// sleeps when there is one (dm-fscrypt.md, race 21).
func TestHubWakesAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events, readers = 300, 8 // fewer than are kept
		var h hub
		var wg sync.WaitGroup
		for range readers {
			wg.Go(func() {
				var got uint64
				for n := uint64(0); n < events; {
					all, last, more := h.after(n, nil)
					if more != nil {
						<-more
					}
					for _, e := range all {
						if got++; e.Seq != got {
							t.Errorf("event %d after %d", e.Seq, got-1)
						}
					}
					n = last
				}
			})
		}
		for range 3 {
			wg.Go(func() {
				for range events / 3 {
					h.publish(control.Event{})
				}
			})
		}
		wg.Wait() // a reader that slept for ever would be a deadlock here
	})
}

// collect reads so many events.
func collect(t *testing.T, c *control.Client, from control.EventsFrom, n int) (all []control.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("too few events"))
	defer cancel()
	for e, err := range c.Events(ctx, from) {
		if err != nil {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		if all = append(all, e); len(all) == n {
			break
		}
	}
	return all
}

func kinds(all []control.Event) (k []string) {
	for _, e := range all {
		k = append(k, strings.TrimSpace(e.Kind+" "+e.Device+e.Key))
	}
	return k
}

// subscribe begins a stream of which nothing is read.
func subscribe(ctx context.Context, c *control.Client) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://keyway/v1/events", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}).RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// since is EventsFrom after event n.
func since(n uint64, devices ...string) control.EventsFrom {
	return control.EventsFrom{Since: &n, Devices: devices}
}

// TestEventsOverTheSocket: what the control API changes is told, in order, to all or
// to those who name the device; a rename does not lose it.
func TestEventsOverTheSocket(t *testing.T) {
	d, c := start(t, nil)
	ctx := t.Context()
	must := func(ch control.Changed, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Create(ctx, control.Create{Name: "a", Backend: "mem:1M"}))
	must(c.Create(ctx, control.Create{Name: "m", Table: "0 2048 linear a 0"}))
	if _, err := c.Create(ctx, control.Create{Name: "bad", Table: "0 2048 linear nowhere 0"}); err == nil {
		t.Error("made a device on nothing")
	}
	must(c.Load(ctx, "m", control.Load{Table: "0 2048 zero"}))
	must(c.Clear(ctx, "m"))
	must(c.Suspend(ctx, "m", control.Suspend{}))
	must(c.Resume(ctx, "m"))
	must(c.Rename(ctx, "m", "n"))
	must(c.Reload(ctx, "n", control.Load{Table: "0 2048 zero"}))
	must(c.Remove(ctx, "n", control.Remove{}))
	want := []string{"started", "created a", "created m", "loaded m", "cleared m", "suspended m", "resumed m", "renamed n", "reloaded n", "removed n"}
	all := collect(t, c, since(0), len(want))
	if got := kinds(all); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if n := d.events.newest(); n != uint64(len(want)) {
		t.Errorf("%d events, want %d", n, len(want))
	}
	if e := all[7]; e.From != "m" {
		t.Errorf("renamed from %q", e.From)
	}
	mine := append([]string{"started"}, want[2:]...)
	if got := kinds(collect(t, c, since(0, "m"), len(mine))); !slices.Equal(got, mine) {
		t.Errorf("events of m: %q, want %q", got, mine)
	}
	if got := kinds(collect(t, c, since(6), 2)); !slices.Equal(got, want[6:8]) {
		t.Errorf("events after 6: %q", got)
	}
	for _, from := range []control.EventsFrom{
		since(1 << 40),
		{Since: &all[4].Seq, Daemon: "another"},
	} {
		if got := kinds(collect(t, c, from, 2)); !slices.Equal(got, want[:2]) {
			t.Errorf("%+v: events of another daemon: %q, want all of this one", from, got)
		}
	}
	if got := collect(t, c, control.EventsFrom{Since: &all[4].Seq, Daemon: all[4].Daemon}, 1); got[0].Seq != all[4].Seq+1 {
		t.Errorf("reconnected after %d: got %d", all[4].Seq, got[0].Seq)
	}
	for _, err := range c.Events(ctx, control.EventsFrom{Devices: []string{"a b"}}) {
		if e, ok := errors.AsType[*control.Error](err); !ok || e.Status != 400 {
			t.Errorf("a bad name: %v", err)
		}
		break
	}
}

// TestEventsFollowAWait: whoever a wait has woken finds the event that woke it in
// the stream, and a subscription misses nothing from its beginning on.
func TestEventsFollowAWait(t *testing.T) {
	_, c := start(t, nil)
	ctx := t.Context()
	if _, err := c.Create(ctx, control.Create{Name: "m", Table: "0 8 zero"}); err != nil {
		t.Fatal(err)
	}
	const reloads = 20
	body, err := subscribe(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range reloads {
			if _, err := c.Reload(ctx, "m", control.Load{Table: "0 8 zero"}); err != nil {
				t.Error(err)
			}
		}
	})
	first := uint64(0)
	for n := uint64(1); n < reloads+1; {
		now, err := c.Wait(ctx, "m", n)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for e, err := range c.Events(ctx, since(first, "m")) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Number >= now {
				found = true
				break
			}
		}
		if !found {
			t.Errorf("no event of number %d", now)
		}
		n = now
	}
	wg.Wait()
	dec := json.NewDecoder(body)
	for i := range reloads {
		var e control.Event
		if err := dec.Decode(&e); err != nil || e.Kind != control.EventReloaded || e.Number != uint64(i+2) {
			t.Fatalf("event %d of the subscription: %+v, %v", i, e, err)
		}
	}
}

// TestSlowReaderHoldsNobodyUp: a client that does not read costs the daemon nothing
// but what is kept; when it reads on, the numbers say how much it has lost.
func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	d, c := start(t, nil)
	body, err := subscribe(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	first := d.events.newest()
	const events = 20 * keptEvents // more than the socket's buffers hold
	long := strings.Repeat("x", 1000)
	for range events {
		d.events.publish(control.Event{Kind: "x", Detail: long})
	}
	d.events.publish(control.Event{Kind: "last"})
	dec := json.NewDecoder(body)
	var got, lost uint64
	for n := first; ; {
		var e control.Event
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Kind == control.EventLost {
			lost += e.Lost
			if e.Seq != n+e.Lost {
				t.Fatalf("lost %d after %d, but goes on after %d", e.Lost, n, e.Seq)
			}
			n = e.Seq
			continue
		}
		got++
		if n++; e.Seq != n {
			t.Fatalf("event %d after %d", e.Seq, n-1)
		}
		if e.Kind == "last" {
			break
		}
	}
	if got+lost != events+1 || lost == 0 {
		t.Errorf("%d events and %d lost, want %d together and some lost", got, lost, events+1)
	}
}

// TestEventsEndWithTheDaemon: the client hears of it at once.
func TestEventsEndWithTheDaemon(t *testing.T) {
	d, c := start(t, nil)
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		var last error
		for _, err := range c.Events(t.Context(), since(0)) {
			if last = err; err == nil {
				close(began) // "started"
			}
		}
		ended <- last
	}()
	<-began
	begin := time.Now()
	stop(t, d)
	if took := time.Since(begin); took > controlGrace {
		t.Errorf("the end took %v: it waited for a reader of events", took)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "has ended the events") {
		t.Errorf("ended with %v", err)
	}
}

// TestEventsOfKeysAndSlots: an eviction that fails is told with what failed, the
// keyslot in quarantine too, and both again when they have succeeded (dm-fscrypt.md,
// invariants 53 and 54).
func TestEventsOfKeysAndSlots(t *testing.T) {
	d, c := start(t, nil)
	ctx := t.Context()
	if _, err := c.Create(ctx, control.Create{Name: "disk", Backend: "mem:1M", Engine: "ufs"}); err != nil {
		t.Fatal(err)
	}
	addKey(t, c, "k")
	table := "0 2048 default-key aes-xts-plain64 :64:logon:k 0 disk 0 2 sector_size:4096 iv_large_sectors"
	if _, err := c.Create(ctx, control.Create{Name: "vol", Table: table}); err != nil {
		t.Fatal(err)
	}
	rw(t, d, "vol", block.OpWrite, make([]byte, 4096))
	say := func(words ...string) {
		t.Helper()
		if _, err := c.Message(ctx, "disk", control.Message{Words: words}); err != nil {
			t.Fatal(err)
		}
	}
	say("reset")
	say("fail", "evict", "1")
	e, err := c.EvictKey(ctx, "k", control.EvictKey{})
	if err != nil || e.Error == "" {
		t.Fatalf("an eviction that an engine fails: %+v, %v", e, err)
	}
	if e, err = c.EvictKey(ctx, "k", control.EvictKey{}); err != nil || e.Error != "" {
		t.Fatalf("once more: %+v, %v", e, err)
	}
	want := []string{"started", "created disk", "key-added k", "created vol", "engine-reset disk",
		"keyslot-quarantined disk", "key-evicted k", "keyslot-cleared disk", "key-evicted k"}
	all := collect(t, c, since(0), len(want))
	if got := kinds(all); !slices.Equal(got, want) {
		t.Fatalf("events %q, want %q", got, want)
	}
	if e := all[5]; e.Error == "" || e.Slot == nil || *e.Slot != 0 {
		t.Errorf("quarantine: %+v", e)
	}
	if e := all[6]; e.Error == "" || e.Places == 0 || !slices.Equal(e.Devices, []string{"vol"}) {
		t.Errorf("failed eviction: %+v", e)
	}
	if e := all[8]; e.Error != "" {
		t.Errorf("eviction: %+v", e)
	}
	if got := kinds(collect(t, c, since(1, "vol"), 3)); !slices.Equal(got, []string{"created vol", "key-evicted k", "key-evicted k"}) {
		t.Errorf("events of vol: %q", got)
	}
}
