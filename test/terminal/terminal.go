// Package terminal types for tests at programs that ask on a terminal.
package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Type runs cmd on a terminal of its own and types one of lines after each prompt that
// ends with a colon. It returns what the terminal showed, of what was typed as well.
// cmd ends within limit, or is killed.
func Type(cmd *exec.Cmd, limit time.Duration, lines ...string) (shown []byte, err error) {
	m, s, err := open()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s, s, s
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start() // whatever becomes of us, it loses its terminal
	s.Close()
	if err != nil {
		return nil, err
	}
	if err := m.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	answered := 0
	for err == nil {
		var n int
		n, err = m.Read(buf) // EIO when the last one closes the other end
		shown = append(shown, buf[:n]...)
		if asks(shown[answered:]) && len(lines) > 0 {
			answered = len(shown)
			if _, e := m.WriteString(lines[0] + "\n"); e != nil {
				err = e
			}
			lines = lines[1:]
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		cmd.Process.Kill()
	}
	if e := cmd.Wait(); e != nil {
		return shown, fmt.Errorf("%v: %w", cmd.Args, e)
	}
	return shown, nil
}

// asks reports whether the last that was shown is a prompt, which colours may follow.
func asks(shown []byte) bool {
	return bytes.HasSuffix(bytes.TrimRight(shown, " \x1b[0123456789mK"), []byte(":"))
}

// open returns both ends of a terminal.
func open() (m, s *os.File, err error) {
	m, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	raw, err := m.SyscallConn()
	n := 0
	if err == nil {
		e := raw.Control(func(fd uintptr) {
			if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
				n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
			}
		})
		err = errors.Join(e, err)
	}
	if err == nil {
		s, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return m, s, nil
}
