package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/control"
)

// TestEventsEndWhenInterrupted: without an error, unless a number was asked for.
func TestEventsEndWhenInterrupted(t *testing.T) {
	c := &cli{socket: filepath.Join(t.TempDir(), "c.sock")}
	l, err := net.Listen("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		interrupt()
		<-r.Context().Done()
	})}
	go s.Serve(l)
	defer s.Close()
	if err := c.printEvents(ctx, control.EventsFrom{}, 0); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

// TestEventLine: what people read of each kind.
func TestEventLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.Local)
	slot := 3
	xts := control.Config{Mode: "AES-256-XTS", KeyType: "raw", DataUnit: 512, DUNBytes: 8}
	big := xts
	big.DataUnit = 4096
	for _, c := range []struct {
		e    control.Event
		want string
	}{
		{control.Event{Kind: "lost", Lost: 1}, "lost: 1 event"},
		{control.Event{Kind: "lost", Lost: 12}, "lost: 12 events"},
		{control.Event{Kind: "removed", Device: "vol", Number: 7}, "removed vol"},
		{control.Event{Kind: "renamed", Device: "b", From: "a"}, "renamed b: was a"},
		{control.Event{Kind: "profile", Device: "vol", OldProfile: &[]control.Config{xts}, NewProfile: &[]control.Config{xts, big}},
			"profile vol: +AES-256-XTS raw units 4096"},
		{control.Event{Kind: "profile", Device: "vol", OldProfile: &[]control.Config{xts, big}, NewProfile: &[]control.Config{big}},
			"profile vol: -AES-256-XTS raw units 512"},
		{control.Event{Kind: "key-evicted", Key: "a b", Places: 3}, `key-evicted key "a b": 3 places`},
		{control.Event{Kind: "key-evicted", Key: "k", Places: 1, Error: "no\nno"}, `key-evicted key "k": 1 place; FAILED: no; no`},
		{control.Event{Kind: "keyslot-quarantined", Device: "d", Slot: &slot, Detail: "keyslot 3, with 1 key", Error: "gone"},
			"keyslot-quarantined d: keyslot 3, with 1 key; FAILED: gone"},
	} {
		c.e.Seq, c.e.Time = 9, at
		want := "9 " + at.Format("2006-01-02T15:04:05.678Z07:00") + " " + c.want
		if got := eventLine(c.e); got != want || strings.Contains(got, "\n") {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
