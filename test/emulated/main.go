// Command emulated runs the tests of packages on machines that are not at hand:
// on an Ice Lake with AVX-512, VAES and GFNI by booting Linux in Bochs, and on
// an ARMv8 by QEMU's user-mode emulation. scripts/test-emulated builds and calls
// it, in the root of the repository.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"keyway/test/emulated/report"
)

//go:embed boot/rom.s
var romSource []byte

const usage = `usage: scripts/test-emulated [FLAGS] avx512|arm64|all [PACKAGE...] [-- TEST FLAGS]

Runs the tests of the packages (all subjects in test/emulated/packages.go unless
named) on an emulated machine. Without test flags: -test.short.

`

var (
	limit   = flag.Duration("timeout", 10*time.Minute, "for each machine, from boot to the last test")
	verbose = flag.Bool("v", false, "print the output of tests that pass too")
	keep    = flag.Bool("keep", false, "keep the directory with the machine's files and logs")
	extra   []string // environment
	counts  = flag.String("counts", "", "append \"passed failed skipped\" to this `file`, as test/testsum does")
	tmp     = flag.String("tmp", "", "directory to work in, removed at the end (the script gives it)")
)

func main() {
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage); flag.PrintDefaults() }
	flag.Func("env", "`NAME=value` for the tests; may be repeated", func(v string) error {
		extra = append(extra, v)
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	ok, err := run(ctx, flag.Args())
	stop()
	if *keep {
		fmt.Fprintln(os.Stderr, "test-emulated: kept", *tmp)
	} else {
		os.RemoveAll(*tmp)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "test-emulated: error:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// machines are what can be asked for, with the commands that each needs.
var machines = map[string]struct {
	run   func(context.Context, *batch) error
	tools []string
}{
	"avx512": {avx512, []string{"bochs", "as", "ld", "xz"}},
	"arm64":  {arm64, []string{"qemu-aarch64-static"}},
}

// A batch is the packages to test on one machine.
type batch struct {
	machine string
	tmp     string
	jobs    []report.Job // Bin and Dir are of this host
	left    []report.Job // without a result; guarded by printing

	passed, failed, skipped int
}

func run(ctx context.Context, args []string) (bool, error) {
	if len(args) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *tmp == "" {
		return false, errors.New("no -tmp: call scripts/test-emulated")
	}
	names := []string{args[0]}
	if args[0] == "all" {
		names = []string{"avx512", "arm64"}
	}
	packages, flags := args[1:], []string(nil)
	if i := slices.Index(packages, "--"); i >= 0 {
		packages, flags = packages[:i], packages[i+1:]
	}
	var wg sync.WaitGroup
	errs, batches := make([]error, len(names)), make([]batch, len(names))
	for i, name := range names {
		if machines[name].run == nil {
			return false, fmt.Errorf("no machine %q: there are avx512, arm64, all", name)
		}
		b := &batches[i]
		b.machine, b.tmp = name, filepath.Join(*tmp, name)
		wg.Go(func() { errs[i] = b.test(ctx, packages, flags) })
	}
	wg.Wait()
	var passed, failed, skipped int
	for i, b := range batches {
		if errs[i] != nil && b.failed == 0 {
			b.failed++
		}
		passed, failed, skipped = passed+b.passed, failed+b.failed, skipped+b.skipped
	}
	if *counts != "" {
		f, err := os.OpenFile(*counts, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err == nil {
			fmt.Fprintln(f, passed, failed, skipped)
			err = f.Close()
		}
		errs = append(errs, err)
	}
	return failed == 0, errors.Join(errs...)
}

// test runs the tests of packages on the batch's machine and prints the verdicts.
// A machine that cannot be had is an error in CI and counts as skipped elsewhere.
func (b *batch) test(ctx context.Context, packages, flags []string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", b.machine, err)
		}
	}()
	for _, tool := range machines[b.machine].tools {
		if _, err := exec.LookPath(tool); err != nil {
			return b.without(fmt.Errorf("no command %s: scripts/install-tools installs it", tool))
		}
	}
	if err := os.MkdirAll(filepath.Join(b.tmp, "bin"), 0o755); err != nil {
		return err
	}
	if err := b.build(ctx, packages, flags); err != nil {
		return err
	}
	b.left = slices.Clone(b.jobs)
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, *limit, fmt.Errorf("not done after %v", *limit))
	defer cancel()
	err = machines[b.machine].run(ctx, b)
	fmt.Printf("--    %s: %.0f s\n", b.machine, time.Since(begin).Seconds())
	if b.skipped > 0 {
		return err
	}
	for _, j := range b.left {
		fmt.Printf("FAIL  %s %s: no result\n", b.machine, j.Package)
		b.failed++
	}
	return err
}

func (b *batch) without(err error) error {
	if os.Getenv("KEYWAY_CI") != "" || os.Getenv("CI") == "true" {
		return err
	}
	fmt.Printf("skip  %s: %v\n", b.machine, err)
	b.skipped++
	return nil
}

var printing sync.Mutex

// done prints the verdict on the job that has this result.
func (b *batch) done(r report.Result) {
	printing.Lock()
	defer printing.Unlock()
	i := slices.IndexFunc(b.left, func(j report.Job) bool { return j.Package == r.Package })
	if i < 0 {
		b.failed++
		fmt.Printf("FAIL  %s %s: a result that nobody waits for\n", b.machine, r.Package)
		return
	}
	j := b.left[i]
	b.left = slices.Delete(b.left, i, i+1)
	why, ok := r.OK(j.Names)
	os.Stdout.Write(r.Output)
	b.passed, b.failed = b.passed+r.Passed, b.failed+r.Failed
	if !ok {
		b.failed += max(0, 1-r.Failed) // failed by more than its tests
		fmt.Printf("FAIL  %s %s: %s", b.machine, j.Package, why)
	} else {
		fmt.Printf("ok    %s %s", b.machine, j.Package)
	}
	fmt.Printf(": %d passed, %d failed, %d skipped, %.1f s", r.Passed, r.Failed, len(r.Skipped), r.Seconds)
	for _, n := range j.Names {
		fmt.Printf(", %s %d", n, r.Ran[n])
	}
	if len(r.Skipped) > 0 {
		fmt.Printf("; skipped %s", strings.Join(r.Skipped, " "))
	}
	fmt.Println()
}

var goarch = map[string]string{"avx512": "amd64", "arm64": "arm64"}

// build makes the test binaries and the jobs.
func (b *batch) build(ctx context.Context, packages, flags []string) error {
	if len(packages) == 0 {
		for _, s := range subjects {
			packages = append(packages, "./"+s.dir)
		}
	}
	env := append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+goarch[b.machine])
	command := func(args ...string) ([]byte, error) {
		c := exec.CommandContext(ctx, "go", args...)
		c.Env, c.Stderr = env, os.Stderr
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w", args[0], err)
		}
		return out, nil
	}
	list, err := command(append([]string{"list", "-f", "{{.ImportPath}} {{.Dir}} {{with .Module}}{{.Dir}}{{else}}{{.Root}}{{end}}"}, packages...)...)
	if err != nil {
		return err
	}
	args := []string{"test", "-c", "-ldflags=-s -w", "-o", filepath.Join(b.tmp, "bin") + "/"}
	if b.machine == "avx512" {
		sources, err := command(append([]string{"list", "-deps", "-test", "-f", "{{range .SFiles}}{{$.Dir}}/{{.}}\n{{end}}"}, packages...)...)
		if err != nil {
			return err
		}
		flag, err := overlay(slices.Compact(slices.Sorted(strings.FieldsSeq(string(sources)))), b.tmp)
		if err != nil {
			return err
		}
		args = append(args, flag...)
	}
	if _, err := command(append(args, packages...)...); err != nil {
		return err
	}
	for l := range strings.Lines(string(list)) {
		f := strings.Fields(l)
		j := report.Job{Package: f[0], Bin: filepath.Join(b.tmp, "bin", filepath.Base(f[0])+".test"), Dir: f[1], Args: flags, Verbose: *verbose}
		if _, err := os.Stat(j.Bin); err != nil {
			return fmt.Errorf("%s has no tests", f[0])
		}
		rel, err := filepath.Rel(f[2], f[1])
		if err != nil {
			return err
		}
		if len(flags) == 0 {
			j.Args = []string{"-test.short"}
			j.Names = find(rel).impls[b.machine]
			if names := elsewhere[b.machine]; names != nil {
				j.Args = append(j.Args, skipping(names))
			}
		}
		j.Env = []string{"PATH=/usr/bin:/bin", "HOME=/tmp", "KEYWAY_REQUIRE_" + strings.ToUpper(filepath.Base(rel)) + "=" + strings.Join(j.Names, " ")}
		b.jobs = append(b.jobs, j)
	}
	return nil
}

