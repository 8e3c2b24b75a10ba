package harness

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// NBD commands, flags and errors, as the protocol document numbers them.
const (
	NBDRead, NBDWrite, NBDDisconnect, NBDFlush, NBDTrim = 0, 1, 2, 3, 4
	NBDWriteZeroes                                      = 6
	NBDFUA                                              = 1
)

// ErrDisconnected is what calls return once the server is gone.
var ErrDisconnected = errors.New("nbd client: the server is gone")

// An NBD is a small client of the fixed newstyle protocol with simple replies:
// written for tests, from the protocol document, sharing no code with the server.
// Calls may be made concurrently; each waits for its own reply.
type NBD struct {
	Size  int64  // bytes
	Flags uint16 // transmission flags

	conn net.Conn
	wmu  sync.Mutex // serialises requests on the wire

	mu      sync.Mutex // guards what follows
	pending map[uint64]*nbdCall
	cookie  uint64
	dead    bool
}

type nbdCall struct {
	read  []byte // where the data of a read goes
	errno uint32
	done  chan struct{}
	lost  bool
}

// DialNBD connects to an export.
func DialNBD(network, addr, export string) (*NBD, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &NBD{conn: conn, pending: map[uint64]*nbdCall{}}
	r := bufio.NewReaderSize(conn, 1<<16)
	if err := c.handshake(r, export); err != nil {
		conn.Close()
		return nil, err
	}
	go c.replies(r)
	return c, nil
}

func (c *NBD) handshake(r *bufio.Reader, export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil {
		return err
	}
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" {
		return fmt.Errorf("nbd client: greeting %q", hello[:16])
	}
	msg := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	msg = append(msg, "IHAVEOPT"...)
	msg = binary.BigEndian.AppendUint32(msg, 7) // GO
	msg = binary.BigEndian.AppendUint32(msg, uint32(4+len(export)+2))
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(export)))
	msg = append(append(msg, export...), 0, 0)
	if _, err := c.conn.Write(msg); err != nil {
		return err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if n > 1<<16 {
			return fmt.Errorf("nbd client: option reply of %d bytes", n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		switch {
		case kind == 1: // ACK
			return nil
		case kind == 3 && n == 12 && binary.BigEndian.Uint16(body) == 0: // INFO_EXPORT
			c.Size = int64(binary.BigEndian.Uint64(body[2:]))
			c.Flags = binary.BigEndian.Uint16(body[10:])
		case kind>>31 == 1:
			return fmt.Errorf("nbd client: export %q refused: %#x %s", export, kind, body)
		}
	}
}

// Do performs one command and returns the NBD error number of the reply. data is
// what a write sends, or where a read puts what it got; n is the length of the
// others. Once Do returned ErrDisconnected it is not known whether the command
// took effect.
func (c *NBD) Do(cmd, flags uint16, off int64, n int, data []byte) (errno uint32, err error) {
	call := &nbdCall{done: make(chan struct{})}
	if data != nil {
		n = len(data)
	}
	if cmd == NBDRead {
		call.read = data
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return 0, ErrDisconnected
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = call
	c.mu.Unlock()

	h := binary.BigEndian.AppendUint32(nil, 0x25609513)
	h = binary.BigEndian.AppendUint16(h, flags)
	h = binary.BigEndian.AppendUint16(h, cmd)
	h = binary.BigEndian.AppendUint64(h, cookie)
	h = binary.BigEndian.AppendUint64(h, uint64(off))
	h = binary.BigEndian.AppendUint32(h, uint32(n))
	bufs := net.Buffers{h}
	if cmd == NBDWrite {
		bufs = append(bufs, data)
	}
	c.wmu.Lock()
	_, err = bufs.WriteTo(c.conn)
	c.wmu.Unlock()
	if err != nil {
		c.conn.Close() // the reader fails every pending call, this one too
	}
	<-call.done
	if call.lost {
		return 0, ErrDisconnected
	}
	return call.errno, nil
}

func (c *NBD) replies(r *bufio.Reader) {
	for {
		var h [16]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			break
		}
		cookie := binary.BigEndian.Uint64(h[8:])
		c.mu.Lock()
		call := c.pending[cookie]
		delete(c.pending, cookie)
		c.mu.Unlock()
		if call == nil || binary.BigEndian.Uint32(h[:]) != 0x67446698 {
			break // not a protocol we can follow; the calls below report it
		}
		call.errno = binary.BigEndian.Uint32(h[4:])
		if call.errno == 0 && call.read != nil {
			if _, err := io.ReadFull(r, call.read); err != nil {
				call.lost = true
				close(call.done)
				break
			}
		}
		close(call.done)
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for _, call := range c.pending {
		call.lost = true
		close(call.done)
	}
	clear(c.pending)
}

// Close says goodbye and closes the connection.
func (c *NBD) Close() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	h := binary.BigEndian.AppendUint32(nil, 0x25609513)
	h = binary.BigEndian.AppendUint16(h, 0)
	h = binary.BigEndian.AppendUint16(h, NBDDisconnect)
	c.conn.Write(append(h, make([]byte, 20)...))
	c.conn.Close()
}
