package main

import (
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
