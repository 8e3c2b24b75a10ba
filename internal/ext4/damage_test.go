package ext4_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyway/internal/ext4"
	"keyway/internal/race"
	"keyway/test/volumetest"
)

var errTooMuch = errors.New("far more is read than there is")

// explained are the errors that a damaged image may have.
var explained = []error{ext4.ErrNotExt4, ext4.ErrUnsupported, ext4.ErrDamaged, ext4.ErrJournal, ext4.ErrUnused}

// readAll reads everything: a digest of each file by its path, and what went wrong. No
// more is read than a few times the image.
func readAll(e *editor) (files map[string]string, errs []error) {
	files = map[string]string{}
	f, err := ext4.Open(&meter{e, 8 * int64(len(e.img))}, int64(len(e.img)), ext4.Options{})
	if err != nil {
		return files, []error{err}
	}
	info := f.Info()
	fail := func(err error) { errs = append(errs, err) }
	root, err := f.Inode(ext4.Root)
	if err != nil {
		return files, []error{err}
	}
	seen := map[uint32]bool{}
	var walk func(path string, d *ext4.Inode)
	walk = func(path string, d *ext4.Inode) {
		if seen[d.Number] {
			fail(fmt.Errorf("directory %d again: %w", d.Number, ext4.ErrDamaged))
			return
		}
		seen[d.Number] = true
		for entry, err := range d.Entries() {
			if err != nil {
				fail(err)
				return
			}
			if name := string(entry.Name); name != "." && name != ".." {
				i, err := f.Open(entry)
				if err != nil {
					fail(err)
					continue
				}
				if s, err := digest(i, info.BlockSize); err != nil {
					fail(err)
				} else {
					files[path+"/"+name] = s
				}
				if i.Type() == ext4.Directory {
					walk(path+"/"+name, i)
				}
			}
		}
	}
	walk("", root)
	// Walk has rules of its own.
	if err := f.Walk(root, func([]ext4.Entry, *ext4.Inode) error { return nil }); err != nil {
		fail(err)
	}
	return files, errs
}

// digest tells two files apart.
func digest(i *ext4.Inode, blockSize int) (string, error) {
	size := i.Size
	if i.Type() == ext4.Directory { // its names tell
		size = 0
	}
	var facts []byte
	for _, v := range []int64{
		int64(i.Number), int64(i.Generation), int64(i.Mode), int64(i.UID), int64(i.GID), int64(i.Links), size, int64(i.Sectors), int64(i.Flags),
		int64(i.Major), int64(i.Minor), i.Modified.UnixNano(), i.Changed.UnixNano(), i.Created.UnixNano(),
	} {
		facts = binary.LittleEndian.AppendUint64(facts, uint64(v))
	}
	h := sha256.New()
	h.Write(facts)
	attrs, err := i.Attrs()
	if err != nil {
		return "", err
	}
	for _, a := range attrs {
		v, err := i.Attr(a.Prefix, a.Name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", a.FullName(), v)
	}
	switch t := i.Type(); {
	case t == ext4.Symlink:
		b, err := i.Target()
		if err != nil {
			return "", err
		}
		h.Write(b)
	case t == ext4.Regular && i.Inline():
		b := make([]byte, min(i.Size, 4096))
		if n, err := i.ReadAt(b, 0); n != len(b) {
			return "", err
		}
		h.Write(b)
	case t == ext4.Regular:
		for r, err := range i.Map(0, uint64(i.RawSize())/uint64(blockSize)) {
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, r)
			if r.Kind != ext4.Data {
				continue
			}
			b := make([]byte, r.Blocks*uint64(blockSize))
			if n, err := i.ReadRaw(b, int64(r.Logical)*int64(blockSize)); n != len(b) {
				return "", err
			}
			h.Write(b)
		}
	}
	return string(h.Sum(nil)), nil
}

