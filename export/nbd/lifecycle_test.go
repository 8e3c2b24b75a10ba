package nbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/export"
	"keyway/internal/nbdproto"
	"keyway/internal/nbdproto/nbdtest"
)

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestPeerLeavesInTheMiddle cuts the connection at every stage; start's
// cleanup finds what is left over.
func TestPeerLeavesInTheMiddle(t *testing.T) {
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: newMemory(4 << 20)})
	w := nbdproto.Request{Type: nbdproto.CmdWrite, Length: 1 << 20}
	small := nbdproto.Request{Type: nbdproto.CmdWrite, Length: 4096}
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"header":        w.Append(nil)[:13],
		"payload":       append(w.Append(nil), make([]byte, 300000)...),
		"small payload": append(small.Append(nil), make([]byte, 100)...),
		"no answer":     bytes.Repeat((&nbdproto.Request{Type: nbdproto.CmdRead, Length: 1 << 20}).Append(nil), 64),
	} {
		t.Run(name, func(t *testing.T) {
			c := enter(t, dial(), "d", nbdproto.Simple, false)
			if err := c.Send(b); err != nil {
				t.Fatal(err)
			}
			c.Conn.Close()
			eventually(t, "the connection is forgotten", func() bool { return len(s.Connections()) == 0 })
		})
	}
	for _, n := range []int{0, 4, 10, 20} {
		nc := dial()
		nc.Write(append([]byte{0, 0, 0, 3}, nbdtest.OptionBytes(nbdproto.OptList, nil)...)[:n])
		nc.Close()
	}
	eventually(t, "connections in negotiation are forgotten", func() bool { return len(s.Connections()) == 0 })
}

// TestPeerLeavesASuspendedDevice: requests that wait at a closed gate leave it
// when nobody waits for them any more, whether the lane is reading or waits
// for room.
func TestPeerLeavesASuspendedDevice(t *testing.T) {
	for _, n := range []int{3, 40} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dev := newMemory(4 << 20)
			s, dial := start(t, Config{MaxInFlight: 8}, export.Export{Name: "d", Dev: dev})
			c := enter(t, dial(), "d", nbdproto.Simple, false)
			suspend(t, dev)
			for range n {
				if err := c.Request(nbdproto.CmdWrite, 0, 0, 4096, make([]byte, 4096)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the device is asked", func() bool { return dev.inside.Load() == int64(min(n, 8)) })
			c.Conn.Close()
			eventually(t, "the device is left", func() bool { return dev.inside.Load() == 0 })
			eventually(t, "the connection is forgotten", func() bool { return len(s.Connections()) == 0 })
		})
	}
}

// TestSuspendLosesNothing: what was sent while the device was suspended is
// answered after it resumes, and other exports go on meanwhile.
func TestSuspendLosesNothing(t *testing.T) {
	dev := newMemory(4 << 20)
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev}, export.Export{Name: "other", Dev: newMemory(1 << 20)})
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	resume := suspend(t, dev)
	const n = 300 // more than MaxInFlight
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			r := nbdproto.Request{Type: nbdproto.CmdWrite, Cookie: uint64(i), Offset: uint64(i) * 8192, Length: 8000}
			if _, err := c.Conn.Write(append(r.Append(nil), fill(8000, byte(i))...)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	eventually(t, "the connection is full", func() bool {
		l := s.Connections()
		return len(l) == 1 && l[0].InFlight == s.cfg.MaxInFlight
	})
	o := enter(t, dial(), "other", nbdproto.Simple, false)
	do(t, o, nbdproto.CmdRead, 0, 0, 4096, nil, 0)
	resume()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for range n {
		b := make([]byte, nbdproto.SimpleSize)
		if _, err := io.ReadFull(c.Conn, b); err != nil {
			t.Fatal(err)
		}
		if h, _, err := nbdproto.ParseReply(b, nbdproto.Simple); err != nil || h.Errno != 0 {
			t.Fatalf("%+v %v", h, err)
		}
	}
	for i := range n {
		if a := do(t, c, nbdproto.CmdRead, 0, uint64(i)*8192, 8000, nil, 0); !bytes.Equal(a.Data, fill(8000, byte(i))) {
			t.Fatalf("write %d came back changed", i)
		}
	}
}

