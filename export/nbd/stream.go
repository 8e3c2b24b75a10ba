package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A stream is any net.Conn, TLS above all.
type stream struct {
	nc      net.Conn
	stall   time.Duration
	stopped atomic.Bool
	hasDL   bool // a read deadline is set
	stage   []byte
}

func (s *stream) Read(b []byte, idle bool) (int, error) {
	if err := s.deadline(idle); err != nil {
		return 0, err
	}
	n, err := s.nc.Read(b)
	if n > 0 {
		return n, nil
	}
	return 0, s.readErr(err)
}

func (s *stream) ReadFull(b []byte) error {
	for len(b) > 0 {
		// A deadline for each piece: slow is allowed, stalled is not.
		if err := s.deadline(false); err != nil {
			return err
		}
		n, err := s.nc.Read(b)
		b = b[n:]
		if err != nil && len(b) > 0 {
			if err = s.readErr(err); err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// deadline sets or clears the read deadline, unless stop has set its own.
func (s *stream) deadline(idle bool) error {
	if idle && !s.hasDL {
		return nil
	}
	var t time.Time
	if !idle {
		t = time.Now().Add(s.stall)
	}
	s.hasDL = !idle
	if err := s.nc.SetReadDeadline(t); err != nil {
		return err
	}
	if s.stopped.Load() { // it came between: its deadline must win
		return s.nc.SetReadDeadline(past)
	}
	return nil
}

var past = time.Unix(1, 0)

func (s *stream) readErr(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.stopped.Load() {
			return io.EOF
		}
		return errStalled
	}
	if errors.Is(err, io.ErrClosedPipe) {
		return io.EOF
	}
	return err
}

// stageSize is a few TLS records of 16 KiB, so that small replies share them.
const stageSize = 64 << 10

func (s *stream) Writev(v []unix.Iovec) error {
	for i := range v {
		b := unsafe.Slice(v[i].Base, int(v[i].Len))
		for len(b) > 0 {
			if len(s.stage) == 0 && len(b) >= stageSize {
				if err := s.write(b); err != nil {
					return err
				}
				break
			}
			if s.stage == nil {
				s.stage = make([]byte, 0, stageSize)
			}
			n := min(len(b), stageSize-len(s.stage))
			s.stage = append(s.stage, b[:n]...)
			b = b[n:]
			if len(s.stage) == stageSize {
				if err := s.write(s.stage); err != nil {
					return err
				}
				s.stage = s.stage[:0]
			}
		}
	}
	err := error(nil)
	if len(s.stage) > 0 {
		err = s.write(s.stage)
		s.stage = s.stage[:0]
	}
	return err
}

func (s *stream) write(b []byte) error {
	for len(b) > 0 {
		// In pieces, so that the deadline is about progress.
		n := min(len(b), 4*stageSize)
		if err := s.nc.SetWriteDeadline(time.Now().Add(s.stall)); err != nil {
			return err
		}
		if _, err := s.nc.Write(b[:n]); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errStalled
			}
			return err
		}
		b = b[n:]
	}
	return nil
}

func (s *stream) stop() {
	s.stopped.Store(true)
	s.nc.SetReadDeadline(past)
}

// kill closes the transport under TLS: closing TLS itself would wait for the
// writer.
func (s *stream) kill() {
	s.stopped.Store(true)
	raw(s.nc).Close()
}

func (s *stream) gone() bool {
	sc, ok := raw(s.nc).(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var up bool
	if err := rc.Control(func(fd uintptr) { up = hungUp(int(fd), false) }); err != nil {
		return true
	}
	return up
}

func (s *stream) close() { s.nc.Close() }

// raw is the connection beneath TLS.
func raw(nc net.Conn) net.Conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return nc
}
