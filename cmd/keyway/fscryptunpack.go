package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"keyway/control"
)

// An unpacker puts the files of a tar archive into a directory. Names are untrusted:
// every step is from a directory that is open to a name in it that is no symbolic link,
// so nothing is reached that is not beneath.
type unpacker struct {
	root    int // descriptor
	force   bool
	owners  bool
	problem func(control.FscryptProblem) error
	dirs    []unpackedDir // whose times are set at the end

	failed map[string]bool // names that are not what the archive has

	last   string // the directory of lastFd
	lastFd int    // -1: none

	mu  sync.Mutex // guards cut
	cut map[string]bool
}

type unpackedDir struct {
	name string
	head *tar.Header
}

// newUnpacker owns root.
func newUnpacker(root int, force bool, problem func(control.FscryptProblem) error) *unpacker {
	return &unpacker{root: root, force: force, owners: os.Geteuid() == 0, problem: problem, failed: map[string]bool{}, lastFd: -1, cut: map[string]bool{}}
}

func (u *unpacker) close() error {
	u.forget()
	return unix.Close(u.root)
}

// incomplete says that the rest of the file called name is not what was in it.
func (u *unpacker) incomplete(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cut[name] = true
}

func (u *unpacker) isCut(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cut[strings.ToValidUTF8(name, "\uFFFD")]
}

// errExists is a name that is taken.
var errExists = errors.New("exists")

// unpack reads the archive to its end. What cannot be written is a problem, and the
// rest follows; no space left ends it.
func (u *unpacker) unpack(in io.Reader) error {
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			// The end of the archive, and then that of the stream.
			if _, err := io.Copy(io.Discard, in); err != nil {
				return err
			}
			return u.finishDirs()
		}
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(h.Name, "/")
		err = u.file(name, h, r)
		switch {
		case err == nil:
		case errors.Is(err, errCutFile):
			u.failed[name] = true
			if utf8.ValidString(name) {
				continue // it was told of
			}
			// It, or another name that looks like it.
			if err := u.problem(control.FscryptProblem{Path: name, Error: printable(name) + ": " + err.Error()}); err != nil {
				return err
			}
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, errStream):
			return fmt.Errorf("%s: %w", printable(name), err)
		default:
			u.failed[name] = true
			p := control.FscryptProblem{Path: name, Error: printable(name) + ": " + err.Error()}
			if errors.Is(err, errExists) {
				p.Hint = "--force replaces files that exist"
			}
			if err := u.problem(p); err != nil {
				return err
			}
		}
	}
}

// errStream is an error of what comes, not of what is written.
var errStream = errors.New("the archive cannot be read")

func (u *unpacker) file(name string, h *tar.Header, in io.Reader) error {
	if !beneath(name) || h.Typeflag == tar.TypeLink && !beneath(h.Linkname) {
		return errors.New("is, or leads to, no name beneath the directory")
	}
	base := path.Base(name)
	dir, err := u.directory(path.Dir(name))
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(dir, base, 0o700)
		if errors.Is(err, unix.EEXIST) {
			var st unix.Stat_t
			if err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR && !u.force {
				return err // somebody else's stays as it is
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				err = fmt.Errorf("%w, and is no directory", errExists)
			}
		}
		if err == nil {
			u.dirs = append(u.dirs, unpackedDir{name, h})
		}
		return err
	case tar.TypeReg:
		return u.place(dir, base, func(temp string) error { return u.contents(dir, temp, name, h, in) })
	case tar.TypeSymlink:
		return u.place(dir, base, func(temp string) error {
			if err := unix.Symlinkat(h.Linkname, dir, temp); err != nil {
				return err
			}
			return u.attributes(dir, temp, -1, h)
		})
	case tar.TypeLink:
		if u.failed[h.Linkname] {
			return fmt.Errorf("is another name of %s, which is not what was exported", printable(h.Linkname))
		}
		from, err := u.walkTo(path.Dir(h.Linkname))
		if err != nil {
			return err
		}
		defer unix.Close(from)
		return u.place(dir, base, func(temp string) error { return unix.Linkat(from, path.Base(h.Linkname), dir, temp, 0) })
	case tar.TypeFifo:
		return u.place(dir, base, func(temp string) error {
			if err := unix.Mkfifoat(dir, temp, uint32(h.Mode)&0o777); err != nil {
				return err
			}
			return u.attributes(dir, temp, -1, h)
		})
	case tar.TypeChar, tar.TypeBlock:
		return errors.New("device nodes are not made; they are in an archive")
	}
	return fmt.Errorf("type %q of an archive is not known", h.Typeflag)
}

