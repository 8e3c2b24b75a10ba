// Package nbdtest is an NBD client for tests: small, blocking, and able to do
// everything wrong that a client can do wrong. It speaks extended headers,
// which the common clients do not yet.
package nbdtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"keyway/internal/nbdproto"
)

// A Client is one connection. Its fields may be read and set at will.
type Client struct {
	Conn   net.Conn
	Style  nbdproto.Style
	Size   uint64
	Flags  uint16 // transmission
	Cookie uint64 // of the last request
}

// A Rep is a reply to an option.
type Rep struct {
	Type uint32
	Data []byte
}

// An Answer is all that came back for one command.
type Answer struct {
	Errno   nbdproto.Errno
	Message string
	Data    []byte // of a read, holes filled in
	Chunks  []nbdproto.Chunk
	Heads   []nbdproto.ReplyHead
}

// Hello reads the greeting and sends flags.
func (c *Client) Hello(flags uint32) error {
	b, err := c.read(18)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b) != nbdproto.InitMagic || binary.BigEndian.Uint64(b[8:]) != nbdproto.OptionMagic {
		return fmt.Errorf("greeting %x", b)
	}
	return c.Send(binary.BigEndian.AppendUint32(nil, flags))
}

// Dial greets and enters transmission with the export name by GO. meta asks
// for base:allocation first.
func Dial(nc net.Conn, name string, s nbdproto.Style, meta bool, items ...uint16) (*Client, error) {
	c := &Client{Conn: nc}
	if err := c.Hello(3); err != nil {
		return nil, err
	}
	return c, c.Enter(name, s, meta, items...)
}

// Enter negotiates and enters transmission, after Hello.
func (c *Client) Enter(name string, s nbdproto.Style, meta bool, items ...uint16) error {
	if s != nbdproto.Simple {
		opt := nbdproto.OptStructuredReply
		if s == nbdproto.Extended {
			opt = nbdproto.OptExtendedHeaders
		}
		if err := c.must(opt, nil); err != nil {
			return err
		}
		c.Style = s
	}
	if meta {
		if err := c.must(nbdproto.OptSetMetaContext, MetaData(name, nbdproto.ContextAllocation)); err != nil {
			return err
		}
	}
	reps, err := c.Option(nbdproto.OptGo, InfoData(name, items...))
	if err != nil {
		return err
	}
	for _, r := range reps {
		if r.Type == nbdproto.RepInfo && binary.BigEndian.Uint16(r.Data) == nbdproto.InfoExport {
			c.Size, c.Flags = binary.BigEndian.Uint64(r.Data[2:]), binary.BigEndian.Uint16(r.Data[10:])
		}
	}
	if last := reps[len(reps)-1]; last.Type != nbdproto.RepAck {
		return fmt.Errorf("GO: %#x %s", last.Type, last.Data)
	}
	return nil
}

func (c *Client) must(opt uint32, data []byte) error {
	reps, err := c.Option(opt, data)
	if err != nil {
		return err
	}
	if last := reps[len(reps)-1]; last.Type != nbdproto.RepAck {
		return fmt.Errorf("option %d: %#x %s", opt, last.Type, last.Data)
	}
	return nil
}

// InfoData is the data of INFO and GO.
func InfoData(name string, items ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(items)))
	for _, i := range items {
		b = binary.BigEndian.AppendUint16(b, i)
	}
	return b
}

// MetaData is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func MetaData(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

