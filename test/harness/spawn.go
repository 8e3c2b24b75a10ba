package harness

import (
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

type spawnRequest struct {
	cmd  *exec.Cmd
	done chan error
}

var spawner = sync.OnceValue(func() chan<- spawnRequest {
	c := make(chan spawnRequest)
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

// spawn starts cmd so that it is killed when this process ends, however it ends.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r := spawnRequest{cmd, make(chan error, 1)}
	spawner() <- r
	return <-r.done
}

// Spawn starts cmd so that it is killed when this process ends. The caller
// waits for it.
func Spawn(cmd *exec.Cmd) error { return spawn(cmd) }

// syncBuffer collects output of a process while others read it.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// tail returns the last n lines.
func (s *syncBuffer) tail(n int) string {
	lines := strings.SplitAfter(s.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// WaitSocket waits until something accepts connections at the Unix socket path.
func WaitSocket(tb testing.TB, path string) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			tb.Fatal(err)
		}
	}
}
