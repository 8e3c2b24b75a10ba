package report

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const log = `=== RUN   TestContract
=== RUN   TestContract/Equals
=== RUN   TestContract/Equals/wide
=== RUN   TestContract/Equals/narrow
    narrow is not here
--- PASS: TestContract (0.02s)
    --- PASS: TestContract/Equals (0.01s)
        --- PASS: TestContract/Equals/wide (0.00s)
        --- SKIP: TestContract/Equals/narrow (0.00s)
--- PASS: TestPlain (0.00s)
PASS
`

func TestCountsLeavesAndWhatEachImplementationPassed(t *testing.T) {
	r := New(Job{Names: []string{"wide", "narrow"}}, []byte(log), 0, nil, time.Second)
	if r.Passed != 2 || r.Failed != 0 || !slices.Equal(r.Skipped, []string{"TestContract/Equals/narrow"}) {
		t.Errorf("passed %d, failed %d, skipped %v, want 2, 0 and narrow", r.Passed, r.Failed, r.Skipped)
	}
	if r.Ran["wide"] != 1 || r.Ran["narrow"] != 0 {
		t.Errorf("ran %v, want wide once only", r.Ran)
	}
	if why, ok := r.OK([]string{"wide"}); !ok {
		t.Errorf("with wide required: %s", why)
	}
	if why, ok := r.OK([]string{"wide", "narrow"}); ok || !strings.Contains(why, "narrow") {
		t.Errorf("with narrow required: %v %s, want a failure that names it", ok, why)
	}
	if len(r.Output) == 0 {
		t.Error("no output of a job that failed")
	}
}

func TestFailureShowsWhatFailed(t *testing.T) {
	const log = "=== RUN   TestA\n=== RUN   TestA/x\n    seed 1\n=== RUN   TestA/y\n    seed 2\n    got 3, want 4\n" +
		"--- FAIL: TestA (0.00s)\n    --- PASS: TestA/x (0.00s)\n    --- FAIL: TestA/y (0.00s)\n" +
		"=== RUN   TestB\n    seed 5\npanic: oh\n\ngoroutine 1 [running]:\n"
	const want = "=== RUN   TestA\n=== RUN   TestA/y\n    seed 2\n    got 3, want 4\n" +
		"--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/y (0.00s)\n" +
		"=== RUN   TestB\n    seed 5\npanic: oh\n\ngoroutine 1 [running]:\n"
	if got := New(Job{}, []byte(log), 2, nil, 0).Output; string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := New(Job{Verbose: true}, []byte(log), 2, nil, 0).Output; string(got) != log {
		t.Errorf("verbose: got\n%s", got)
	}
	if got := New(Job{}, []byte("--- PASS: TestA (0.00s)\nPASS\n"), 0, nil, 0).Output; got != nil {
		t.Errorf("all passed: got\n%s", got)
	}
	if n := len(New(Job{}, bytes.Repeat([]byte("noise\n"), 1<<20), 2, nil, 0).Output); n > maxOutput+100 {
		t.Errorf("%d bytes of output", n)
	}
}

func TestEveryWayToFailFails(t *testing.T) {
	for what, r := range map[string]Result{
		"a test":              New(Job{}, []byte("--- FAIL: TestA (0.00s)\n--- PASS: TestB (0.00s)\n"), 0, nil, 0),
		"status":              New(Job{}, []byte("--- PASS: TestB (0.00s)\n"), 2, nil, 0),
		"nothing ran":         New(Job{}, []byte("testing: warning: no tests to run\nPASS\n"), 0, nil, 0),
		"skipped all":         New(Job{}, []byte("--- SKIP: TestB (0.00s)\n"), 0, nil, 0),
		"killed":              New(Job{}, []byte("--- PASS: TestB (0.00s)\n"), -1, nil, 0),
		"could not be run":    New(Job{}, []byte("--- PASS: TestB (0.00s)\n"), 0, errors.New("exec format error"), 0),
		"no such binary":      Run(t.Context(), Job{Bin: "/nonexistent"}),
		"emulator complained": Run(t.Context(), Job{Bin: "exit 3"}, "sh", "-c"),
	} {
		if _, ok := r.OK(nil); ok {
			t.Errorf("%s: passed", what)
		}
	}
}

func TestRunEndsWithItsContextAndLeavesNothing(t *testing.T) {
	script := filepath.Join(t.TempDir(), "job")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho '--- PASS: TestA (0.00s)'\nsleep 600 & sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("time is up"))
	defer cancel()
	begin := time.Now()
	r := Run(ctx, Job{Bin: script})
	if why, ok := r.OK(nil); ok || why != "time is up" {
		t.Errorf("%v %q, want a failure for time", ok, why)
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %v", d)
	}
}
