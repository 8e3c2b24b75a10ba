package nbdproto

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The bytes are the layouts of doc/proto.md, written by hand.
func TestWireLayout(t *testing.T) {
	r := Request{Flags: 0x0102, Type: CmdWrite, Cookie: 0x1112131415161718, Offset: 0x2122232425262728, Length: 0x31323334}
	long := r
	long.Length = 0x3132333435363738
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"compact request", r.Append(nil), "25609513 0102 0001 1112131415161718 2122232425262728 31323334"},
		{"extended request", long.AppendExt(nil), "21e41c71 0102 0001 1112131415161718 2122232425262728 3132333435363738"},
		{"simple", Simple.AppendError(nil, &r, EINVAL, "x"), "67446698 00000016 1112131415161718"},
		{"simple done, structured", Structured.AppendDone(nil, &r), "67446698 00000000 1112131415161718"},
		{"none", Structured.AppendNone(nil, &r), "668e33ef 0001 0000 1112131415161718 00000000"},
		{"done, extended", Extended.AppendDone(nil, &r), "6e8a278c 0001 0000 1112131415161718 2122232425262728 0000000000000000"},
		{"data", Structured.AppendData(nil, &r, 7, 9, false), "668e33ef 0000 0001 1112131415161718 00000011 0000000000000007"},
		{"data, extended", Extended.AppendData(nil, &r, 7, 9, true), "6e8a278c 0001 0001 1112131415161718 2122232425262728 0000000000000011 0000000000000007"},
		{"hole", Structured.AppendHole(nil, &r, 7, 512, true), "668e33ef 0001 0002 1112131415161718 0000000c 0000000000000007 00000200"},
		{"error", Structured.AppendError(nil, &r, EIO, "ab"), "668e33ef 0001 8001 1112131415161718 00000008 00000005 0002 6162"},
		{"error at offset", Structured.AppendErrorOffset(nil, &r, EIO, 7, "ab"), "668e33ef 0001 8002 1112131415161718 00000010 00000005 0002 6162 0000000000000007"},
		{"status", Structured.AppendStatus(nil, &r, []StatusExtent{{512, 3}}), "668e33ef 0001 0005 1112131415161718 0000000c 00000001 00000200 00000003"},
		{"status, extended", Extended.AppendStatus(nil, &r, []StatusExtent{{1 << 40, 3}}), "6e8a278c 0001 0006 1112131415161718 2122232425262728 0000000000000018 00000001 00000001 0000010000000000 0000000000000003"},
	} {
		want, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(c.want), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", c.name, c.got, want)
		}
	}
}

func TestRequestsRoundTrip(t *testing.T) {
	r := Request{Flags: 1, Type: 6, Cookie: 1<<63 | 5, Offset: 1 << 62, Length: 1<<32 - 1}
	if got, ok := ParseRequest(r.Append(nil)); !ok || got != r {
		t.Errorf("compact: %+v %v", got, ok)
	}
	r.Length = 1 << 50
	if got, ok := ParseExtRequest(r.AppendExt(nil)); !ok || got != r {
		t.Errorf("extended: %+v %v", got, ok)
	}
	if _, ok := ParseRequest(r.AppendExt(nil)); ok {
		t.Error("an extended header was taken for a compact one")
	}
	if _, ok := ParseExtRequest(append(r.Append(nil), 0, 0, 0, 0)); ok {
		t.Error("a compact header was taken for an extended one")
	}
}

func TestLongMessagesAreCut(t *testing.T) {
	r := Request{Cookie: 1}
	b := Structured.AppendError(nil, &r, EIO, string(bytes.Repeat([]byte("m"), 70000)))
	h, n, err := ParseReply(b, Structured)
	if err != nil || int(h.Length) != len(b)-n {
		t.Fatalf("%+v %v", h, err)
	}
	if c, err := h.Chunk(b[n:]); err != nil || len(c.Message) != MaxMessage {
		t.Errorf("message of %d bytes, %v", len(c.Message), err)
	}
}

func TestRepliesAllocateNothing(t *testing.T) {
	r := Request{Cookie: 1}
	b := make([]byte, 0, MaxChunkHead)
	for _, s := range []Style{Simple, Structured, Extended} {
		if n := testing.AllocsPerRun(100, func() {
			s.AppendDone(b, &r)
			s.AppendData(b, &r, 0, 4096, true)
		}); n != 0 {
			t.Errorf("%v: %v allocations", s, n)
		}
	}
}