// TestBytesInFlightAreBounded: at the limit a connection is not read, and one
// that has nothing in flight still gets its turn.
func TestBytesInFlightAreBounded(t *testing.T) {
	dev := newMemory(8 << 20)
	s, dial := start(t, Config{ConnBytes: 2 << 20, ServerBytes: 1 << 20}, export.Export{Name: "d", Dev: dev}, export.Export{Name: "other", Dev: newMemory(4 << 20)})
	resume := suspend(t, dev)
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	for range 4 {
		if err := c.Send((&nbdproto.Request{Type: nbdproto.CmdRead, Length: 1 << 20}).Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "one request is in the device", func() bool { return dev.inside.Load() == 1 })
	o := enter(t, dial(), "other", nbdproto.Simple, false)
	do(t, o, nbdproto.CmdWrite, 0, 0, 3<<20, fill(3<<20, 1), 0)
	if n := dev.inside.Load(); n != 1 {
		t.Errorf("%d requests of 1 MiB with 1 MiB allowed", n)
	}
	if held := s.Connections()[0].InFlight; held != 1 {
		t.Errorf("%d in flight", held)
	}
	resume()
	if _, err := io.CopyN(io.Discard, c.Conn, 4*(nbdproto.SimpleSize+1<<20)); err != nil {
		t.Fatal(err)
	}
}

// TestSlowReaderHarmsNobody: a peer that does not read its replies is cut.
func TestSlowReaderHarmsNobody(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		dev := newMemory(4 << 20)
		dev.blocks.Store(blocks)
		s, dial := start(t, Config{StallTimeout: 200 * time.Millisecond}, export.Export{Name: "d", Dev: dev})
		slow := enter(t, dial(), "d", nbdproto.Simple, false)
		for range 64 {
			if err := slow.Request(nbdproto.CmdRead, 0, 0, 1<<20, nil); err != nil {
				break
			}
		}
		c := enter(t, dial(), "d", nbdproto.Simple, false)
		do(t, c, nbdproto.CmdRead, 0, 0, 1<<20, nil, 0)
		eventually(t, "the slow reader is cut", func() bool { return len(s.Connections()) == 1 })
		do(t, c, nbdproto.CmdRead, 0, 0, 1<<20, nil, 0)
	}
}

func TestStalledPayloadIsCut(t *testing.T) {
	s, dial := start(t, Config{StallTimeout: 100 * time.Millisecond}, export.Export{Name: "d", Dev: newMemory(4 << 20)})
	for _, n := range []int{4096, 1 << 20} {
		c := enter(t, dial(), "d", nbdproto.Simple, false)
		if err := c.Request(nbdproto.CmdWrite, 0, 0, uint64(n), make([]byte, n/2)); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
	}
	// Idling between requests is no stall.
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	time.Sleep(300 * time.Millisecond)
	do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
	if len(s.Connections()) != 1 {
		t.Error("stalled connections are left")
	}
}

