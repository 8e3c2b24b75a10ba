package foreign

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

// What mke2fs makes of a directory comes out as that directory: unpacked by GNU tar,
// and by keyway itself, from an image and from a device of the daemon.
func TestFscryptExportIsWhatWasPutIn(t *testing.T) {
	harness.Need(t, "mke2fs", "tar")
	dir := harness.Dir(t)
	in := filepath.Join(dir, "in")
	plant(t, in)
	image := filepath.Join(dir, "files.img")
	harness.ToolOK(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", in, image, "24M")
	want := leaves(t, in)
	if len(want) < 40 {
		t.Fatalf("only %d files were planted", len(want))
	}

	bin := harness.Binary(t)
	archive := filepath.Join(dir, "files.tar")
	harness.ToolOK(t, bin, "fscrypt", "export", image, "-o", archive)
	byTar, byUs := filepath.Join(dir, "tar"), filepath.Join(dir, "us")
	for _, d := range []string{byTar, byUs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	harness.ToolOK(t, "tar", "-xpf", archive, "-C", byTar, "--no-same-owner")
	sameLeaves(t, "GNU tar", leaves(t, byTar), want)
	harness.ToolOK(t, "tar", "--exclude=lost+found", "-df", archive, "-C", in) // tar itself compares
	harness.ToolOK(t, bin, "fscrypt", "export", image, "-C", byUs)
	sameLeaves(t, "keyway", leaves(t, byUs), want)

	d := harness.Start(t)
	d.OK("create", "disk", "--backend", "file:"+image, "--read-only")
	byDaemon := filepath.Join(dir, "daemon.tar")
	d.OK("fscrypt", "export", "disk", "-o", byDaemon)
	a, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(byDaemon)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the daemon's archive has %d bytes and the image's %d, and they differ (%v)", len(b), len(a), err)
	}
	// Links are followed within the file system, an absolute target from its root.
	for _, path := range []string{"/links/relative", "links/absolute", "links/of-links/relative"} {
		if got := d.OK("fscrypt", "cat", "disk", path); got != "data of a file\n" {
			t.Errorf("cat %s: %q", path, got)
		}
	}
	for path, word := range map[string]string{"links/loop": "more than 40 symbolic links", "links/nowhere": "does not exist"} {
		if r := d.Run("fscrypt", "cat", "disk", path); r.Code != 1 || !strings.Contains(r.Stderr, word) {
			t.Errorf("cat %s: status %d, %q, want %q", path, r.Code, r.Stderr, word)
		}
	}
	damagedFile(t, d, want)
}

// damagedFile puts a sector that cannot be read into the middle of a file: it is named,
// everything else comes, and nothing that is incomplete looks whole.
func damagedFile(t *testing.T, d *harness.Daemon, want map[string]planted) {
	t.Helper()
	const name = "a/b/c/large"
	var x struct {
		Off  int64 `json:"device_offset"`
		Hole bool
		Way  struct{ Medium struct{ Offset int64 } }
	}
	if err := json.Unmarshal([]byte(d.OK("explain", "disk", "--file", name, "--offset", "2M", "--json")), &x); err != nil {
		t.Fatal(err)
	}
	if x.Hole || x.Off == 0 || x.Way.Medium.Offset != x.Off {
		t.Fatalf("byte 2M of %s: %+v", name, x)
	}
	at := x.Off / 512
	table := fmt.Sprintf("0 %d linear disk 0\n%d 2 error\n%d %d linear disk %d\n", at, at, at+2, 24<<11-at-2, at+2)
	d.OKInput(table, "create", "worn", "--read-only", "--table", "-")
	for _, path := range []string{name, "a/b/../b/c/large"} {
		r := d.Run("fscrypt", "cat", "worn", path)
		if n := int64(len(r.Stdout)); r.Code != 1 || n > 2<<20 || !strings.Contains(r.Stderr, name+": ext4: inode") || !strings.Contains(r.Stderr, "input/output error") {
			t.Errorf("cat: status %d, %d bytes, %q", r.Code, n, r.Stderr)
		}
	}
	out := filepath.Join(d.Dir, "rest")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := d.Run("fscrypt", "export", "worn", "-C", out); r.Code != 1 || strings.Count(r.Stderr, "error:") != 1 || !strings.Contains(r.Stderr, name+": from byte ") {
		t.Errorf("export: status %d, %q", r.Code, r.Stderr)
	}
	rest := maps.Clone(want)
	delete(rest, name)
	sameLeaves(t, "keyway, but for what cannot be read,", leaves(t, out), rest)
	archive := filepath.Join(d.Dir, "rest.tar")
	if r := d.Run("fscrypt", "export", "worn", "-o", archive); r.Code != 1 || !strings.Contains(r.Stderr, name+": from byte ") {
		t.Errorf("export to a file: status %d, %q", r.Code, r.Stderr)
	}
	if list := harness.ToolOK(t, "tar", "-tf", archive); strings.Count(list, "\n") != len(want)+1 { // and lost+found
		t.Errorf("%d names in the archive, want %d", strings.Count(list, "\n"), len(want)+1)
	}
}

// plant makes a tree with all kinds of files.
func plant(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"", "a", "a/b", "a/b/c", "empty", "links", "many"} {
		must(os.Mkdir(at(d), 0o755))
	}
	file := func(name string, b []byte, mode fs.FileMode) {
		t.Helper()
		must(os.WriteFile(at(name), b, 0o600))
		must(os.Chmod(at(name), mode))
	}
	file("a/file", []byte("data of a file\n"), 0o644)
	file("a/none", nil, 0o400)
	file("a/b/c/large", fixtures.Pattern("mix", 3, 3<<20+123), 0o640)
	file("a/b/script", []byte("#!/bin/sh\n"), 0o755)
	file("a/"+strings.Repeat("n", 255), []byte("long name"), 0o644)
	file("a/ключ-é-鍵", []byte("utf-8"), 0o644)
	file("a/not\xffutf-8\n", []byte("bytes"), 0o644)
	file("a/sparse", nil, 0o644)
	must(os.Truncate(at("a/sparse"), 2<<20))
	for i := range 30 {
		file(fmt.Sprintf("many/%03d", i), fixtures.Pattern("tag", uint64(i), i*100), 0o644)
	}
	must(os.Link(at("a/file"), at("many/linked")))
	must(unix.Mkfifo(at("a/fifo"), 0o644))
	for name, to := range map[string]string{
		"relative": "../a/file", "absolute": "/a/file", "of-links": ".", "nowhere": "../nowhere", "loop": "loop", "long": strings.Repeat("x/", 200),
	} {
		must(os.Symlink(to, at("links/"+name)))
	}
	// Times last, the deepest first.
	var all []string
	must(filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { all = append(all, p); return err }))
	for i, p := range slices.Backward(all) {
		when := unix.NsecToTimespec(time.Unix(1_600_000_000+int64(i)*1000, 0).UnixNano())
		must(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// A planted is what is compared of a file.
type planted struct {
	mode   uint32
	size   int64
	links  uint64
	when   int64
	target string
	sum    [32]byte
}

func leaves(t *testing.T, dir string) map[string]planted {
	t.Helper()
	all := map[string]planted{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir || e.Name() == "lost+found" {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		l := planted{mode: st.Mode, when: st.Mtim.Sec}
		switch e.Type() {
		case 0:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			l.size, l.links, l.sum = st.Size, uint64(st.Nlink), sha256.Sum256(b)
		case fs.ModeSymlink:
			if l.target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		all[strings.TrimPrefix(p, dir+"/")] = l
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameLeaves(t *testing.T, by string, got, want map[string]planted) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[name]; !ok || g != want[name] {
			t.Errorf("%s: %q: %+v, want %+v", by, name, g, want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d files, want %d", by, len(got), len(want))
	}
}
