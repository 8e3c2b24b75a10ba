package volumetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"testing"

	"keyway/dm"
	"keyway/fscrypt"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
)

// A Bench reads volumes from bytes that a test changes, decrypted by software.
type Bench struct {
	*Medium
	Only string // the one directory of the root that is read; "": all
	dev  *dm.Handle
	keys func() []*fscrypt.MasterKey
}

// NewBench returns a bench over img. keys makes the master keys that are added; nil
// adds none.
func NewBench(tb testing.TB, img []byte, keys func() []*fscrypt.MasterKey) *Bench {
	tb.Helper()
	w, m := dmtest.New(tb), &Medium{Bytes: img}
	w.Leaf("a", m, nil)
	return &Bench{Medium: m, dev: w.Handle("a"), keys: keys}
}

// explained are the errors that a damaged volume may have.
var explained = []error{
	volume.ErrDamaged, volume.ErrNotSupported, volume.ErrNoKey, volume.ErrUnclean, volume.ErrUnknown, fscrypt.ErrShortKey,
}

// Explained reports whether a damaged volume may have this error.
func Explained(err error) bool {
	for _, e := range explained {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ReadAll reads everything, as volume and file by file: a digest of each file by its
// path, and what went wrong. No more is read than a few times the image.
func (b *Bench) ReadAll(o volume.Options) (files map[string]string, errs []error) {
	b.Limit(16 * int64(len(b.Bytes)))
	ctx := context.Background()
	files = map[string]string{}
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	v, err := volume.Open(ctx, b.dev, o)
	if err != nil {
		return files, []error{err}
	}
	defer func() {
		_, err := v.Close(ctx)
		fail(err)
	}()
	if b.keys != nil {
		for _, m := range b.keys() {
			fail(v.AddKey(m))
		}
	}
	root, err := v.Root()
	if err != nil {
		return files, []error{err}
	}
	seen := map[uint32]bool{}
	var down func(at string, dir *volume.File)
	down = func(at string, dir *volume.File) {
		if seen[dir.Inode] {
			fail(fmt.Errorf("directory %d again: %w", dir.Inode, volume.ErrDamaged))
			return
		}
		seen[dir.Inode] = true
		all, err := v.ReadDir(dir)
		fail(err)
		for _, e := range all {
			if dir == root && b.Only != "" && e.Inode != only(v, b.Only) {
				continue
			}
			f, err := v.Open(dir, e)
			if err != nil {
				fail(err)
				continue
			}
			if s, err := digest(ctx, f); err != nil {
				fail(err)
			} else {
				files[path.Join(at, e.Name)] = s
			}
			if f.Type == volume.Directory {
				down(path.Join(at, e.Name), f)
			}
			fail(f.Close(ctx))
		}
	}
	down("", root)
	// Walk has rules of its own.
	top := root
	if b.Only != "" {
		if top, err = v.Lookup(b.Only); err != nil {
			return files, errs // told above if it is damage
		}
	}
	fail(v.Walk(top, func(string, *volume.File) error { return nil }))
	return files, errs
}

func only(v *volume.Volume, name string) uint32 {
	f, err := v.Lookup(name)
	if err != nil {
		return 0
	}
	return f.Inode
}

// digest tells two files apart.
func digest(ctx context.Context, f *volume.File) (string, error) {
	h := sha256.New()
	facts := f.Facts
	if f.Type == volume.Directory { // its names tell
		facts.Size = 0
	}
	p, _ := f.Policy()
	fmt.Fprintf(h, "%+v %v\n", facts, p)
	switch {
	case f.Type == volume.Symlink:
		target, err := f.Readlink()
		if err != nil {
			return "", err
		}
		h.Write([]byte(target))
	case f.Type == volume.Regular && f.Inline && f.Size > 1<<20: // zeros but for the first
		b := make([]byte, 1<<16)
		if n, err := f.ReadAt(ctx, b, 0); n != len(b) {
			return "", fmt.Errorf("read %d bytes of %d: %w", n, len(b), err)
		}
		h.Write(b)
	case f.Type == volume.Regular && f.Size <= 1<<20:
		n, err := f.Send(ctx, h)
		if err != nil {
			return "", err
		}
		if n != f.Size {
			return "", fmt.Errorf("sent %d bytes of %d without an error", n, f.Size)
		}
	case f.Type == volume.Regular:
		next := int64(0)
		for p, err := range f.Pieces(0, f.Size) {
			if err != nil {
				return "", err
			}
			if p.Off != next || p.Len <= 0 {
				return "", fmt.Errorf("a piece %+v after %d", p, next)
			}
			next += p.Len
			fmt.Fprintln(h, p.Kind, p.Off, p.Len)
			if p.Kind != volume.Data {
				continue
			}
			b := make([]byte, min(p.Len, f.Size-p.Off))
			if n, err := f.ReadAt(ctx, b, p.Off); n != len(b) {
				return "", fmt.Errorf("read %d bytes of %d: %w", n, len(b), err)
			}
			h.Write(b)
		}
		if next < f.Size {
			return "", fmt.Errorf("the pieces end at %d of %d", next, f.Size)
		}
	}
	return string(h.Sum(nil)), nil
}

// A Judge compares what is read of a damaged image with what it was before.
type Judge struct {
	*Bench
	want map[string]string
}

// NewJudge reads the image as it is, which must be without a fault.
func NewJudge(tb testing.TB, img []byte, keys func() []*fscrypt.MasterKey) *Judge {
	tb.Helper()
	j := &Judge{Bench: NewBench(tb, img, keys)}
	var errs []error
	if j.want, errs = j.ReadAll(volume.Options{}); len(errs) > 0 || len(j.want) < 10 {
		tb.Fatalf("through the volume: %d files, %v", len(j.want), errs)
	}
	return j
}

// Damaged reads the image after it was damaged: every error has a reason, and what is
// read without one is as it was, but for the file own. It returns the errors.
func (j *Judge) Damaged(tb testing.TB, name, own string) []error {
	tb.Helper()
	got, errs := j.ReadAll(volume.Options{})
	for _, err := range errs {
		if !Explained(err) {
			tb.Errorf("%s: through the volume: %v", name, err)
		}
	}
	for p, s := range got {
		if s != j.want[p] && p != path.Join(own[min(1, len(own)):]) {
			tb.Errorf("%s: through the volume: %s is read, and differs", name, p)
		}
	}
	if len(errs) == 0 && len(got) != len(j.want) {
		tb.Errorf("%s: through the volume: %d files of %d, and no error", name, len(got), len(j.want))
	}
	return errs
}

// Undamaged checks that the image is as it was.
func (j *Judge) Undamaged(tb testing.TB) {
	tb.Helper()
	if errs := j.Damaged(tb, "undamaged", ""); len(errs) > 0 {
		tb.Errorf("undamaged: %v", errs)
	}
}
