package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/control"
)

// A tarred is one file of an archive.
type tarred struct {
	tar.Header
	data string
}

func archive(t *testing.T, files ...tarred) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size, f.Format = int64(len(f.data)), tar.FormatPAX
		f.Uid, f.Gid = os.Getuid(), os.Getgid()
		if f.Mode == 0 {
			f.Mode = 0o644
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name, data string) tarred {
	return tarred{tar.Header{Name: name, Typeflag: tar.TypeReg}, data}
}

func directory(name string) tarred {
	return tarred{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o750}, ""}
}

func link(typ byte, name, to string) tarred {
	return tarred{tar.Header{Name: name, Typeflag: typ, Linkname: to}, ""}
}

// unpackTo unpacks an archive into dir, and returns the problems.
func unpackTo(t *testing.T, dir string, force bool, b []byte, cut ...string) (problems []string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	u := newUnpacker(fd, force, func(p control.FscryptProblem) error { problems = append(problems, p.Error); return nil })
	for _, name := range cut {
		u.incomplete(name)
	}
	if err := u.unpack(bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
	if err := u.close(); err != nil {
		t.Error(err)
	}
	return problems
}

// tree is what is beneath dir: names with contents or targets.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		switch d.Type() {
		case 0:
			b, err := os.ReadFile(p)
			all[name] = string(b)
			return err
		case fs.ModeSymlink:
			to, err := os.Readlink(p)
			all[name] = "-> " + to
			return err
		}
		all[name] = d.Type().String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantTree(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := tree(t, dir)
	for name, data := range want {
		if d, ok := got[name]; !ok || d != data {
			t.Errorf("%s: %.60q, want %.60q (there: %v)", name, d, data, ok)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

const isDir = "d---------"

func TestUnpackKeepsWhatAnArchiveSays(t *testing.T) {
	dir := t.TempDir()
	d := directory("d")
	d.ModTime = time.Unix(1000000000, 5)
	f := file("d/f", "data")
	f.Mode, f.ModTime = 0o640, time.Unix(1234567890, 123456789)
	holes := strings.Repeat("\x00", 1<<20) + "end"
	problems := unpackTo(t, dir, false, archive(t, d, f, file("d/holes", holes), link(tar.TypeLink, "d/g", "d/f"), link(tar.TypeSymlink, "s", "/nowhere"),
		tarred{tar.Header{Name: "p", Typeflag: tar.TypeFifo}, ""}))
	if problems != nil {
		t.Errorf("%q", problems)
	}
	wantTree(t, dir, map[string]string{"d": isDir, "d/f": "data", "d/g": "data", "d/holes": holes, "s": "-> /nowhere", "p": "p---------"})
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := stat("d/f"); st.Mode&0o7777 != 0o640 || st.Mtim.Sec != 1234567890 || st.Mtim.Nsec != 123456789 || st.Nlink != 2 || st.Ino != stat("d/g").Ino {
		t.Errorf("d/f: %+v", st)
	}
	if st := stat("d"); st.Mode&0o7777 != 0o750 || st.Mtim.Sec != 1000000000 {
		t.Errorf("d: mode %o, time %d: what came into it later has changed it", st.Mode, st.Mtim.Sec)
	}
	if st := stat("d/holes"); st.Blocks*512 > 256<<10 {
		t.Errorf("zeros take %d bytes", st.Blocks*512)
	}
}

// Times that do not fit in 64 bits of nanoseconds, from the year 2262 on, are kept: both
// kinds of file systems have them.
func TestUnpackKeepsLateTimes(t *testing.T) {
	dir := t.TempDir()
	f := file("f", "data")
	f.ModTime = time.Date(2400, 1, 2, 3, 4, 5, 6, time.UTC)
	if problems := unpackTo(t, dir, false, archive(t, f)); problems != nil {
		t.Errorf("%q", problems)
	}
	want := filepath.Join(t.TempDir(), "w") // what this file system makes of it
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := unix.Timespec{Sec: f.ModTime.Unix(), Nsec: 6}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, want, []unix.Timespec{at, at}, 0); err != nil {
		t.Fatal(err)
	}
	var got, w unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Join(dir, "f"), &got), unix.Stat(want, &w)); err != nil {
		t.Fatal(err)
	}
	if got.Mtim != w.Mtim {
		t.Errorf("%v, want %v", got.Mtim, w.Mtim)
	}
}