// avx512 runs the batch in Bochs.
func avx512(ctx context.Context, b *batch) error {
	vmlinuz, err := exec.CommandContext(ctx, "bash", "-c", "test/oracle/build-kernel.sh stock >&2 && . test/oracle/env.sh && echo -n $ORACLE_DIR/kernels/stock/vmlinuz").Output()
	if err != nil {
		return b.without(fmt.Errorf("no kernel from test/oracle/build-kernel.sh: %w", err))
	}
	guest := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", filepath.Join(b.tmp, "guest"), "./test/emulated/guest")
	guest.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := guest.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w\n%s", err, out)
	}
	parts := split(b.jobs, runtime.NumCPU())
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, jobs := range parts {
		wg.Go(func() { errs[i] = b.boot(ctx, string(vmlinuz), filepath.Join(b.tmp, fmt.Sprint(i)), jobs) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// boot runs jobs in a Bochs of their own, in the directory tmp.
func (b *batch) boot(ctx context.Context, vmlinuz, tmp string, jobs []report.Job) error {
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	var a archive
	if err := a.copy("init", filepath.Join(b.tmp, "guest")); err != nil {
		return err
	}
	var there []report.Job
	for _, j := range jobs {
		bin, dir := "bin/"+filepath.Base(j.Bin), "src/"+strings.TrimPrefix(j.Package, "keyway/")
		if err := a.copy(bin, j.Bin); err != nil {
			return err
		}
		if err := a.sources(dir, j.Dir); err != nil {
			return err
		}
		j.Bin, j.Dir, j.Env = "/"+bin, "/"+dir, slices.Concat(j.Env, []string{goDebug}, extra)
		there = append(there, j)
	}
	text, err := json.Marshal(there)
	if err != nil {
		return err
	}
	a.file("jobs.json", 0o644, text)
	return runBochs(ctx, tmp, vmlinuz, a.end(), len(jobs), b.done)
}

// arm64 runs the batch in QEMU, on this kernel.
func arm64(ctx context.Context, b *batch) error {
	for _, j := range b.jobs {
		j.Env = append(j.Env, extra...)
		r := report.Run(ctx, j, "qemu-aarch64-static", "-cpu", "max")
		b.done(r)
	}
	return nil
}
