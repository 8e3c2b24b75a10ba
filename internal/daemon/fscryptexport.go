package daemon

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"keyway/control"
	"keyway/fscrypt/volume"
)

// Export gives s a tar archive of all that is beneath a directory, or of one file.
// What cannot be read is a problem and is left out, but for a file that fails in the
// middle: the problem comes before zeros in the place of the rest.
func (x *files) Export(ctx context.Context, r control.Fscrypt, s control.FscryptSink) (t control.FscryptTotals, err error) {
	top, err := onePath(r)
	if err != nil {
		return t, err
	}
	f, err := x.at(top, false)
	if err != nil {
		return t, err
	}
	defer f.Close(context.WithoutCancel(ctx)) // Close of the volume tells what is left
	out := &writerFunc{f: s.Data}
	p := packer{x: x, w: tar.NewWriter(out), out: out, s: s, t: &t, first: map[uint32]string{}}
	if f.Type != volume.Directory {
		if err := p.file(ctx, path.Base(top), f); err != nil {
			return t, err
		}
		return t, p.w.Close()
	}
	all, err := x.v.ReadDir(f)
	if err != nil {
		return t, fmt.Errorf("%s: %w", shown(top), x.hint(err))
	}
	if locked(f) {
		spec, _ := f.Policy()
		return t, fmt.Errorf("%s: %w", shown(top), x.hint(&volume.NoKeyError{Of: "all beneath", Spec: spec.Key}))
	}
	w := walker{x: x, s: control.FscryptSink{Problem: p.problem}, open: true, seen: map[uint32]bool{f.Inode: true}}
	w.visit = func(path string, _ volume.Entry, f *volume.File, err error) (bool, error) {
		if err != nil {
			return false, x.problem(w.s, path, err)
		}
		return f.Type == volume.Directory && !locked(f), p.file(ctx, path, f)
	}
	if err := w.entries(ctx, "", f, all); err != nil {
		return t, err
	}
	return t, p.w.Close()
}

// locked reports whether a file is encrypted and its key is not there.
func locked(f *volume.File) bool { return f.Encrypted && !f.HasKey() }

// A packer puts files into an archive.
type packer struct {
	x     *files
	w     *tar.Writer
	out   *writerFunc
	s     control.FscryptSink
	t     *control.FscryptTotals
	first map[uint32]string // names of inodes that have several
}

func (p *packer) problem(e control.FscryptProblem) error {
	p.t.Problems++
	return p.s.Problem(e)
}

// leftOut tells of a file that is not in the archive, unless nobody listens any more.
func (p *packer) leftOut(ctx context.Context, name string, err error) error {
	switch {
	case p.out.failed != nil:
		return p.out.failed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return p.x.problem(control.FscryptSink{Problem: p.problem}, name, err)
}

// badName says why no archive has a file of that name. A medium may hold any name.
func badName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%w: a name that is none", volume.ErrDamaged)
		}
	}
	if strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: a name with a byte of zero", volume.ErrDamaged)
	}
	return nil
}

func (p *packer) file(ctx context.Context, name string, f *volume.File) error {
	if err := badName(name); err != nil {
		return p.leftOut(ctx, name, err)
	}
	h := &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(f.Mode & 0o7777), Uid: int(f.UID), Gid: int(f.GID), ModTime: f.Modified,
		Devmajor: int64(f.Major), Devminor: int64(f.Minor),
	}
	if f.Links > 1 && f.Type != volume.Directory {
		if first, ok := p.first[f.Inode]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return p.header(ctx, h)
		}
	}
	switch f.Type {
	case volume.Regular:
		return p.contents(ctx, h, f)
	case volume.Directory:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if locked(f) {
			spec, _ := f.Policy()
			if err := p.leftOut(ctx, name, &volume.NoKeyError{Of: "all beneath", Spec: spec.Key}); err != nil {
				return err
			}
		}
	case volume.Symlink:
		target, err := p.x.target(f)
		if err != nil {
			return p.leftOut(ctx, name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case volume.FIFO:
		h.Typeflag = tar.TypeFifo
	case volume.CharDevice:
		h.Typeflag = tar.TypeChar
	case volume.BlockDevice:
		h.Typeflag = tar.TypeBlock
	default:
		return p.leftOut(ctx, name, fmt.Errorf("a %s has no place in an archive", typeNames[f.Type]))
	}
	if err := p.header(ctx, h); err != nil {
		return err
	}
	p.linked(f, name)
	return nil
}

// linked remembers a name for further links to the file.
func (p *packer) linked(f *volume.File, name string) {
	p.t.Files++
	if f.Links > 1 && f.Type != volume.Directory {
		p.first[f.Inode] = name
	}
}

// header writes the head of a file without contents. What tar cannot express is left out.
func (p *packer) header(ctx context.Context, h *tar.Header) error {
	err := p.w.WriteHeader(h)
	if err != nil && p.out.failed == nil {
		return p.leftOut(ctx, h.Name, err)
	}
	return err
}

// contents puts a regular file into the archive: its head with the first bytes, so that
// nothing is there of one that cannot be read at all.
func (p *packer) contents(ctx context.Context, h *tar.Header, f *volume.File) error {
	h.Typeflag, h.Size = tar.TypeReg, f.Size
	begun := false
	begin := func() error {
		begun = true
		return p.w.WriteHeader(h)
	}
	w := &writerFunc{f: func(b []byte) error {
		if !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		_, err := p.w.Write(b)
		return err
	}}
	_, err := f.Send(ctx, w)
	p.t.Bytes += w.n
	if w.failed != nil {
		return errors.Join(w.failed, f.Close(context.WithoutCancel(ctx)))
	}
	err = errors.Join(err, f.Close(context.WithoutCancel(ctx)))
	if err == nil && !begun {
		err = begin() // an empty file
	}
	if err == nil {
		p.linked(f, h.Name)
		return nil
	}
	if !begun {
		return p.leftOut(ctx, h.Name, err)
	}
	if err := p.leftOut(ctx, h.Name, fmt.Errorf("from byte %d on: %w", w.n, err)); err != nil {
		return err
	}
	_, err = io.CopyN(p.w, zeros{}, f.Size-w.n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
