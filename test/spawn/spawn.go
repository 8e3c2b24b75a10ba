// Package spawn starts programs for tests and benchmarks so that they cannot
// outlive them, and waits until they serve.
package spawn

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

type request struct {
	cmd  *exec.Cmd
	done chan error
}

var starter = sync.OnceValue(func() chan<- request {
	c := make(chan request)
	go func() {
		// The kernel sends the parent-death signal when the thread that forked
		// ends, not the process: this thread never does.
		runtime.LockOSThread()
		for r := range c {
			r.done <- r.cmd.Start()
		}
	}()
	return c
})

// Start starts cmd; the kernel kills it when this process ends, however it ends.
// The caller waits for it.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	r := request{cmd, make(chan error, 1)}
	starter() <- r
	return <-r.done
}

// Socket waits until something accepts connections at the Unix socket path.
func Socket(path string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("nothing listens after %v: %w", limit, err)
		}
	}
}

// A Notify is a socket for sd_notify(3).
type Notify struct {
	conn *net.UnixConn
	path string
}

// NewNotify listens at path, replacing what is there. Give Env to the program.
func NewNotify(path string) (*Notify, error) {
	os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &Notify{conn, path}, nil
}

// Env is the environment variable that the program needs.
func (n *Notify) Env() string { return "NOTIFY_SOCKET=" + n.path }

// Ready waits for READY=1. It fails when exited is closed or limit is over first.
// It may be called once.
func (n *Notify) Ready(exited <-chan struct{}, limit time.Duration) error {
	ready := make(chan struct{})
	go func() {
		buf := make([]byte, 4096)
		for {
			k, err := n.conn.Read(buf)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(buf[:k])) {
				if strings.TrimSpace(line) == "READY=1" {
					close(ready)
					return
				}
			}
		}
	}()
	defer n.conn.Close()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("ended before it was ready")
	case <-timeout.C:
		return fmt.Errorf("not ready after %v", limit)
	}
}