// beneath reports whether every step of a path leads further down.
func beneath(name string) bool {
	return !slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool { return part == "" || part == "." || part == ".." })
}

// place makes something under another name first, so that a name belongs to what is
// whole, and what it replaces stays until then.
func (u *unpacker) place(dir int, base string, create func(temp string) error) error {
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Errorf("%w, and is a directory", errExists)
	case err == nil && !u.force:
		return errExists
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	}
	temp := fmt.Sprintf(".keyway-%d-%d", os.Getpid(), time.Now().UnixNano())
	err := create(temp)
	if err == nil {
		if u.force {
			err = unix.Renameat(dir, temp, dir, base)
		} else if err = unix.Renameat2(dir, temp, dir, base, unix.RENAME_NOREPLACE); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = unix.Linkat(dir, temp, dir, base, 0) // file systems that do not know the flag
		}
		if errors.Is(err, unix.EEXIST) {
			err = errExists
		}
	}
	unix.Unlinkat(dir, temp, 0) // nothing, if it has its name
	return err
}

// contents writes a regular file, with holes where there are only zeros.
func (u *unpacker) contents(dir int, temp, name string, h *tar.Header, in io.Reader) error {
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	const piece = 64 << 10
	buf := make([]byte, piece)
	zeros := make([]byte, piece)
	for off := int64(0); off < h.Size; {
		n, err := io.ReadFull(in, buf[:min(piece, h.Size-off)])
		if err != nil {
			return fmt.Errorf("%w: %w", errStream, err)
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
	}
	if u.isCut(name) {
		return errCutFile
	}
	if err := f.Truncate(h.Size); err != nil {
		return err
	}
	return errors.Join(u.attributes(dir, temp, fd, h), f.Close())
}

// errCutFile is a file that was told of already, unless its name is not UTF-8: what was
// told may be another one.
var errCutFile = errors.New("is left out")

// attributes sets owner, mode and times of what was made; fd has it open, unless it is
// neither file nor directory.
func (u *unpacker) attributes(dir int, name string, fd int, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o777
	if u.owners {
		if err := unix.Fchownat(dir, name, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		mode = uint32(h.Mode) & 0o7777
	}
	if fd >= 0 {
		if err := unix.Fchmod(fd, mode); err != nil {
			return err
		}
	}
	t := unix.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())} // UnixNano ends in 2262
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// finishDirs sets what belongs to directories, the deepest first, when nothing is put
// into them any more.
func (u *unpacker) finishDirs() error {
	for _, d := range slices.Backward(u.dirs) {
		err := u.finishDir(d)
		if err == nil {
			continue
		}
		if err := u.problem(control.FscryptProblem{Path: d.name, Error: printable(d.name) + ": " + err.Error()}); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) finishDir(d unpackedDir) error {
	dir, err := u.directory(path.Dir(d.name))
	if err != nil {
		return err
	}
	fd, err := u.walkTo(d.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.attributes(dir, path.Base(d.name), fd, d.head)
}

// directory returns the descriptor of a directory, which is the unpacker's.
func (u *unpacker) directory(name string) (int, error) {
	if name == "." {
		return u.root, nil
	}
	if u.lastFd >= 0 && u.last == name {
		return u.lastFd, nil
	}
	fd, err := u.walkTo(name)
	if err != nil {
		return -1, err
	}
	u.forget()
	u.last, u.lastFd = name, fd
	return fd, nil
}

func (u *unpacker) forget() {
	if u.lastFd >= 0 {
		unix.Close(u.lastFd)
		u.lastFd = -1
	}
}

// walkTo opens a directory step by step. The caller closes it.
func (u *unpacker) walkTo(name string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(u.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil || name == "." {
		return fd, err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return -1, fmt.Errorf("%q on its way is no directory", part)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}
