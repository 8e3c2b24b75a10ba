package interleave

import (
	"fmt"
	"runtime"
)

// What follows keeps a run that has failed from saying more: its actors are set free
// then, and some of them see a context that has ended, or go on when the test is over.

func (w *World) report(fatal bool, text string) {
	w.Helper()
	if w.over.Load() {
		if fatal {
			runtime.Goexit()
		}
		return
	}
	w.T.Error(text)
	if fatal {
		w.FailNow()
	}
}

// Error is testing.TB's.
func (w *World) Error(args ...any) {
	w.Helper()
	w.report(false, sprint(args))
}

// Errorf is testing.TB's.
func (w *World) Errorf(format string, args ...any) {
	w.Helper()
	w.report(false, fmt.Sprintf(format, args...))
}

// Fatal ends the actor that calls it, and the run when the others have ended.
func (w *World) Fatal(args ...any) {
	w.Helper()
	w.report(true, sprint(args))
}

// Fatalf ends the actor that calls it, and the run when the others have ended.
func (w *World) Fatalf(format string, args ...any) {
	w.Helper()
	w.report(true, fmt.Sprintf(format, args...))
}

func sprint(args []any) string {
	s := fmt.Sprintln(args...)
	return s[:len(s)-1]
}