// FuzzHandshake feeds option streams in two ways of cutting them up: the
// outcome must be the same, every reply well-formed, and the state bounded.
func FuzzHandshake(f *testing.F) {
	seed := func(b ...[]byte) { f.Add(bytes.Join(b, nil), byte(1), byte(7)) }
	flags := be32(3)
	seed(flags, option(OptGo, info("disk", InfoName, InfoBlockSize)), []byte("rest"))
	seed(flags, option(OptStructuredReply), option(OptSetMetaContext, meta("disk", "base:", ContextAllocation)), option(OptGo, info("")))
	seed(flags, option(OptExtendedHeaders), option(OptListMetaContext, meta("other")), option(OptInfo, info("other")))
	seed(flags, option(OptStartTLS), option(OptList), option(OptAbort))
	seed(flags, option(OptExportName, []byte("disk")))
	seed(be32(0), option(99, make([]byte, 100)))
	f.Fuzz(func(t *testing.T, in []byte, mode, size byte) {
		play := func(size int) (out []byte, end Action, why error, rest int) {
			h := NewHandshake(goods, TLSMode(mode%3), false)
			for left := in; len(left) > 0; {
				used, o, act, err := h.Step(left[:min(size, len(left))])
				out, left = append(out, o...), left[used:]
				if act == Close || act == Transmit {
					if act == Transmit && h.Result().Export.Name == "" {
						t.Fatal("transmission without an export")
					}
					return out, act, err, len(left)
				}
				if act == StartTLS {
					h.TLSDone()
				}
				if len(h.buf) > optionHead+MaxOption {
					t.Fatalf("%d bytes kept", len(h.buf))
				}
			}
			return out, More, nil, 0
		}
		out, end, why, rest := play(1)
		if end != Transmit || len(out)%10 != 0 { // EXPORT_NAME's reply has no frame
			b := out
			for len(b) >= 20 && end != Transmit {
				n := 20 + int(uint32(b[16])<<24|uint32(b[17])<<16|uint32(b[18])<<8|uint32(b[19]))
				if n > len(b) {
					t.Fatalf("reply of %d bytes in %d", n, len(b))
				}
				b = b[n:]
			}
		}
		if mode%3 != 0 {
			return // bytes after STARTTLS are an error in one way of cutting only
		}
		out2, end2, why2, rest2 := play(max(1, int(size)))
		if !bytes.Equal(out, out2) || end != end2 || (why == nil) != (why2 == nil) || end == Transmit && rest != rest2 {
			t.Fatalf("pieces of %d bytes: %v %v, else %v %v", size, end2, why2, end, why)
		}
	})
}

// FuzzReply decodes arbitrary replies, as a client must be able to.
func FuzzReply(f *testing.F) {
	r := Request{Cookie: 7, Offset: 4096}
	for _, s := range []Style{Simple, Structured, Extended} {
		f.Add(s.AppendDone(nil, &r), byte(s))
		f.Add(append(s.AppendData(nil, &r, 4096, 3, true), "abc"...), byte(s))
		f.Add(s.AppendError(nil, &r, EIO, "broken"), byte(s))
		f.Add(s.AppendErrorOffset(nil, &r, EIO, 5000, "broken"), byte(s))
		if s != Simple {
			f.Add(s.AppendHole(nil, &r, 4096, 512, true), byte(s))
			f.Add(s.AppendStatus(nil, &r, []StatusExtent{{512, 0}, {1024, 3}}), byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, s byte) {
		h, n, err := ParseReply(b, Style(s%3))
		if err != nil || n == 0 {
			return
		}
		if n > len(b) {
			t.Fatalf("a header of %d bytes out of %d", n, len(b))
		}
		if h.Simple || h.Length > uint64(len(b)-n) {
			return
		}
		p := b[n : n+int(h.Length)]
		c, err := h.Chunk(p)
		if err == nil && len(c.Data)+len(c.Message)+8*len(c.Extents) > len(p) {
			t.Fatalf("%d bytes of payload became %+v", len(p), c)
		}
	})
}

// FuzzRequest: any header survives decoding and encoding.
func FuzzRequest(f *testing.F) {
	r := Request{Flags: 1, Type: CmdWrite, Cookie: 7, Offset: 4096, Length: 512}
	f.Add(r.Append(nil))
	f.Add(r.AppendExt(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= RequestSize {
			if r, ok := ParseRequest(b); ok && !bytes.Equal(r.Append(nil), b[:RequestSize]) {
				t.Errorf("compact %x", b)
			}
		}
		if len(b) >= ExtRequestSize {
			if r, ok := ParseExtRequest(b); ok && !bytes.Equal(r.AppendExt(nil), b[:ExtRequestSize]) {
				t.Errorf("extended %x", b)
			}
		}
	})
}
