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

// A wire is the byte stream of a connection in transmission. Reads and writes
// are each done by one goroutine at a time; the rest may be called at any time.
type wire interface {
	// Read waits for input. idle says that the peer owes nothing: only then
	// may it take longer than the stall timeout. io.EOF: the peer will send no
	// more, or stop was called and nothing is left.
	Read(b []byte, idle bool) (int, error)

	// ReadFull fills b, which the peer owes.
	ReadFull(b []byte) error

	// Writev sends everything v refers to, and may change v.
	Writev(v []unix.Iovec) error

	stop()      // no more input than has arrived; wakes Read
	kill()      // wakes everything; both directions fail from now on
	gone() bool // the peer has hung up, though there may be input left
	close()     // after everything else has returned
}

var errStalled = errors.New("the peer stalls: it neither sends what it announced nor reads its replies")

// newWire picks the wire for nc: the socket itself where there is one, else
// the net.Conn.
func newWire(nc net.Conn, stall time.Duration) (wire, error) {
	switch c := nc.(type) {
	case *net.UnixConn:
		return newSocket(c, stall)
	case *net.TCPConn:
		return newSocket(c, stall)
	}
	return &stream{nc: nc, stall: stall}, nil
}

// A socket is a stream socket. It makes its own system calls, without
// waiting, and has Go's poller wait where they would: so time limits cost
// nothing until something does wait.
type socket struct {
	nc      net.Conn
	rc      syscall.RawConn
	fd      int
	stopped atomic.Bool

	// Of the read in progress: what the poller's callback works on. The
	// callbacks are made once, since a closure for each call would be an
	// allocation.
	readBuf  []byte
	readWait bool
	readN    int
	readErr  syscall.Errno
	tryRead  func(fd uintptr) bool

	// The same of the write.
	msg       unix.Msghdr
	writeWait bool
	writeN    int
	writeErr  syscall.Errno
	tryWrite  func(fd uintptr) bool

	stall time.Duration
}

func newSocket(c interface {
	net.Conn
	syscall.Conn
}, stall time.Duration) (*socket, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{nc: c, rc: rc, stall: stall}
	if u, ok := c.(*net.UnixConn); ok {
		// A Unix socket has a fixed buffer, by default less than one large reply.
		if err := u.SetWriteBuffer(sendBuffer); err != nil {
			return nil, err
		}
	}
	if err := rc.Control(func(fd uintptr) { s.fd = int(fd) }); err != nil {
		return nil, err
	}
	s.tryRead = func(fd uintptr) bool {
		n, _, err := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.readBuf))), uintptr(len(s.readBuf)), unix.MSG_DONTWAIT, 0, 0)
		s.readN, s.readErr = int(n), err
		return err != unix.EAGAIN || !s.readWait
	}
	s.tryWrite = func(fd uintptr) bool {
		// sendmsg, since writev would raise SIGPIPE when the peer has gone.
		n, _, err := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&s.msg)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		s.writeN, s.writeErr = int(n), err
		return err != unix.EAGAIN || !s.writeWait
	}
	return s, nil
}

// read reads once into b, which is not empty; with wait it waits for input.
func (s *socket) read(b []byte, wait bool) (n int, again bool, err error) {
	s.readBuf, s.readWait = b, wait
	for {
		err = s.rc.Read(s.tryRead)
		if err != nil || s.readErr != unix.EINTR {
			break
		}
	}
	s.readBuf = nil
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, false, errStalled
	case err != nil:
		return 0, false, err
	case s.readErr == unix.EAGAIN:
		return 0, true, nil
	case s.readErr != 0:
		return 0, false, os.NewSyscallError("recv", s.readErr)
	case s.readN == 0:
		return 0, false, io.EOF
	}
	return s.readN, false, nil
}

func (s *socket) Read(b []byte, idle bool) (int, error) {
	n, again, err := s.read(b, idle && !s.stopped.Load())
	if !again {
		return n, err
	}
	if s.stopped.Load() {
		return 0, io.EOF
	}
	if err := s.nc.SetReadDeadline(time.Now().Add(s.stall)); err != nil {
		return 0, err
	}
	if n, _, err = s.read(b, true); err != nil {
		return n, err
	}
	// One that has passed would fail the next read before it begins.
	return n, s.nc.SetReadDeadline(time.Time{})
}

func (s *socket) ReadFull(b []byte) error {
	limited := 0 // bytes that may still come under the deadline that is set
	for len(b) > 0 {
		n, again, err := s.read(b, limited > 0)
		if again {
			if s.stopped.Load() {
				return io.ErrUnexpectedEOF
			}
			limited = stallPiece
			err = s.nc.SetReadDeadline(time.Now().Add(s.stall))
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		b = b[n:]
		if limited > 0 {
			limited = max(limited-n, 0)
			if limited == 0 || len(b) == 0 {
				// One that has passed would fail the next read before it begins.
				if err := s.nc.SetReadDeadline(time.Time{}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// stallPiece is what must move within the stall timeout: a deadline for each
// system call would cost more than the call.
const stallPiece = 256 << 10

// sendBuffer is the send buffer of a Unix socket, as far as the system allows
// (net.core.wmem_max).
const sendBuffer = 1 << 20

const maxIov = 1024 // IOV_MAX

func (s *socket) Writev(v []unix.Iovec) error {
	limited := 0 // bytes that may still leave under the deadline that is set
	for len(v) > 0 {
		s.msg.Iov = &v[0]
		s.msg.SetIovlen(min(len(v), maxIov))
		s.writeWait = limited > 0
		if err := s.rc.Write(s.tryWrite); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errStalled
			}
			return err
		}
		switch s.writeErr {
		case 0:
			v = advance(v, s.writeN)
			if limited == 0 {
				continue
			}
			limited = max(limited-s.writeN, 0)
			if limited == 0 || len(v) == 0 {
				if err := s.nc.SetWriteDeadline(time.Time{}); err != nil {
					return err
				}
			}
		case unix.EINTR:
		case unix.EAGAIN:
			limited = stallPiece
			if err := s.nc.SetWriteDeadline(time.Now().Add(s.stall)); err != nil {
				return err
			}
		default:
			return os.NewSyscallError("sendmsg", s.writeErr)
		}
	}
	s.msg.Iov = nil
	return nil
}

// advance drops the first n bytes of v.
func advance(v []unix.Iovec, n int) []unix.Iovec {
	for len(v) > 0 && n >= int(v[0].Len) {
		n -= int(v[0].Len)
		v = v[1:]
	}
	if n > 0 {
		v[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(v[0].Base), n))
		v[0].SetLen(int(v[0].Len) - n)
	}
	return v
}

func (s *socket) stop() {
	s.stopped.Store(true)
	unix.Shutdown(s.fd, unix.SHUT_RD)
}

func (s *socket) kill() {
	s.stopped.Store(true)
	unix.Shutdown(s.fd, unix.SHUT_RDWR)
}

func (s *socket) gone() bool {
	return hungUp(s.fd, s.stopped.Load())
}

// hungUp asks the kernel whether fd's peer has closed its side. After our own
// stop the half-closed state tells nothing.
func hungUp(fd int, stopped bool) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 0); n <= 0 || err != nil {
		return false
	}
	mask := int16(unix.POLLHUP | unix.POLLERR | unix.POLLNVAL)
	if !stopped {
		mask |= unix.POLLRDHUP
	}
	return p[0].Revents&mask != 0
}

func (s *socket) close() { s.nc.Close() }
