package nbd

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"keyway/block"
	"keyway/export"
	"keyway/internal/nbdproto"
	"keyway/internal/nbdproto/nbdtest"
	"keyway/internal/race"
)

// flat is a memory device without locks, for what is measured.
type flat struct{ mem []byte }

func (d flat) Do(_ context.Context, r block.Request) error {
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(d.mem[r.Off : r.Off+r.Len])
	case block.OpWrite:
		r.Data.CopyTo(d.mem[r.Off : r.Off+r.Len])
	}
	return nil
}

func (d flat) Info() block.Info {
	return block.Info{Size: int64(len(d.mem)), LogicalBlock: 512, PhysicalBlock: 4096, FUA: block.Native, NeverBlocks: true}
}

func (d flat) Close() error { return nil }

// A volley is a batch of equal requests and room for its replies.
type volley struct {
	nc      net.Conn
	send    []byte
	replies []byte
}

func newVolley(tb testing.TB, s nbdproto.Style, typ uint16, n, depth int) *volley {
	tb.Helper()
	srv, err := New(Config{})
	if err != nil {
		tb.Fatal(err)
	}
	mem := make([]byte, 16<<20)
	for i := range mem {
		mem[i] = 1
	}
	if err := srv.Add(export.Export{Name: "d", Dev: flat{mem}}); err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(tb.TempDir(), "s"))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, l) }()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		nc.Close()
		stop()
		<-served
	})
	v := &volley{nc: nc}
	c, err := nbdtest.Dial(nc, "d", s, false)
	if err != nil {
		tb.Fatal(err)
	}
	reply := 0
	for i := range depth {
		r := nbdproto.Request{Type: typ, Cookie: uint64(i), Offset: uint64(i*n) % (8 << 20), Length: uint64(n)}
		if typ == nbdproto.CmdWrite {
			if s == nbdproto.Extended {
				r.Flags = nbdproto.CmdFlagPayloadLen
			}
			v.send = append(append(v.send, c.Header(r)...), make([]byte, n)...)
			reply += len(s.AppendDone(nil, &r))
		} else {
			v.send = append(v.send, c.Header(r)...)
			reply += len(s.AppendData(nil, &r, 0, n, true)) + n
		}
	}
	v.replies = make([]byte, reply)
	return v
}

// fire sends the batch and takes the replies.
func (v *volley) fire(tb testing.TB) {
	if _, err := v.nc.Write(v.send); err != nil {
		tb.Fatal(err)
	}
	for got := 0; got < len(v.replies); {
		n, err := v.nc.Read(v.replies[got:])
		if err != nil {
			tb.Fatal(err)
		}
		got += n
	}
}

var volleys = []struct {
	name  string
	style nbdproto.Style
	typ   uint16
	n     int
	depth int
}{
	{"read 4K", nbdproto.Simple, nbdproto.CmdRead, 4096, 16},
	{"write 4K", nbdproto.Simple, nbdproto.CmdWrite, 4096, 16},
	{"structured read 4K", nbdproto.Structured, nbdproto.CmdRead, 4096, 16},
	{"extended read 4K", nbdproto.Extended, nbdproto.CmdRead, 4096, 16},
	{"extended write 4K", nbdproto.Extended, nbdproto.CmdWrite, 4096, 16},
	{"write 128K", nbdproto.Simple, nbdproto.CmdWrite, 128 << 10, 1},
}

// TestRequestsAllocateNothing: in steady state, for what is done inline.
func TestRequestsAllocateNothing(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties pools at will")
	}
	for _, k := range volleys {
		t.Run(k.name, func(t *testing.T) {
			v := newVolley(t, k.style, k.typ, k.n, k.depth)
			v.fire(t)
			// The average over the requests: a collection in between may empty
			// a pool.
			if n := testing.AllocsPerRun(500, func() { v.fire(t) }); n != 0 {
				t.Errorf("%v allocations for %d requests", n, k.depth)
			}
		})
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, k := range volleys {
		b.Run(k.name, func(b *testing.B) {
			v := newVolley(b, k.style, k.typ, k.n, k.depth)
			b.SetBytes(int64(k.n * k.depth))
			b.ReportAllocs()
			for b.Loop() {
				v.fire(b)
			}
		})
	}
}
