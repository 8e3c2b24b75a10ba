package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/emulated/report"
	"keyway/test/spawn"
)

const (
	memory = 512 << 20
	// Instructions a second of the machine's clock: near what Bochs does in a real
	// second, so that time in the guest is about real.
	ips = 50_000_000
)

// Nothing is probed that the machine does not have and nothing calibrated that is
// known. The features in clearcpuid are those which Bochs 2.7 gets wrong: sizes
// of the compacted and of the PKU state of XSAVE (the kernel then goes without
// AVX altogether), and FSRM without fast strings (its memmove then relies on what
// is not there).
var kernelArgs = strings.Join([]string{
	"console=ttyS0,115200 loglevel=4 panic=-1 reboot=t",
	"nokaslr mitigations=off acpi=off pci=off nolapic noapic",
	fmt.Sprintf("tsc=reliable tsc_early_khz=%d lpj=%d", ips/1000, ips/250),
	"clearcpuid=fsrm,pku,ospke,xsaves,xsavec",
	"cryptomgr.notests initcall_blacklist=load_system_certificate_list",
	goDebug,
}, " ")

// What Bochs 2.7 gets wrong and Go's own packages use: the collector scans by way
// of GF2P8AFFINEQB (see overlay.go) and then frees what is in use; math/big
// multiplies by way of ADCX and ADOX. This is for Go's own packages alone: ours ask
// the CPU themselves.
const goDebug = "GODEBUG=cpu.avx512bw=off,cpu.adx=off"

const bochsrc = `cpu: model=corei7_icelake_u, count=1, ips=%d, reset_on_triple_fault=0
memory: guest=%d, host=%[2]d
romimage: file=rom.bin
optramimage1: file=image, address=%#x
display_library: term
com1: enabled=1, mode=file, dev=console
com2: enabled=1, mode=file, dev=results
clock: sync=none
log: bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
`

// runBochs boots Linux on an emulated Ice Lake in the directory tmp, runs jobs
// there and calls done for each result. initrd holds the jobs and their binaries.
func runBochs(ctx context.Context, tmp, vmlinuz string, initrd []byte, jobs int, done func(report.Result)) (err error) {
	vmlinux, err := decompress(vmlinuz)
	if err != nil {
		return err
	}
	img, err := image(vmlinux, initrd, kernelArgs, memory)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"image":   img,
		"bochsrc": fmt.Appendf(nil, bochsrc, ips, memory>>20, header),
		"start":   []byte("c\n"), // Debian's Bochs has the debugger, which waits for this
		"results": nil,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := assemble(ctx, tmp); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bochs", "-q", "-f", "bochsrc", "-rc", "start")
	cmd.Dir = tmp
	screen, err := terminal(cmd)
	if err != nil {
		return err
	}
	defer screen.Close()
	err = spawn.Start(cmd)
	cmd.Stdin.(*os.File).Close() // the child has it
	if err != nil {
		return fmt.Errorf("bochs: %w", err)
	}
	ended := make(chan struct{})
	go io.Copy(io.Discard, screen)
	go func() { cmd.Wait(); close(ended) }()

	err = results(ctx, filepath.Join(tmp, "results"), jobs, ended, done)
	cancel()
	<-ended
	fmt.Printf("--    avx512: %.0f s of CPU time\n", (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	if err != nil {
		return fmt.Errorf("%w%s%s", err, tail("console", tmp), tail("bochs.log", tmp))
	}
	return nil
}

// results reads jobs results from the file that the guest's second serial port
// writes, until ended is closed.
func results(ctx context.Context, path string, jobs int, ended <-chan struct{}, done func(report.Result)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var line []byte
	for last := false; ; {
		part, err := r.ReadBytes('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			var res report.Result
			if err := json.Unmarshal(line, &res); err != nil {
				return fmt.Errorf("the guest wrote %q: %w", line, err)
			}
			line = nil
			done(res)
			if jobs--; jobs == 0 {
				return nil
			}
		case !errors.Is(err, io.EOF):
			return err
		case last:
			return fmt.Errorf("the machine stopped with %d jobs to do", jobs)
		default:
			select {
			case <-ended:
				last = true
			case <-ctx.Done():
				return fmt.Errorf("%w with %d jobs to do", context.Cause(ctx), jobs)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

// terminal gives cmd a terminal of its own, as Bochs's text display needs, and
// returns the other side.
func terminal(cmd *exec.Cmd) (*os.File, error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("a terminal for Bochs: %w", err)
	}
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("a terminal for Bochs: %w", err)
	}
	if err := unix.IoctlSetWinsize(int(s.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s, s, s
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(os.Environ(), "TERM=linux")
	return m, nil
}

// assemble makes rom.bin in tmp.
func assemble(ctx context.Context, tmp string) error {
	if err := os.WriteFile(filepath.Join(tmp, "rom.s"), romSource, 0o644); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"as", "--32", "-o", "rom.o", "rom.s"},
		{"ld", "-m", "elf_i386", "-e", "0", "--oformat", "binary", "-Ttext", "0", "-o", "rom.bin", "rom.o"},
	} {
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		c.Dir = tmp
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", argv[0], err, out)
		}
	}
	return nil
}

// tail returns the last lines of a log, for an error.
func tail(name, tmp string) string {
	b, _ := os.ReadFile(filepath.Join(tmp, name))
	lines := bytes.Split(bytes.TrimSpace(bytes.ReplaceAll(b, []byte("\r"), nil)), []byte("\n"))
	if len(lines) > 30 {
		lines = lines[len(lines)-30:]
	}
	return fmt.Sprintf("\n--- the end of %s:\n%s", name, bytes.Join(lines, []byte("\n")))
}
