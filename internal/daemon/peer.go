package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A peerListener tells root, the daemon's own user and those of allow from all
// others, whose requests are refused.
type peerListener struct {
	*net.UnixListener
	allow []uint32
	log   *slog.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	uid, err := peerUID(c)
	known := err == nil && (uid == 0 || uid == uint32(os.Geteuid()) || slices.Contains(l.allow, uid))
	if !known {
		l.log.Warn("control connection of a stranger", "uid", uid, "err", err)
	}
	return &controlConn{UnixConn: c, stranger: !known}, nil
}

func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// A controlConn keeps the last descriptor that came with the bytes.
type controlConn struct {
	*net.UnixConn
	stranger bool

	mu  sync.Mutex
	fds []int
}

func (c *controlConn) Read(b []byte) (int, error) {
	var oob [128]byte
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob[:])
	if oobn > 0 {
		c.keep(oob[:oobn])
	}
	return max(n, 0), err // -1 when a deadline has passed: no reader may return that
}

func (c *controlConn) keep(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		c.fds = append(c.fds, fds...)
	}
	// One request brings one; nobody gets to fill our table of descriptors.
	for len(c.fds) > 1 {
		unix.Close(c.fds[0])
		c.fds = c.fds[1:]
	}
}

// descriptor returns what came with the request, -1 if nothing did; it is the
// caller's.
func (c *controlConn) descriptor() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fds) == 0 {
		return -1
	}
	fd := c.fds[0]
	c.fds = nil
	return fd
}

func (c *controlConn) Close() error {
	if fd := c.descriptor(); fd >= 0 {
		unix.Close(fd)
	}
	return c.UnixConn.Close()
}

type connKey struct{}

// withConn puts the connection of a request where its handler finds it.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