// bases makes the images that are damaged: one with every structure and checksums,
// one with block maps and without.
func bases(t *testing.T) (ext4fs, ext2fs *editor) {
	t.Helper()
	src := t.TempDir()
	tree(t, src)
	values := t.TempDir()
	if err := os.Mkdir(filepath.Join(src, "one"), 0o755); err != nil { // of one block
		t.Fatal(err)
	}
	for k := range 12 {
		if err := syscall.Mkfifo(filepath.Join(src, "one", manyName(k)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var then []string
	for name, v := range map[string][]byte{"user.a": pattern(1, 20), "user.b": pattern(2, 300), "user.c": pattern(3, 200), "user.big": pattern(4, 1024)} {
		file := filepath.Join(values, name)
		if err := os.WriteFile(file, v, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "user.big" {
			then = append(then, fmt.Sprintf("ea_set -f %s f70000 %s", file, name))
		} else {
			then = append(then, fmt.Sprintf("ea_set -f %s f1025 %s", file, name))
		}
	}
	args := "-t ext4 -b 1024 -I 256 -J size=1 -O metadata_csum,64bit,ea_inode,inline_data"
	ext4fs = edit(t, makeFS(t, src, args, 1000, then...))
	return ext4fs, edit(t, makeFS(t, src, "-t ext2 -b 1024", 20, then[:len(then)-4]...))
}

// A rule is broken by a change, and the error says where.
type rule struct {
	name   string
	change func(e *editor)
	want   string
	own    string // path of what the change itself makes different, if it is read
}

// TestDamage breaks each rule of the format once, with good checksums where those are
// not what is broken; what the error says is the place. Nothing that is still read
// differs from what it was, neither here nor through a volume.
func TestDamage(t *testing.T) {
	four, two := bases(t)
	n := 0
	for _, c := range []struct {
		e     *editor
		rules []rule
	}{{four, superRules}, {four, groupRules}, {four, inodeRules}, {four, extentRules}, {four, dirRules}, {four, indexRules}, {four, attrRules}, {two, pointerRules}} {
		want, errs := readAll(c.e)
		if len(errs) > 0 || len(want) < 50 {
			t.Fatalf("%d files, %v", len(want), errs)
		}
		judge := volumetest.NewJudge(t, c.e.img, nil)
		for _, r := range c.rules {
			if n++; n%race.Every(8) != 0 {
				continue
			}
			c.e.t = t
			r.change(c.e)
			got, errs := readAll(c.e)
			if len(errs) == 0 || !strings.Contains(errors.Join(errs...).Error(), r.want) {
				t.Errorf("%s: %v, want %q", r.name, errs, r.want)
			}
			for _, err := range errs {
				if !isExplained(err) {
					t.Errorf("%s: %v", r.name, err)
				}
			}
			for path, s := range got {
				if s != want[path] && path != r.own {
					t.Errorf("%s: %s is read, and differs", r.name, path)
				}
			}
			judge.Damaged(t, r.name, r.own)
			c.e.revert()
		}
		judge.Undamaged(t)
		if got, errs := readAll(c.e); len(errs) > 0 || len(got) != len(want) {
			t.Fatalf("not all was taken back: %v", errs)
		}
	}
	if n < 100 {
		t.Errorf("%d rules, want at least 100", n)
	}
}

func isExplained(err error) bool {
	for _, e := range explained {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// TestReadsWithoutReplayIfAsked: a journal that was not replayed can be ignored, and is told.
func TestReadsWithoutReplayIfAsked(t *testing.T) {
	four := edit(t, makeFS(t, t.TempDir(), "-t ext4 -b 1024 -I 256", 1))
	sbOr(0x60, 4)(four)
	_, err := ext4.Open(four, int64(len(four.img)), ext4.Options{})
	if !errors.Is(err, ext4.ErrJournal) {
		t.Fatalf("%v, want %v", err, ext4.ErrJournal)
	}
	f, err := ext4.Open(four, int64(len(four.img)), ext4.Options{IgnoreJournal: true})
	if err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(f.Info().Warnings, "\n"); !strings.Contains(w, "not replayed") {
		t.Errorf("warnings %q", w)
	}
	if _, err := ext4.Open(bytes.NewReader(four.img[:40<<20]), 40<<20, ext4.Options{IgnoreJournal: true}); !errors.Is(err, ext4.ErrDamaged) {
		t.Errorf("a part of the device: %v", err)
	}
	if _, err := ext4.Open(bytes.NewReader(nil), 0, ext4.Options{}); !errors.Is(err, ext4.ErrNotExt4) {
		t.Errorf("an empty device: %v", err)
	}
}
