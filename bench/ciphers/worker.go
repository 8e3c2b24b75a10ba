package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/measure"
	"keyway/test/spawn"
)

//go:embed peers/peers.c
var peersSource []byte

// A worker is a process that serves contenders, by the protocol of peers.c. It
// ends with this one.
type worker struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	errs   bytes.Buffer
	offers []offer
}

type offer struct{ peer, version, mode string }

// buildPeers compiles the C libraries' worker.
func buildPeers(dir string) (*worker, error) {
	src, bin := filepath.Join(dir, "peers.c"), filepath.Join(dir, "peers")
	if err := os.WriteFile(src, peersSource, 0o600); err != nil {
		return nil, err
	}
	if err := command("gcc", "-O2", "-o", bin, src, "-lcrypto", "-lgcrypt"); err != nil {
		return nil, fmt.Errorf("%w\nscripts/install-tools installs what is missing", err)
	}
	return startWorker(bin)
}

// buildPortable compiles this program without assembly, of the standard library
// neither: what Go peers do on a CPU without their instructions.
func buildPortable(dir string) (*worker, error) {
	bin := filepath.Join(dir, "portable")
	path := "keyway/bench/ciphers"
	if i, ok := debug.ReadBuildInfo(); ok && i.Path != "" && i.Path != "command-line-arguments" {
		path = i.Path
	}
	if err := command("go", "build", "-tags", "purego", "-o", bin, path); err != nil {
		return nil, err
	}
	return startWorker(bin, "-worker")
}

func command(name string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := spawn.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out.Bytes())
	}
	return nil
}

func startWorker(argv ...string) (*worker, error) {
	w := &worker{cmd: exec.Command(argv[0], argv[1:]...)}
	w.cmd.Stderr = &w.errs
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if err := spawn.Start(w.cmd); err != nil {
		return nil, err
	}
	line, err := w.ask("list")
	for ; err == nil && line != "."; line, err = w.answer() {
		var o offer
		if _, err := fmt.Sscan(line, &o.peer, &o.version, &o.mode); err != nil {
			w.stop()
			return nil, fmt.Errorf("%s offers %q", argv[0], line)
		}
		w.offers = append(w.offers, o)
	}
	if err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

// stop ends the process: its input ends.
func (w *worker) stop() {
	w.in.Close()
	w.cmd.Wait()
}

func (w *worker) ask(format string, a ...any) (string, error) {
	fmt.Fprintf(w.in, format+"\n", a...) // if it is gone, there is no answer
	return w.answer()
}

func (w *worker) answer() (string, error) {
	line, err := w.out.ReadString('\n')
	if err != nil {
		w.stop()
		return "", fmt.Errorf("%s ended: %v\n%s", w.cmd.Path, w.cmd.ProcessState, w.errs.Bytes())
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// asIn is the mode under which a peer knows what is measured beside m: nobody has
// ESSIV; plain CBC with given vectors is what bounds it.
func asIn(m blkcrypto.Mode) string {
	if m == blkcrypto.AES128CBCESSIV {
		return "AES-128-CBC"
	}
	return m.String()
}

func (w *worker) contenders(m blkcrypto.Mode) (all []contender) {
	for _, o := range w.offers {
		if o.mode != asIn(m) {
			continue
		}
		all = append(all, contender{
			name: o.peer, kind: peer, algorithm: o.mode,
			rate: func(_ context.Context, j job, d time.Duration) (v float64, err error) {
				line, err := w.ask("rate %s %s %s %d %d %f", o.peer, o.mode, j.op(), j.unit, j.units, d.Seconds())
				if err != nil {
					return 0, err
				}
				_, err = fmt.Sscan(line, &v)
				return v, err
			},
			sum: func(j job) (h uint64, err error) {
				line, err := w.ask("sum %s %s %d %d", o.peer, o.mode, j.unit, j.units)
				if err != nil {
					return 0, err
				}
				_, err = fmt.Sscanf(line, "%x", &h)
				return h, err
			},
		})
	}
	return all
}

// serveWorker is the other end, for Go peers built without assembly.
func serveWorker(in io.Reader, out io.Writer) error {
	rig := measure.NewRig(largest, 1)
	find := func(name, mode string) (c contender, m blkcrypto.Mode, err error) {
		if m, err = blkcrypto.ParseMode(mode); err != nil {
			return c, m, err
		}
		for _, p := range goPeers {
			if p.name+portable == name && p.modes[m] != nil {
				return local(rig, name, peer, mode, p.modes[m]), m, nil
			}
		}
		return c, m, fmt.Errorf("no peer %q of %s", name, mode)
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		f := strings.Fields(lines.Text())
		var name, mode, op string
		var seconds float64
		var j job
		switch {
		case len(f) == 1 && f[0] == "list":
			for _, p := range goPeers {
				for m := range p.modes {
					if m == blkcrypto.AES128XTS || m == blkcrypto.AES256XTS { // the aim that needs it
						fmt.Fprintln(out, p.name+portable, "portable", m)
					}
				}
			}
			fmt.Fprintln(out, ".")
		case len(f) == 5 && f[0] == "sum":
			fmt.Sscan(strings.Join(f[1:], " "), &name, &mode, &j.unit, &j.units)
			c, m, err := find(name, mode)
			if err != nil {
				return err
			}
			j.mode = m
			h, err := c.sum(j)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%016x\n", h)
		case len(f) == 7 && f[0] == "rate":
			fmt.Sscan(strings.Join(f[1:], " "), &name, &mode, &op, &j.unit, &j.units, &seconds)
			c, m, err := find(name, mode)
			if err != nil {
				return err
			}
			j.mode, j.decrypt = m, op == "decrypt"
			v, err := c.rate(context.Background(), j, time.Duration(seconds*1e9))
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%.0f\n", v)
		default:
			return fmt.Errorf("cannot understand the request %q", lines.Text())
		}
	}
	return nil
}