func TestSlowNegotiatorIsCut(t *testing.T) {
	_, dial := start(t, Config{HandshakeTimeout: 100 * time.Millisecond}, export.Export{Name: "d", Dev: newMemory(1 << 20)})
	for _, flags := range [][]byte{nil, {0, 0, 0, 3}} {
		nc := dial()
		nc.Write(flags)
		if _, err := io.Copy(io.Discard, nc); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("the connection is still there: %v", err)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	s, dial := start(t, Config{MaxConnections: 3}, export.Export{Name: "d", Dev: newMemory(1 << 20)})
	lanes := map[uint16]bool{}
	for range 3 {
		enter(t, dial(), "d", nbdproto.Simple, false)
	}
	for _, i := range s.Connections() {
		lanes[i.Lane] = true
	}
	if len(lanes) != 3 || lanes[0] {
		t.Errorf("lanes %v", lanes)
	}
	if _, err := nbdtest.Dial(dial(), "d", nbdproto.Simple, false); err == nil {
		t.Error("a fourth connection was let in")
	}
	if n := len(s.Connections()); n != 3 {
		t.Errorf("%d connections", n)
	}
}

func TestManyExports(t *testing.T) {
	s, dial := start(t, Config{Default: "e7"})
	for i := range 200 {
		dev := newMemory(int64(i+1) * 4096)
		if err := s.Add(export.Export{Name: fmt.Sprint("e", i), Description: "number " + fmt.Sprint(i), Dev: dev, ReadOnly: i%2 == 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(export.Export{Name: "e5", Dev: newMemory(4096)}); err == nil {
		t.Error("a name was taken twice")
	}
	for _, e := range []export.Export{{Name: strings.Repeat("x", 4097), Dev: newMemory(4096)}, {Name: "a\x00", Dev: newMemory(4096)}, {Name: "\xff", Dev: newMemory(4096)}, {Name: "no device"}} {
		if err := s.Add(e); err == nil {
			t.Errorf("export %.10q was taken", e.Name)
		}
	}
	c := &nbdtest.Client{Conn: dial()}
	if err := c.Hello(3); err != nil {
		t.Fatal(err)
	}
	reps, err := c.Option(nbdproto.OptList, nil)
	if err != nil || len(reps) != 201 || len(s.List()) != 200 {
		t.Fatalf("%d replies, %v", len(reps), err)
	}
	for _, k := range []struct {
		name string
		size uint64
	}{{"e0", 4096}, {"e199", 200 * 4096}, {"", 8 * 4096}} {
		if c := enter(t, dial(), k.name, nbdproto.Simple, false); c.Size != k.size || c.Flags&nbdproto.ReadOnly != 0 && k.name == "e0" {
			t.Errorf("%q: %d bytes, flags %#x", k.name, c.Size, c.Flags)
		}
	}
}

// TestRemoveDrains: what is in the device is answered, later requests and
// connections are refused, and other exports of the device go on.
func TestRemoveDrains(t *testing.T) {
	dev := newMemory(1 << 20)
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev}, export.Export{Name: "same", Dev: dev})
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	other := enter(t, dial(), "same", nbdproto.Simple, false)
	resume := suspend(t, dev)
	if err := c.Request(nbdproto.CmdWrite, 0, 0, 4096, fill(4096, 9)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the write is in the device", func() bool { return dev.inside.Load() == 1 })
	removed := make(chan error, 1)
	go func() { removed <- s.Remove(context.Background(), "d") }()
	eventually(t, "it is off the list", func() bool { return len(s.List()) == 1 })
	if _, err := nbdtest.Dial(dial(), "d", nbdproto.Simple, false); err == nil {
		t.Error("the export could still be entered")
	}
	select {
	case err := <-removed:
		t.Fatalf("Remove returned before its requests: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	resume()
	if a, err := c.Answer(nbdproto.CmdWrite, 0, 4096); err != nil || a.Errno != 0 {
		t.Errorf("the write: %+v %v", a, err)
	}
	if err := <-removed; err != nil {
		t.Errorf("Remove: %v", err)
	}
	ended(t, c)
	if a := do(t, other, nbdproto.CmdRead, 0, 0, 4096, nil, 0); !bytes.Equal(a.Data, fill(4096, 9)) {
		t.Error("the write is lost")
	}
	if err := s.Remove(context.Background(), "d"); err == nil {
		t.Error("removed twice")
	}
	if err := s.Add(export.Export{Name: "d", Dev: dev}); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

// TestRemoveHasADeadline: a device that stays suspended does not hold up the
// removal for ever; its clients are told.
func TestRemoveHasADeadline(t *testing.T) {
	dev := newMemory(1 << 20)
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	suspend(t, dev)
	if err := c.Request(nbdproto.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the read is in the device", func() bool { return dev.inside.Load() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Remove(ctx, "d"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Remove: %v", err)
	}
	if dev.inside.Load() != 0 {
		t.Error("Remove returned with a request in the device")
	}
	if len(s.Connections()) != 0 {
		t.Error("a connection is left")
	}
}

// TestServeDrains: the end of the context completes what is in the device.
func TestServeDrains(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			dev := newMemory(1 << 20)
			s, err := New(Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Add(export.Export{Name: "d", Dev: dev}); err != nil {
				t.Fatal(err)
			}
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			l, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx, l) }()
			dial := func() net.Conn {
				nc, err := net.Dial(network, l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { nc.Close() })
				nc.SetDeadline(time.Now().Add(patience))
				return nc
			}
			c, idle := enter(t, dial(), "d", nbdproto.Simple, false), enter(t, dial(), "d", nbdproto.Extended, false)
			halfway := &nbdtest.Client{Conn: dial()}
			if err := halfway.Hello(3); err != nil {
				t.Fatal(err)
			}
			resume := suspend(t, dev)
			if err := c.Request(nbdproto.CmdWrite, 0, 0, 4096, fill(4096, 9)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the write is in the device", func() bool { return dev.inside.Load() == 1 })
			stop()
			ended(t, idle)
			if reps, err := halfway.Option(nbdproto.OptGo, nbdtest.InfoData("d")); err == nil && reps[len(reps)-1].Type != nbdproto.RepErrShutdown {
				t.Errorf("negotiation went on: %v", reps)
			}
			resume()
			if a, err := c.Answer(nbdproto.CmdWrite, 0, 4096); err != nil || a.Errno != 0 {
				t.Errorf("the write: %+v %v", a, err)
			}
			ended(t, c)
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

func TestServeCutsWhatDoesNotEnd(t *testing.T) {
	dev := newMemory(1 << 20)
	s, err := New(Config{DrainTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Add(export.Export{Name: "d", Dev: dev}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := enter(t, nc, "d", nbdproto.Simple, false)
	suspend(t, dev)
	if err := c.Request(nbdproto.CmdRead, 0, 0, 4096, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the read is in the device", func() bool { return dev.inside.Load() == 1 })
	stop()
	if err := <-served; err == nil {
		t.Error("Serve kept quiet about a connection that it cut")
	}
	if dev.inside.Load() != 0 || len(s.Connections()) != 0 {
		t.Error("something is left")
	}
}

// TestDiscWaitsForWhatWasSent: a disconnect comes after the replies.
func TestDiscWaitsForWhatWasSent(t *testing.T) {
	dev := newMemory(1 << 20)
	dev.blocks.Store(true)
	c := client(t, dev, nbdproto.Simple, false)
	b := (&nbdproto.Request{Type: nbdproto.CmdWrite, Cookie: 1, Length: 512}).Append(nil)
	b = append(b, make([]byte, 512)...)
	b = (&nbdproto.Request{Type: nbdproto.CmdFlush, Cookie: 2}).Append(b)
	b = (&nbdproto.Request{Type: nbdproto.CmdDisc, Cookie: 3}).Append(b)
	if err := c.Send(b); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c.Conn)
	if err != nil || len(got) != 2*nbdproto.SimpleSize {
		t.Errorf("%x %v", got, err)
	}
}

// TestFlushCoversOtherConnections is the promise of CAN_MULTI_CONN: what was
// answered on one connection is flushed by another, and read by it.
func TestFlushCoversOtherConnections(t *testing.T) {
	dev := newMemory(1 << 20)
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	a, b := enter(t, dial(), "d", nbdproto.Simple, false), enter(t, dial(), "d", nbdproto.Structured, false)
	do(t, a, nbdproto.CmdWrite, 0, 0, 4096, fill(4096, 2), 0)
	if dev.flushes.Load() != 0 {
		t.Fatal("flushed before the flush")
	}
	do(t, b, nbdproto.CmdFlush, 0, 0, 0, nil, 0)
	if dev.flushes.Load() != 1 {
		t.Errorf("%d flushes of the one device", dev.flushes.Load())
	}
	if r := do(t, b, nbdproto.CmdRead, 0, 0, 4096, nil, 0); !bytes.Equal(r.Data, fill(4096, 2)) {
		t.Error("the other connection reads something else")
	}
}

func TestConnectionsTellWhatWasDone(t *testing.T) {
	dev := newMemory(1 << 20)
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	c := enter(t, dial(), "d", nbdproto.Extended, false)
	do(t, c, nbdproto.CmdWrite, 0, 0, 4096, make([]byte, 4096), 0)
	do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
	do(t, c, nbdproto.CmdRead, 0, 2<<20, 512, nil, nbdproto.EINVAL)
	do(t, c, nbdproto.CmdFlush, 0, 0, 0, nil, 0)
	l := s.Connections()
	want := Counters{Reads: 1, Writes: 1, Flushes: 1, BytesRead: 512, BytesWritten: 4096, Errors: 1}
	if len(l) != 1 || l[0].Export != "d" || l[0].Style != "extended" || l[0].TLS || l[0].Counters != want {
		t.Errorf("%+v", l)
	}
}

// TestBlockingDeviceIsNotAskedInVain: a device that keeps turning NoWait away
// is asked now and then only, and served inline again once it does not.
func TestBlockingDeviceIsNotAskedInVain(t *testing.T) {
	dev := newMemory(1 << 20)
	dev.blocks.Store(true)
	s, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	c := enter(t, dial(), "d", nbdproto.Simple, false)
	const n = 2000
	for range n {
		do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
	}
	if got, most := dev.refused.Load(), int64(enoughMisses+n/skipAttempts+1); got == 0 || got > most {
		t.Errorf("asked %d times for %d requests, want at most %d", got, n, most)
	}
	dev.blocks.Store(false)
	for range skipAttempts + 1 {
		do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
	}
	was := s.Connections()[0].Deferred
	do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
	if now := s.Connections()[0].Deferred; now != was {
		t.Error("still handed to workers")
	}
}
