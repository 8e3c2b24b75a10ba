// Package report is what the runner of emulated tests and its guest say to each
// other about one test binary.
package report

import (
	"bufio"
	"bytes"
	"context"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"keyway/test/spawn"
)

// A Job is one test binary to run.
type Job struct {
	Package string   // import path
	Bin     string   // path of the binary where it runs
	Dir     string   // its working directory there
	Args    []string // -test.run and the like
	Env     []string
	Names   []string // implementations that must be among what was tested
	Verbose bool     // Output even if all passed
}

// A Result is what became of a Job.
type Result struct {
	Package string
	Exit    int    // status of the binary, -1 if it did not end by itself
	Error   string // why there is no status
	Passed  int    // leaves of the tree of tests
	Failed  int
	Skipped []string       // names of skipped tests
	Ran     map[string]int // passed subtests that bear the name of an implementation
	Seconds float64        // of the guest's clock
	Output  []byte         // all if the job is verbose; of what failed
}

// OK reports whether the job passed as a whole, and why not.
func (r Result) OK(names []string) (string, bool) {
	switch {
	case r.Error != "":
		return r.Error, false
	case r.Failed > 0:
		return "tests failed", false
	case r.Exit != 0:
		return "the binary failed", false
	case r.Passed == 0:
		return "no test ran", false
	}
	for _, n := range names {
		if r.Ran[n] == 0 {
			return "no test of implementation " + n + " passed", false
		}
	}
	return "", true
}

// maxOutput bounds what crosses a slow line.
const maxOutput = 64 << 10

// New is the result of a job whose binary, run with -test.v, wrote output and
// ended with status exit after d.
func New(j Job, output []byte, exit int, err error, d time.Duration) Result {
	r := Result{Package: j.Package, Exit: exit, Ran: map[string]int{}, Seconds: d.Seconds()}
	if err != nil {
		r.Error = err.Error()
	}
	var passed []string
	s := bufio.NewScanner(bytes.NewReader(output))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		verdict, rest, ok := strings.Cut(strings.TrimLeft(s.Text(), " "), ": ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, " ")
		switch verdict {
		case "--- PASS":
			passed = append(passed, name)
		case "--- FAIL":
			r.Failed++
		case "--- SKIP":
			r.Skipped = append(r.Skipped, name)
		}
	}
	// A test is printed before its subtests: a parent has a child right after it.
	for i, name := range passed {
		if n := path.Base(name); n != name && slices.Contains(j.Names, n) {
			r.Ran[n]++
		}
		if i+1 == len(passed) || !strings.HasPrefix(passed[i+1], name+"/") {
			r.Passed++
		}
	}
	if _, ok := r.OK(j.Names); !ok || j.Verbose {
		r.Output = output
		if !j.Verbose {
			r.Output = withoutPassed(output, passed)
		}
		if n := len(r.Output); n > maxOutput {
			r.Output = slices.Concat(r.Output[:maxOutput/4], []byte("\n[...]\n"), r.Output[n-maxOutput*3/4:])
		}
	}
	return r
}

// withoutPassed returns the output without what belongs to the tests in passed.
// What follows the start of a test, or of its resumption, belongs to it.
func withoutPassed(output []byte, passed []string) []byte {
	var kept []byte
	drop := false
	for l := range bytes.Lines(output) {
		mark, rest, _ := strings.Cut(strings.TrimSpace(string(l)), " ")
		switch mark {
		case "===":
			if f := strings.Fields(rest); len(f) == 2 {
				drop = slices.Contains(passed, f[1])
			}
		case "---":
			drop = strings.HasPrefix(rest, "PASS")
		}
		if !drop {
			kept = append(kept, l...)
		}
	}
	return kept
}

// Run runs a job, its binary by way of prefix (an emulator and its arguments).
// What the test leaves running is killed at the end, as is all when ctx ends.
func Run(ctx context.Context, j Job, prefix ...string) Result {
	argv := append(append(prefix, j.Bin, "-test.v"), j.Args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = j.Dir, j.Env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	begin := time.Now()
	err := spawn.Start(cmd)
	if err == nil {
		err = cmd.Wait()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	exit := -1
	if s := cmd.ProcessState; s != nil && s.Exited() {
		exit = s.ExitCode()
		if _, status := err.(*exec.ExitError); status {
			err = nil // tests that fail are told by the status
		}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return New(j, out.Bytes(), exit, err, time.Since(begin))
}