// OptionBytes is an option as it goes over the wire.
func OptionBytes(opt uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, nbdproto.OptionMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// Option sends an option and returns the replies to it, the last of which
// ends it.
func (c *Client) Option(opt uint32, data []byte) ([]Rep, error) {
	if err := c.Send(OptionBytes(opt, data)); err != nil {
		return nil, err
	}
	return c.Reps(opt)
}

// Reps reads the replies to opt.
func (c *Client) Reps(opt uint32) ([]Rep, error) {
	var reps []Rep
	for {
		h, err := c.read(20)
		if err != nil {
			return reps, err
		}
		if binary.BigEndian.Uint64(h) != nbdproto.OptReplyMagic || binary.BigEndian.Uint32(h[8:]) != opt {
			return reps, fmt.Errorf("option reply %x to option %d", h, opt)
		}
		n := binary.BigEndian.Uint32(h[16:])
		if n > 1<<20 {
			return reps, fmt.Errorf("option reply of %d bytes", n)
		}
		d, err := c.read(int(n))
		if err != nil {
			return reps, err
		}
		r := Rep{binary.BigEndian.Uint32(h[12:]), d}
		reps = append(reps, r)
		if r.Type == nbdproto.RepAck || r.Type&nbdproto.RepErr != 0 {
			return reps, nil
		}
	}
}

// Request sends a command with its payload, and sets PAYLOAD_LEN where the
// style wants it.
func (c *Client) Request(typ, flags uint16, off, n uint64, payload []byte) error {
	c.Cookie++
	if c.Style == nbdproto.Extended && typ == nbdproto.CmdWrite {
		flags |= nbdproto.CmdFlagPayloadLen
	}
	return c.Send(append(c.Header(nbdproto.Request{Flags: flags, Type: typ, Cookie: c.Cookie, Offset: off, Length: n}), payload...))
}

// Header encodes r in the style in use.
func (c *Client) Header(r nbdproto.Request) []byte {
	if c.Style == nbdproto.Extended {
		return r.AppendExt(nil)
	}
	return r.Append(nil)
}

// Answer reads the whole answer to the last request, which was of type typ for
// n bytes at off, and checks its form.
func (c *Client) Answer(typ uint16, off, n uint64) (a Answer, err error) {
	if typ == nbdproto.CmdRead {
		a.Data = make([]byte, n)
	}
	covered := uint64(0)
	for {
		h, err := c.head()
		if err != nil {
			return a, err
		}
		if h.Cookie != c.Cookie {
			return a, fmt.Errorf("reply with cookie %d, not %d", h.Cookie, c.Cookie)
		}
		if c.Style == nbdproto.Extended && h.Offset != off {
			return a, fmt.Errorf("reply repeats offset %d, not %d", h.Offset, off)
		}
		a.Heads = append(a.Heads, h)
		if h.Simple {
			a.Errno = h.Errno
			if typ == nbdproto.CmdRead {
				if c.Style != nbdproto.Simple {
					return a, fmt.Errorf("simple reply to a read")
				}
				if h.Errno == 0 {
					_, err = io.ReadFull(c.Conn, a.Data)
				}
			}
			return a, err
		}
		if h.Length > 64<<20 {
			return a, fmt.Errorf("chunk of %d bytes", h.Length)
		}
		p, err := c.read(int(h.Length))
		if err != nil {
			return a, err
		}
		k, err := h.Chunk(p)
		if err != nil {
			return a, err
		}
		a.Chunks = append(a.Chunks, k)
		switch {
		case k.Errno != 0:
			a.Errno, a.Message = k.Errno, k.Message
		case h.Type == nbdproto.ReplyOffsetData || h.Type == nbdproto.ReplyOffsetHole:
			l := uint64(len(k.Data)) + k.Hole
			if typ != nbdproto.CmdRead || k.Offset < off || k.Offset-off > n || l > n-(k.Offset-off) {
				return a, fmt.Errorf("content chunk of %d bytes at %d", l, k.Offset)
			}
			copy(a.Data[k.Offset-off:], k.Data)
			covered += l
		}
		if h.Done() {
			if typ == nbdproto.CmdRead && a.Errno == 0 && covered != n {
				return a, fmt.Errorf("content of %d bytes for %d", covered, n)
			}
			return a, nil
		}
	}
}

// Do sends a command and reads the answer.
func (c *Client) Do(typ, flags uint16, off, n uint64, payload []byte) (Answer, error) {
	if err := c.Request(typ, flags, off, n, payload); err != nil {
		return Answer{}, err
	}
	return c.Answer(typ, off, n)
}

func (c *Client) head() (h nbdproto.ReplyHead, err error) {
	var b []byte
	for {
		more, err := c.read(4)
		if err != nil {
			return h, err
		}
		b = append(b, more...)
		h, size, err := nbdproto.ParseReply(b, c.Style)
		if err != nil || size > 0 {
			return h, err
		}
	}
}

// Send writes b as it is.
func (c *Client) Send(b []byte) error {
	_, err := c.Conn.Write(b)
	return err
}

func (c *Client) read(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c.Conn, b)
	return b, err
}
