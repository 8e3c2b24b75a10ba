package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"keyway/internal/trace"
)

// newTrace makes the file of --trace.
func newTrace(path string, fail func(error)) (*trace.Writer, error) {
	w, err := trace.Create(path, fail)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, misuse{error: fmt.Errorf("--trace: %s is there already", path), way: "a trace is written to a new file: remove that one, or name another"}
	case err != nil:
		return nil, fmt.Errorf("--trace: %w", err)
	}
	return w, nil
}

// traced is localFS of which a trace is written.
type traced struct {
	localFS
	trace *trace.Writer
}

// traceFS begins the trace of --trace, if it is asked for. After an error l is closed.
func (f *fsFlags) traceFS(ctx context.Context, l *localFS) (volumeFS, error) {
	if f.trace == "" {
		return l, nil
	}
	w, err := newTrace(f.trace, func(err error) { warn("%v", err) })
	if err != nil {
		return nil, errors.Join(err, l.close(ctx))
	}
	l.image.Trace(w)
	return &traced{*l, w}, nil
}

func (t *traced) close(ctx context.Context) error {
	return errors.Join(t.localFS.close(ctx), t.trace.Close())
}
