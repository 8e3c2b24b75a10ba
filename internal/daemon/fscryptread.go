package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"keyway/control"
	"keyway/fscrypt/volume"
)

// List tells s of one file, or of the names in a directory, sorted; with Recursive of
// all that is beneath, each directory before what is in it.
func (x *files) List(ctx context.Context, r control.Fscrypt, s control.FscryptSink) error {
	path, err := onePath(r)
	if err != nil {
		return err
	}
	f, err := x.at(path, false)
	if err != nil {
		return err
	}
	defer f.Close(ctx) // no contents were read
	if f.Type != volume.Directory {
		return s.Entry(x.entry(path, f))
	}
	w := walker{x: x, s: s, seen: map[uint32]bool{f.Inode: true}}
	w.visit = func(path string, e volume.Entry, f *volume.File, err error) (bool, error) {
		if r.Brief {
			n := named(path)
			n.Type = typeNames[e.Type]
			return r.Recursive, s.Entry(n)
		}
		if err != nil {
			n := named(path)
			n.Type, n.Inode, n.Problem = typeNames[e.Type], uint64(e.Inode), err.Error()
			return false, s.Entry(n)
		}
		return r.Recursive, s.Entry(x.entry(path, f))
	}
	w.open = !r.Brief || r.Recursive
	all, err := x.v.ReadDir(f)
	if err != nil {
		return fmt.Errorf("%s: %w", shown(path), x.hint(err))
	}
	return w.entries(ctx, path, f, all)
}

// A walker goes through all that is beneath a directory, whatever of it cannot be read.
type walker struct {
	x     *files
	s     control.FscryptSink // is told of directories that cannot be read
	open  bool                // files are opened
	seen  map[uint32]bool     // directories
	depth int

	// visit is called for each name, in order; err says why f could not be opened. It
	// reports whether to go on into a directory. Its error ends the walk.
	visit func(path string, e volume.Entry, f *volume.File, err error) (into bool, _ error)
}

// maxNested bounds the depth of a walk, which holds a list of names for each level.
const maxNested = 4096

// entries visits the names of a directory.
func (w *walker) entries(ctx context.Context, path string, dir *volume.File, all []volume.Entry) error {
	slices.SortStableFunc(all, func(a, b volume.Entry) int { return cmp.Compare(a.Name, b.Name) })
	for _, e := range all {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := w.entry(ctx, join(path, e.Name), dir, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(ctx context.Context, path string, dir *volume.File, e volume.Entry) (err error) {
	if !w.open {
		_, err := w.visit(path, e, nil, nil)
		return err
	}
	f, bad := w.x.v.Open(dir, e)
	if bad == nil {
		defer func() { err = errors.Join(err, f.Close(context.WithoutCancel(ctx))) }()
	} else if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	into, err := w.visit(path, e, f, bad)
	if err != nil || bad != nil || !into || f.Type != volume.Directory {
		return err
	}
	if w.seen[f.Inode] {
		return w.x.problem(w.s, path, fmt.Errorf("%w: directory inode %d has been met before", volume.ErrDamaged, f.Inode))
	}
	w.seen[f.Inode] = true
	defer func() { w.depth-- }()
	if w.depth++; w.depth > maxNested {
		return w.x.problem(w.s, path, fmt.Errorf("%w: more than %d directories deep", volume.ErrNotSupported, maxNested))
	}
	all, err := w.x.v.ReadDir(f)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return w.x.problem(w.s, path, err)
	}
	return w.entries(ctx, path, f, all)
}

// Cat gives the contents of files to s, one after the other. What cannot be read is a
// problem, and the next file follows.
func (x *files) Cat(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (t control.FscryptTotals, err error) {
	for _, p := range r.Paths {
		path := cleanPath(string(p))
		n, err := x.cat(ctx, path, s)
		t.Bytes += n
		switch bad, isSink := errors.AsType[sinkError](err); {
		case isSink:
			return t, bad.error
		case err != nil && ctx.Err() != nil:
			return t, context.Cause(ctx)
		case err != nil:
			t.Problems++
			if err := x.problem(s, path, err); err != nil {
				return t, err
			}
		default:
			t.Files++
		}
	}
	return t, nil
}

// sinkError is an error of who takes the data.
type sinkError struct{ error }

func (x *files) cat(ctx context.Context, path string, s control.FscryptSink) (n int64, err error) {
	f, err := x.lookup(path, true)
	if err != nil {
		return 0, err
	}
	if f.Type != volume.Regular {
		return 0, fmt.Errorf("is a %s, not a file", typeNames[f.Type])
	}
	w := &writerFunc{f: s.Data}
	_, err = f.Send(ctx, w)
	err = errors.Join(err, f.Close(context.WithoutCancel(ctx)))
	if w.failed != nil {
		err = sinkError{w.failed}
	}
	return w.n, err
}
