package nbd

import (
	"io"
	"net"
	"testing"
	"time"

	"keyway/export"
	"keyway/internal/nbdproto"
	"keyway/internal/nbdproto/nbdtest"
)

// FuzzTransmission feeds arbitrary bytes to a real server after a good
// negotiation. Whatever comes, every reply is well-formed, and the connection
// and all that it held are gone soon after the peer.
func FuzzTransmission(f *testing.F) {
	for s := range byte(3) {
		head := func(r nbdproto.Request) []byte {
			if nbdproto.Style(s) == nbdproto.Extended {
				return r.AppendExt(nil)
			}
			return r.Append(nil)
		}
		pay := uint16(0)
		if nbdproto.Style(s) == nbdproto.Extended {
			pay = nbdproto.CmdFlagPayloadLen
		}
		w := append(head(nbdproto.Request{Type: nbdproto.CmdWrite, Flags: pay, Offset: 100, Length: 600}), make([]byte, 600)...)
		f.Add(s, false, append(w, head(nbdproto.Request{Type: nbdproto.CmdRead, Length: 4096})...))
		f.Add(s, true, append(w, head(nbdproto.Request{Type: nbdproto.CmdFlush})...))
		for t := range uint16(9) {
			f.Add(s, t%2 == 0, append(head(nbdproto.Request{Type: t, Flags: t, Offset: 512, Length: 1 << 10}), head(nbdproto.Request{Type: nbdproto.CmdDisc})...))
		}
		f.Add(s, true, head(nbdproto.Request{Type: nbdproto.CmdWrite, Flags: pay, Length: 1 << 31}))
		f.Add(s, true, head(nbdproto.Request{Type: nbdproto.CmdRead, Offset: 1<<64 - 1, Length: 1 << 30}))
	}
	f.Fuzz(func(t *testing.T, s byte, blocks bool, in []byte) {
		style := nbdproto.Style(s % 3)
		dev := newMemory(1 << 20)
		dev.blocks.Store(blocks)
		srv, err := New(Config{MaxInFlight: 4, StallTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Add(export.Export{Name: "d", Dev: dev}); err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		ours.SetDeadline(time.Now().Add(patience))
		c, err := srv.newConn(theirs)
		if err != nil {
			t.Fatal(err)
		}
		go c.run()
		cl, err := nbdtest.Dial(ours, "d", style, style != nbdproto.Simple)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() { read <- replies(cl, style) }()
		for left := in; len(left) > 0; {
			n, err := ours.Write(left[:min(len(left), 4096)])
			if err != nil {
				break // the server has had enough
			}
			left = left[n:]
		}
		ours.Close()
		select {
		case <-c.done:
		case <-time.After(patience):
			t.Fatal("the connection is still there")
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
		if srv.budget.used != 0 || c.inFlight.Load() != 0 || dev.inside.Load() != 0 {
			t.Errorf("left: %d bytes, %d jobs, %d in the device", srv.budget.used, c.inFlight.Load(), dev.inside.Load())
		}
	})
}

// replies reads to the end of the stream, which may come anywhere. Simple
// replies are not followed: only the request tells whether data comes.
func replies(c *nbdtest.Client, s nbdproto.Style) error {
	if s == nbdproto.Simple {
		io.Copy(io.Discard, c.Conn)
		return nil
	}
	for {
		var b []byte
		var h nbdproto.ReplyHead
		for size := 0; size == 0; {
			more := make([]byte, 4)
			if _, err := io.ReadFull(c.Conn, more); err != nil {
				return nil
			}
			b = append(b, more...)
			var err error
			if h, size, err = nbdproto.ParseReply(b, s); err != nil {
				io.Copy(io.Discard, c.Conn)
				return err
			}
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.Conn, p); err != nil {
			return nil
		}
		if !h.Simple {
			if _, err := h.Chunk(p); err != nil {
				io.Copy(io.Discard, c.Conn)
				return err
			}
		}
	}
}
