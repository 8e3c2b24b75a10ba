package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyway/control"
	"keyway/dm"
	"keyway/fscrypt"
	"keyway/fscrypt/volume"
	"keyway/internal/secret"
)

// files is a file system on a device, with the keys that were given for it. Its calls
// may run side by side.
type files struct {
	on   *dm.Mapped
	v    *volume.Volume
	keys []filesKey
}

// A filesKey is a master key, which the volume owns.
type filesKey struct {
	control.FscryptKey
	*fscrypt.MasterKey
}

// openFiles reads the superblock. h stays the caller's.
func openFiles(ctx context.Context, h *dm.Handle, unclean bool) (*files, error) {
	v, err := volume.Open(ctx, h, volume.Options{IgnoreUnclean: unclean})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name(), filesHint(err))
	}
	return &files{on: h.Mapped, v: v}, nil
}

// addKey adds the key of the bytes in b, which it wipes. hw is the hardware of a
// wrapped one.
func (x *files) addKey(k control.FscryptKey, b *secret.Buffer, hw fscrypt.SecretDeriver) error {
	defer b.Wipe()
	var m *fscrypt.MasterKey
	var err error
	switch {
	case k.Wrapped && k.Descriptor != "":
		return badRequest{fmt.Errorf("key from %s: v1 policies, which have descriptors, have no wrapped keys", k.Source)}
	case k.Wrapped:
		m, err = fscrypt.NewWrappedKey(b.Bytes(), hw)
	case k.Descriptor != "":
		d, bad := hex.DecodeString(k.Descriptor)
		if bad != nil || len(d) != fscrypt.DescriptorSize {
			return badRequest{fmt.Errorf("key from %s: a descriptor has %d hex digits", k.Source, 2*fscrypt.DescriptorSize)}
		}
		m, err = fscrypt.NewMasterKeyAs(b.Bytes(), [fscrypt.DescriptorSize]byte(d))
	default:
		m, err = fscrypt.NewMasterKey(b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("key from %s: %w", k.Source, err)
	}
	if err := x.v.AddKey(m); err != nil {
		return err
	}
	x.keys = append(x.keys, filesKey{k, m})
	return nil
}

// key returns the one that a policy names, nil if it was not given.
func (x *files) key(s fscrypt.KeySpec) *filesKey {
	if i := slices.IndexFunc(x.keys, func(k filesKey) bool { return k.Is(s) }); i >= 0 {
		return &x.keys[i]
	}
	return nil
}

// close evicts all keys. It may be called again after an error.
func (x *files) close(ctx context.Context) error {
	_, err := x.v.Close(ctx)
	return err
}

// hint adds the way out of what the volume says.
func (x *files) hint(err error) error {
	need, missing := errors.AsType[*volume.NoKeyError](err)
	switch {
	case !missing || Hint(err) != "" || len(x.keys) == 0:
		return filesHint(err)
	case need.Spec.Version == 1:
		return hint(err, fmt.Sprintf("--key %v=SOURCE says that a key was added under this descriptor", need.Spec))
	}
	var names []string
	for _, k := range x.keys {
		names = append(names, k.Spec().String())
	}
	return hint(err, "another key is needed: given is "+strings.Join(names, ", "))
}

// filesHint is hint where no keys are known.
func filesHint(err error) error {
	switch {
	case err == nil || Hint(err) != "":
		return err
	case errors.Is(err, volume.ErrNoKey):
		return hint(err, "--key gives a master key; \"keyway fscrypt status\" lists the policies and which keys they need")
	case errors.Is(err, volume.ErrUnclean):
		return hint(err, "mount it once where it belongs, so that its journal is replayed, or --unclean reads it as it is")
	case errors.Is(err, volume.ErrUnknown):
		return hint(err, "a file system inside of a table, a partition or LUKS is read on the device that decrypts it: \"keyway create\", \"keyway luks open\"")
	case errors.Is(err, dm.ErrNoTable):
		return hint(err, "\"keyway load\" and \"keyway resume\" give it a table")
	case errors.Is(err, fscrypt.ErrShortKey):
		return hint(err, "the key was cut, or is another one: its identifier would not tell")
	}
	return err
}

// cleanPath is a path from the root as answers have it.
func cleanPath(path string) string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		switch name {
		case "", ".":
		case "..":
			names = names[:max(0, len(names)-1)]
		default:
			names = append(names, name)
		}
	}
	return strings.Join(names, "/")
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// shown is how a path is written in errors.
func shown(path string) string {
	if path == "" {
		return "/"
	}
	for i, r := range path {
		if !unicode.IsPrint(r) || r == utf8.RuneError && !strings.HasPrefix(path[i:], "\uFFFD") {
			return fmt.Sprintf("%q", path)
		}
	}
	return path
}

