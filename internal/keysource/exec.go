package keysource

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keyway/internal/secret"
)

func init() {
	Register(Scheme{
		Name: "exec", Place: "PROGRAM", Path: true, Runs: true, Summary: "the standard output of a program, which gets its arguments as they are: there is no shell",
		Options: []Option{
			{Name: "arg", Kind: List, Value: "WORD", Summary: "an argument; may be given several times"},
			{Name: "timeout", Kind: Duration, Value: "TIME", Summary: "it is killed after that (default 30s)"},
		},
		Check: func(s *Source) error {
			if !strings.Contains(s.Place, "/") {
				return errors.New("the program is not looked for: PROGRAM is its path, with a slash")
			}
			return nil
		},
		Read: func(ctx context.Context, s *Source, _ *Env) (*secret.Buffer, error) {
			// Its own error would name the path again.
			f, st, err := regular(s.Place)
			if err == nil {
				f.Close()
			}
			switch {
			case errors.Is(err, os.ErrPermission): // to run it may be allowed
			case err != nil:
				return nil, err
			case st.Mode().Perm()&0o111 == 0:
				return nil, withWay(fmt.Errorf("is not executable (mode %04o)", st.Mode().Perm()), "\"chmod +x\" makes it so")
			case st.Mode().Perm()&0o002 != 0:
				return nil, withWay(fmt.Errorf("every user may change it (mode %04o)", st.Mode().Perm()), "\"chmod o-w\" ends that")
			}
			return command{path: s.Place, args: s.options["arg"], limit: s.duration("timeout", 30*time.Second), max: maxText}.run(ctx)
		},
	})
}

// A command is a program whose standard output is a secret.
type command struct {
	path  string // of the program
	name  string // that it sees as its own; "": path
	args  []string
	extra []*os.File    // its descriptors from 3 on; they stay the caller's
	limit time.Duration // for all it does
	max   int           // bytes that it may print
	quiet bool          // its standard error is the error, as it is
}

// maxComplaint bounds what of a program's standard error gets into ours, in bytes:
// the last ones, where the reason mostly is.
const maxComplaint = 1024

// An exitError is of a program that ended with another status than 0.
type exitError struct {
	status int
	text   string
}

func (e *exitError) Error() string { return e.text }

// run runs the program and returns what it prints, straight from a pipe into locked
// memory. The program inherits no descriptors but those given, gets nothing to read,
// and is a process group of its own, which is killed at the end: at once when ctx or
// the time is over, when it prints too much, or when it has ended and has left
// others of its group behind. The error has its standard error, never its output.
func (c command) run(ctx context.Context) (*secret.Buffer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, withWay(fmt.Errorf("it is killed: not done within %v", c.limit), "run it by hand to see what it waits for"))
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	closeOnExec()
	out, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errs, errsW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return nil, err
	}
	defer errs.Close()
	cmd := exec.Command(c.path, c.args...)
	if c.name != "" {
		cmd.Args[0] = c.name
	}
	cmd.Env, cmd.ExtraFiles = environment(), c.extra
	cmd.Stdout, cmd.Stderr = outW, errsW
	p, err := start(cmd)
	outW.Close()
	errsW.Close()
	if err != nil {
		if e, ok := errors.AsType[*os.PathError](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("cannot run it: %w", err)
	}
	complaint := make(chan []byte, 1)
	go func() { complaint <- tail(errs) }()
	defer context.AfterFunc(ctx, p.kill)()

	b, err := readPipe(ctx, out, c.max)
	if err != nil && !errors.Is(err, errEmpty) {
		p.kill() // nobody reads on
	}
	p.end(ctx)
	errs.SetReadDeadline(time.Now().Add(time.Second)) // it ends at once, but if somebody who has left the group holds it
	said := withhold(<-complaint, b)
	switch state := p.cmd.ProcessState; {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil && !errors.Is(err, errEmpty):
	case !state.Success():
		e := &exitError{status: state.ExitCode(), text: said}
		if !c.quiet || said == "" {
			e.text = state.String() + quoted(said)
		}
		b.Wipe()
		return nil, e
	case err != nil:
		err = errors.New("it printed nothing")
	}
	if err != nil {
		b.Wipe()
		return nil, fmt.Errorf("%w%s", err, quoted(said))
	}
	return b, nil
}

// tail reads r to its end, or to the end of time, and returns the last bytes.
func tail(r io.Reader) []byte {
	// In place: it may be a key, if the program is made so badly, and is wiped then.
	buf := make([]byte, 2*maxComplaint)
	n := 0
	for {
		m, err := r.Read(buf[n:min(len(buf), n+maxComplaint)])
		if n += m; n > maxComplaint {
			copy(buf, buf[n-maxComplaint:n])
			n = maxComplaint
		}
		if err != nil {
			clear(buf[n:])
			return buf[:n]
		}
	}
}

// withhold returns said on one line, unless it repeats what was printed.
func withhold(said []byte, printed *secret.Buffer) string {
	if printed != nil && repeats(said, bytes.TrimSpace(printed.Bytes())) {
		clear(said)
		return "(withheld: it repeats what was printed)"
	}
	return oneLine(said)
}

// repeats reports whether p is in said, as it is or in hex. It says yes when it
// cannot tell.
func repeats(said, p []byte) bool {
	const enough = 4 // a shorter one may be there by chance
	if len(p) < enough {
		return false
	}
	if bytes.Contains(said, p) {
		return true
	}
	digits, err := secret.New(2 * len(p))
	if err != nil {
		return true
	}
	defer digits.Wipe()
	hex.Encode(digits.Bytes(), p)
	if bytes.Contains(said, digits.Bytes()) {
		return true
	}
	for i, c := range digits.Bytes() {
		if c >= 'a' {
			digits.Bytes()[i] = c - 'a' + 'A'
		}
	}
	return bytes.Contains(said, digits.Bytes())
}

func quoted(said string) string {
	if said == "" {
		return ""
	}
	return fmt.Sprintf(": %q", said)
}

// A process is a program that runs, in a group of its own.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for

	mu   sync.Mutex
	gone bool // its number may be somebody else's
}

// start starts cmd. The kernel kills it when this process ends, however that ends.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The signal comes when the thread ends that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// Until it is waited for, its number stays its own, and its group's.
		for {
			err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		p.kill() // of the others
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
		cmd.Wait() // the error is in the ProcessState
		close(p.ended)
	}()
	return p, <-started
}

// kill kills the program and all that it has started and that is still in its group.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	}
}

// end waits until the program has ended; ctx is known to have killed it at its end.
func (p *process) end(ctx context.Context) {
	select {
	case <-p.ended:
	case <-ctx.Done():
		<-p.ended
	}
}

// environment is that of this process without what is meant for it alone.
func environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// closeOnExec keeps descriptors that this process has inherited from being inherited
// again: its own are closed anyway.
func closeOnExec() {
	const first = 3
	if unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	// Before Linux 5.11, or in a sandbox.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
}