// Two names that look alike once they are made valid UTF-8 are two files: that one was
// cut off takes nothing from the other without a word.
func TestUnpackTellsOfEveryNameThatLooksCut(t *testing.T) {
	dir := t.TempDir()
	problems := unpackTo(t, dir, false, archive(t, file("a\xff", "half"), file("a\xfe", "whole")), "a\uFFFD")
	if len(problems) != 2 {
		t.Errorf("%q: two files are left out, one of them perhaps whole", problems)
	}
	wantTree(t, dir, map[string]string{})
}

// Whatever an archive says, nothing is written outside of the directory, and no
// symbolic link is followed.
func TestUnpackStaysInItsDirectory(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "in")
	for _, d := range []string{dir, filepath.Join(outer, "out"), filepath.Join(dir, "real")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"there": "../out", "inside": "real", "f": "../out/f"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	hostile := []tarred{
		file("../out/1", "x"), file("/tmp/../2", "x"), file("a/../../out/3", "x"), file("./4", "x"), file("there/5", "x"), file("inside/6", "x"),
		link(tar.TypeSymlink, "new", "../out"), file("new/7", "x"), directory("new"), directory("there"), file("f", "x"),
		link(tar.TypeLink, "8", "../out/secret"), link(tar.TypeLink, "9", "there/secret"),
	}
	if err := os.WriteFile(filepath.Join(outer, "out", "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, force := range []bool{false, true} {
		if problems := unpackTo(t, dir, force, archive(t, hostile...)); len(problems) < len(hostile)-3 {
			t.Errorf("force %v: only %q are problems", force, problems)
		}
		want := map[string]string{"real": isDir, "there": "-> ../out", "inside": "-> real", "f": "-> ../out/f", "new": "-> ../out"}
		if force {
			want["f"] = "x" // in the place of the link
		}
		wantTree(t, dir, want)
		wantTree(t, filepath.Join(outer, "out"), map[string]string{"secret": "secret"})
	}
}

func TestUnpackReplacesOnlyWithForce(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"old": "mine", "other": "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o711); err != nil {
		t.Fatal(err)
	}
	b := archive(t, file("old", "theirs"), link(tar.TypeLink, "same", "old"), directory("d"), file("d/new", "n"), file("d", "x"), directory("other"))
	problems := unpackTo(t, dir, false, b)
	want := []string{"old: exists", "same: is another name of old, which is not what was exported", "d: exists, and is a directory", "other: exists, and is no directory"}
	if !slices.Equal(problems, want) {
		t.Errorf("problems %q, want %q", problems, want)
	}
	wantTree(t, dir, map[string]string{"old": "mine", "other": "mine", "d": isDir, "d/new": "n"})
	if st, err := os.Stat(filepath.Join(dir, "d")); err != nil || st.Mode().Perm() != 0o711 {
		t.Errorf("a directory that was there: %v, %v", st, err)
	}
	problems = unpackTo(t, dir, true, b)
	if !slices.Equal(problems, want[2:]) {
		t.Errorf("with force: problems %q, want %q", problems, want[2:])
	}
	wantTree(t, dir, map[string]string{"old": "theirs", "same": "theirs", "other": "mine", "d": isDir, "d/new": "n"})
}

// A file whose contents could not be read to the end is not there, nor are its links.
func TestUnpackLeavesOutWhatIsIncomplete(t *testing.T) {
	dir := t.TempDir()
	problems := unpackTo(t, dir, false, archive(t, file("bad", "da\x00\x00"), link(tar.TypeLink, "too", "bad"), file("good", "data")), "bad")
	if want := []string{"too: is another name of bad, which is not what was exported"}; !slices.Equal(problems, want) {
		t.Errorf("problems %q, want %q", problems, want)
	}
	wantTree(t, dir, map[string]string{"good": "data"})
}

// An archive that is cut off is an error, and what is not whole is not there.
func TestUnpackOfHalfAnArchiveFails(t *testing.T) {
	b := archive(t, file("one", "1"), file("two", strings.Repeat("2", 2000)))
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	u := newUnpacker(fd, false, func(p control.FscryptProblem) error { t.Errorf("%+v", p); return nil })
	defer u.close()
	if err := u.unpack(bytes.NewReader(b[:3000])); err == nil {
		t.Error("half an archive is taken for a whole one")
	}
	wantTree(t, dir, map[string]string{"one": "1"})
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755})
	w.WriteHeader(&tar.Header{Name: "d/s", Typeflag: tar.TypeSymlink, Linkname: "../../x"})
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		u := newUnpacker(fd, false, func(control.FscryptProblem) error { return nil })
		u.unpack(bytes.NewReader(b))
		u.close()
		all, err := os.ReadDir(outer)
		if err != nil || len(all) != 1 {
			t.Errorf("beside the directory: %v, %v", all, err)
		}
	})
}