// onePath returns the path of a call that takes one at most.
func onePath(r control.Fscrypt) (string, error) {
	switch len(r.Paths) {
	case 0:
		return "", nil
	case 1:
		return cleanPath(string(r.Paths[0])), nil
	}
	return "", badRequest{fmt.Errorf("%d paths, and one is wanted", len(r.Paths))}
}

// maxLinks is how many symbolic links a path may go through, as in Linux.
const maxLinks = 40

// at finds the file of a call.
func (x *files) at(path string, follow bool) (*volume.File, error) {
	f, err := x.lookup(path, follow)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(path), err)
	}
	return f, nil
}

// lookup finds a file by a path from the root. Symbolic links on the way are followed,
// and the last name if it is one and follow is set; an absolute target counts from the
// root of the file system.
func (x *files) lookup(path string, follow bool) (*volume.File, error) {
	f, err := x.v.Lookup(path)
	if err == nil && (f.Type != volume.Symlink || !follow) {
		return f, nil
	}
	if err != nil && !errors.Is(err, volume.ErrType) { // a symbolic link, for one, has no names
		return nil, x.hint(err)
	}
	todo := strings.Split(path, "/")
	at, links := "", 0
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		next := cleanPath(at + "/" + name)
		if f, err = x.v.Lookup(next); err != nil {
			return nil, fmt.Errorf("at %s: %w", shown(next), x.hint(err))
		}
		if f.Type != volume.Symlink || len(todo) == 0 && !follow {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("more than %d symbolic links", maxLinks)
		}
		target, err := x.target(f)
		if err != nil {
			return nil, fmt.Errorf("at %s: %w", shown(next), x.hint(err))
		}
		if strings.HasPrefix(target, "/") {
			at = ""
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return f, nil
}

// target is where a symbolic link leads; without its key it leads nowhere.
func (x *files) target(f *volume.File) (string, error) {
	if p, encrypted := f.Policy(); encrypted && !f.HasKey() {
		return "", &volume.NoKeyError{Of: "target", Spec: p.Key}
	}
	return f.Readlink()
}

// typeNames are the types of files in answers.
var typeNames = map[volume.Type]string{
	volume.Regular: "file", volume.Directory: "directory", volume.Symlink: "symlink", volume.FIFO: "fifo",
	volume.Socket: "socket", volume.CharDevice: "char-device", volume.BlockDevice: "block-device",
}

// named is an entry that has its path alone.
func named(path string) control.FscryptEntry {
	e := control.FscryptEntry{Path: path}
	if !utf8.ValidString(path) {
		e.Path, e.PathBytes = strings.ToValidUTF8(path, "\uFFFD"), []byte(path)
	}
	return e
}

// entry describes a file.
func (x *files) entry(path string, f *volume.File) control.FscryptEntry {
	e := named(path)
	e.Type = typeNames[f.Type]
	e.Mode, e.UID, e.GID, e.Links = uint32(f.Mode&0o7777), f.UID, f.GID, f.Links
	e.Size, e.Modified, e.Inode, e.Encrypted = f.Size, told(f.Modified), uint64(f.Inode), f.Encrypted
	if p, ok := f.Policy(); ok {
		e.Key, e.Locked = p.Key.String(), !f.HasKey()
	}
	if f.Type == volume.Symlink {
		target, err := f.Readlink()
		if err != nil {
			e.Problem = err.Error()
		}
		e.Target = strings.ToValidUTF8(target, "\uFFFD")
	}
	return e
}

// The first and the last second that JSON has words for; f2fs has more.
const firstTold, lastTold = -62167219200, 253402300799

// told returns t, or the nearest time that JSON has words for.
func told(t time.Time) time.Time {
	if s := t.Unix(); s < firstTold || s > lastTold {
		return time.Unix(min(max(s, firstTold), lastTold), 0).UTC()
	}
	return t
}

// writerFunc is an io.Writer, and remembers that its function failed: what is read goes
// nowhere then.
type writerFunc struct {
	f      func(p []byte) error
	n      int64
	failed error
}

func (w *writerFunc) Write(p []byte) (int, error) {
	if w.failed != nil {
		return 0, w.failed
	}
	if w.failed = w.f(p); w.failed != nil {
		return 0, w.failed
	}
	w.n += int64(len(p))
	return len(p), nil
}

// problem tells a sink of a file that cannot be read.
func (x *files) problem(s control.FscryptSink, path string, err error) error {
	err = x.hint(err)
	return s.Problem(control.FscryptProblem{Path: strings.ToValidUTF8(path, "\uFFFD"), Error: shown(path) + ": " + err.Error(), Hint: Hint(err)})
}
