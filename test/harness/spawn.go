package harness

import (
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/test/spawn"
)

// Spawn starts cmd; it is killed when the test process ends, however it ends, and
// with the test.
func Spawn(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if err := spawn.Start(cmd); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// WaitSocket waits until something accepts connections at the Unix socket path.
func WaitSocket(tb testing.TB, path string) {
	tb.Helper()
	if err := spawn.Socket(path, time.Minute); err != nil {
		tb.Fatal(err)
	}
}

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
