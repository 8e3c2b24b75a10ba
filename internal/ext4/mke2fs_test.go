package ext4_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyway/internal/ext4"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// layouts are options of mke2fs; what is in the file system is the same in all.
var layouts = []struct {
	name string
	args string
	many int // names in the large directory
}{
	{"1k", "-t ext4 -b 1024 -O metadata_csum,64bit", 1500},
	{"1k-no-csum", "-t ext4 -b 1024 -O ^metadata_csum,^64bit,^flex_bg -I 128", 500},
	{"2k-uninit-bg", "-t ext4 -b 2048 -O ^metadata_csum,uninit_bg", 1000},
	{"2k-64bit-uninit-bg", "-t ext4 -b 2048 -O ^metadata_csum,uninit_bg,64bit", 100},
	{"4k", "-t ext4 -b 4096 -O metadata_csum,64bit,metadata_csum_seed", 3000},
	{"ext2-1k", "-t ext2 -b 1024", 500},
	{"ext2-rev0", "-t ext2 -b 1024 -r 0", 100},
	{"ext2-4k-csum", "-t ext2 -b 4096 -O metadata_csum,^filetype", 500},
	{"ext3-2k", "-t ext3 -b 2048", 500},
	{"inline-256", "-t ext4 -b 4096 -O inline_data,metadata_csum", 100},
	{"inline-1k", "-t ext4 -b 1024 -I 1024 -O inline_data", 100},
	{"ea-inode", "-t ext4 -b 1024 -O ea_inode,metadata_csum", 100},
	{"meta-bg", "-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode,metadata_csum,64bit", 100},
	{"meta-bg-32", "-t ext2 -b 1024 -g 512 -O meta_bg,^resize_inode,^sparse_super", 100},
	{"small-groups", "-t ext4 -b 1024 -g 256 -O ^flex_bg,^sparse_super,^resize_inode", 100},
	{"sparse-super2", "-t ext4 -b 1024 -O sparse_super2,^resize_inode", 100},
	{"bigalloc-1k", "-t ext4 -b 1024 -C 16384 -O bigalloc,metadata_csum", 100},
	{"bigalloc-4k", "-t ext4 -b 4096 -C 65536 -O bigalloc", 100},
	{"16k", "-t ext4 -b 16384 -I 4096 -O metadata_csum", 1000},
	{"64k", "-t ext4 -b 65536 -O metadata_csum,large_dir", 3000},
	{"casefold", "-t ext4 -b 1024 -E encoding=utf8 -O casefold,encrypt,verity,stable_inodes,project", 100},
}

// A source is a file that a file system is made of.
type source struct {
	typ    ext4.Type
	size   int64
	pieces map[int64][]byte // by offset; a file is zeros else
	target string
	links  int
}

func pattern(seed uint64, n int) []byte { return fixtures.Pattern("mix", seed, n) }

// tree makes files in a directory of the machine and says what they are.
func tree(t *testing.T, dir string) map[string]*source {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	all := map[string]*source{}
	file := func(name string, size int64, pieces map[int64][]byte) {
		f, err := os.Create(filepath.Join(dir, name))
		must(err)
		must(f.Truncate(size))
		for off, b := range pieces {
			_, err := f.WriteAt(b, off)
			must(err)
		}
		must(f.Close())
		all[name] = &source{typ: ext4.Regular, size: size, pieces: pieces, links: 1}
	}
	folder := func(name string) {
		must(os.Mkdir(filepath.Join(dir, name), 0o751))
		all[name] = &source{typ: ext4.Directory}
	}
	link := func(name, target string) {
		must(os.Symlink(target, filepath.Join(dir, name)))
		all[name] = &source{typ: ext4.Symlink, size: int64(len(target)), target: target, links: 1}
	}
	for _, n := range []int{0, 1, 59, 60, 61, 100, 150, 1023, 1024, 1025, 4096, 70000} {
		file(fmt.Sprintf("f%d", n), int64(n), map[int64][]byte{0: pattern(uint64(n), n)})
	}
	// Three levels of pointers with 1 KiB blocks, and more extents than a node holds.
	file("sparse", 8<<30+123, map[int64][]byte{0: pattern(1, 4096), 200 << 10: pattern(2, 5000), 70 << 20: pattern(3, 4096), 8 << 30: pattern(4, 123)})
	pieces := map[int64][]byte{}
	for k := range int64(500) {
		pieces[k*8192] = pattern(uint64(k), 4096)
	}
	file("fragments", 499*8192+4096, pieces)
	file("hole", 1<<20, nil)
	file(strings.Repeat("n", 255), 3, map[int64][]byte{0: []byte("abc")})
	file("attrs", 10, map[int64][]byte{0: pattern(9, 10)})
	file("space", 20, map[int64][]byte{0: pattern(8, 20)})
	for _, n := range []int{1, 58, 59, 60, 61, 500, 1000} {
		link(fmt.Sprintf("link%d", n), strings.Repeat("t", n))
	}
	must(os.Link(filepath.Join(dir, "f100"), filepath.Join(dir, "hard")))
	all["f100"].links = 2
	all["hard"] = all["f100"]
	must(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	all["fifo"] = &source{typ: ext4.FIFO, links: 1}
	folder("empty")
	folder("few")
	file("few/a", 1, map[int64][]byte{0: []byte("a")})
	folder("d1")
	folder("d1/d2")
	folder("d1/d2/d3")
	file("d1/d2/d3/x", 5, map[int64][]byte{0: []byte("12345")})
	return all
}

// makeFS makes a file system of the files in src, with many names in a directory, and
// returns the path of its image.
func makeFS(t *testing.T, src, args string, many int, then ...string) string {
	t.Helper()
	harness.Need(t, "mke2fs", "debugfs", "e2fsck", "dumpe2fs")
	img := filepath.Join(t.TempDir(), "img")
	run(t, "mke2fs", append(strings.Fields("-q -F -m 0 -N 4096 "+args+" -d "+src), img, "48M")...)
	then = append(then, "mkdir many", "cd many")
	for k := range many {
		then = append(then, "mknod "+manyName(k)+" p")
	}
	debugfs(t, img, true, then...)
	// Directories get their index from e2fsck only; it may say 1: changed.
	cmd := exec.Command("e2fsck", "-f", "-y", "-D", img)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() > 1 {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	return img
}

// manyName is a name in the large directory; they have several lengths.
func manyName(k int) string { return fmt.Sprintf("entry-%05d-%s", k, strings.Repeat("n", k%200+20)) }

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func debugfs(t *testing.T, img string, write bool, commands ...string) string {
	t.Helper()
	cmd := exec.Command("debugfs", "-f", "-", img)
	if write {
		cmd.Args = append(cmd.Args, "-w")
	}
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	return string(out)
}

func open(t *testing.T, img string) (*ext4.FS, *os.File) {
	t.Helper()
	r, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	st, err := r.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := ext4.Open(r, st.Size(), ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f, r
}

// TestMadeByMke2fs reads what mke2fs, debugfs and e2fsck made of a tree of files: all
// names and contents, attributes, and of every inode what debugfs says.
func TestMadeByMke2fs(t *testing.T) {
	src := t.TempDir()
	files := tree(t, src)
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			all := maps.Clone(files)
			all["many"] = &source{typ: ext4.Directory}
			for k := range l.many {
				all["many/"+manyName(k)] = &source{typ: ext4.FIFO, links: 1}
			}
			values := map[string][]byte{"user.small": []byte("v"), "user.empty": {}, "trusted.t": pattern(1, 40), "user.middle": pattern(2, 300)}
			if !strings.Contains(l.args, "-b 1024") {
				values["user.large"] = pattern(3, 1200)
			}
			if l.name == "ea-inode" {
				values["user.huge"] = pattern(4, 1024) // as long as debugfs takes
			}
			if l.name == "ext2-rev0" { // older than attributes
				clear(values)
			}
			var then []string
			dir := t.TempDir()
			for name, v := range values {
				file := filepath.Join(dir, name)
				if err := os.WriteFile(file, v, 0o600); err != nil {
					t.Fatal(err)
				}
				then = append(then, fmt.Sprintf("ea_set -f %s attrs %s", file, name))
			}
			extents := strings.Contains(l.args, "ext4")
			if extents {
				then = append(then, "fallocate space 10 20")
			}
			then = append(then, "mknod disk b 8 17", "mknod tty c 300 60000")
			img := makeFS(t, src, l.args, l.many, then...)
			all["disk"], all["tty"] = &source{typ: ext4.BlockDevice, links: 1}, &source{typ: ext4.CharDevice, links: 1}
			f, _ := open(t, img)
			compareTree(t, f, all)
			compareFeatures(t, f, img)
			compareInodes(t, f, img)
			compareAttrs(t, f, values)
			if d, err := f.Lookup([]byte("tty")); err != nil || d.Major != 300 || d.Minor != 60000 {
				t.Errorf("tty: %v, %+v", err, d)
			}
			if d, err := f.Lookup([]byte("disk")); err != nil || d.Major != 8 || d.Minor != 17 {
				t.Errorf("disk: %v, %+v", err, d)
			}
			if extents {
				unwritten(t, f)
			}
		})
	}
}

func compareTree(t *testing.T, f *ext4.FS, all map[string]*source) {
	t.Helper()
	root, err := f.Inode(ext4.Root)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = f.Walk(root, func(p []ext4.Entry, i *ext4.Inode) error {
		var names []string
		for _, e := range p {
			names = append(names, string(e.Name))
		}
		name := strings.Join(names, "/")
		if name == "lost+found" {
			return nil
		}
		n++
		w := all[name]
		if w == nil {
			t.Errorf("%q is there", name)
			return nil
		}
		if i.Type() != w.typ || w.typ != ext4.Directory && (i.Size != w.size || int(i.Links) != w.links) {
			t.Errorf("%q: %v of %d bytes, %d links, want %v, %d, %d", name, i.Type(), i.Size, i.Links, w.typ, w.size, w.links)
		}
		switch w.typ {
		case ext4.Symlink:
			if got, err := i.Target(); err != nil || string(got) != w.target {
				t.Errorf("%q: target %q, %v", name, got, err)
			}
		case ext4.Regular:
			if err := compareContents(i, w); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != len(all) {
		t.Errorf("%d files, want %d", n, len(all))
	}
	if _, err := f.Lookup([]byte("d1"), []byte("d2"), []byte("d3"), []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := f.Lookup([]byte("d1"), []byte("d2"), []byte("y")); !errors.Is(err, ext4.ErrNotExist) {
		t.Errorf("a name that is not there: %v", err)
	}
}

// compareContents reads every piece, with what is around it, and the end.
func compareContents(i *ext4.Inode, w *source) error {
	at := func(off int64, n int) []byte { // of the source
		b := make([]byte, n)
		for o, p := range w.pieces {
			if o < off+int64(n) && off < o+int64(len(p)) {
				if o >= off {
					copy(b[o-off:], p)
				} else {
					copy(b, p[off-o:])
				}
			}
		}
		return b
	}
	check := func(off, n int64) error {
		off = max(off, 0)
		n = min(n, w.size-off)
		b := make([]byte, n)
		if got, err := i.ReadAt(b, off); int64(got) != n || err != nil && err != io.EOF {
			return fmt.Errorf("read of %d bytes at %d: %d, %v", n, off, got, err)
		}
		if !bytes.Equal(b, at(off, int(n))) {
			return fmt.Errorf("%d bytes at %d differ", n, off)
		}
		return nil
	}
	for off, p := range w.pieces {
		if err := check(off-1000, int64(len(p))+3000); err != nil {
			return err
		}
	}
	if err := check(w.size-3000, 3000); err != nil {
		return err
	}
	if n, err := i.ReadAt(make([]byte, 1), w.size); n != 0 || err != io.EOF {
		return fmt.Errorf("behind the end: %d, %v", n, err)
	}
	return nil
}

var featureLine = regexp.MustCompile(`(?m)^Filesystem features: *(.*)$`)

func compareFeatures(t *testing.T, f *ext4.FS, img string) {
	t.Helper()
	out := run(t, "dumpe2fs", "-h", img)
	line := featureLine.FindStringSubmatch(out)
	want := strings.Join(strings.Fields(line[1]), " ")
	if got := strings.Join(f.Info().Features, " "); got != strings.TrimSuffix(want, "(none)") {
		t.Errorf("features %s, dumpe2fs says %s", got, want)
	}
	info := f.Info()
	for name, got := range map[string]uint64{
		"Block count": info.Blocks, "Inode count": uint64(info.Inodes), "Block size": uint64(info.BlockSize), "Inode size": uint64(info.InodeSize),
	} {
		if w := regexp.MustCompile(`(?m)^` + name + `: *(\d+)`).FindStringSubmatch(out); w != nil && w[1] != strconv.FormatUint(got, 10) {
			t.Errorf("%s: %d, dumpe2fs says %s", name, got, w[1])
		}
	}
	if u := info.UUID; !strings.Contains(out, fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])) {
		t.Errorf("UUID %x is not what dumpe2fs says", u)
	}
}

var statLines = regexp.MustCompile(`(?s)Inode: (\d+) +Type: [a-zA-Z ]+Mode: +(\d+) +Flags: 0x([0-9a-f]+)\nGeneration: (\d+).*?User: +(\d+) +Group: +(\d+).*?Size: (\d+)\n.*?Links: (\d+) +Blockcount: (\d+).*?\n ?ctime: 0x([0-9a-f]+)(?::([0-9a-f]+))?`)

// compareInodes compares every inode with the stat of debugfs.
func compareInodes(t *testing.T, f *ext4.FS, img string) {
	t.Helper()
	root, err := f.Inode(ext4.Root)
	if err != nil {
		t.Fatal(err)
	}
	inodes := []*ext4.Inode{root}
	commands := []string{"stat <2>"}
	if err := f.Walk(root, func(_ []ext4.Entry, i *ext4.Inode) error {
		if i.Type() != ext4.FIFO || len(inodes) < 80 { // not all of the large directory
			inodes = append(inodes, i)
			commands = append(commands, fmt.Sprintf("stat <%d>", i.Number))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	found := statLines.FindAllStringSubmatch(debugfs(t, img, false, commands...), -1)
	if len(found) != len(inodes) {
		t.Fatalf("debugfs tells of %d inodes, want %d", len(found), len(inodes))
	}
	for k, m := range found {
		i := inodes[k]
		sec, _ := strconv.ParseUint(m[10], 16, 32)
		extra, _ := strconv.ParseUint("0"+m[11], 16, 32)
		ctime := time.Unix(int64(int32(sec))+int64(extra&3)<<32, int64(extra>>2)).UTC()
		got := fmt.Sprint(i.Number, fmt.Sprintf(" %04o %x ", i.Mode&0xfff, i.Flags), i.Generation, i.UID, i.GID, i.Size, i.Links, i.Sectors, i.Changed)
		want := fmt.Sprint(m[1], fmt.Sprintf(" %s %s ", m[2], m[3]), m[4], " ", m[5], " ", m[6], " ", m[7], " ", m[8], " ", m[9], " ", ctime)
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("inode %s, debugfs says %s", got, want)
		}
	}
}

func compareAttrs(t *testing.T, f *ext4.FS, want map[string][]byte) {
	t.Helper()
	i, err := f.Lookup([]byte("attrs"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := i.Attrs()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, a := range all {
		if a.FullName() == "system.data" { // of inline data
			continue
		}
		n++
		v, err := i.Attr(a.Prefix, a.Name)
		if w, ok := want[a.FullName()]; err != nil || !ok || !bytes.Equal(v, w) || a.Size != len(w) {
			t.Errorf("%s: %d bytes, %v, want %d", a.FullName(), len(v), err, len(w))
		}
	}
	if n != len(want) {
		t.Errorf("%d attributes, want %d", n, len(want))
	}
	if _, err := i.Attr(ext4.AttrUser, "other"); !errors.Is(err, ext4.ErrNotExist) {
		t.Errorf("an attribute that is not there: %v", err)
	}
	if _, err := i.EncryptionContext(); !errors.Is(err, ext4.ErrNotExist) {
		t.Errorf("the context of a file that is not encrypted: %v", err)
	}
}

// unwritten: blocks that were allocated and not written are told apart from holes.
func unwritten(t *testing.T, f *ext4.FS) {
	t.Helper()
	i, err := f.Lookup([]byte("space"))
	if err != nil {
		t.Fatal(err)
	}
	if i.Inline() {
		return
	}
	kinds := map[ext4.Kind]uint64{}
	for r, err := range i.Map(0, 30) {
		if err != nil {
			t.Fatal(err)
		}
		kinds[r.Kind] += r.Blocks
	}
	if kinds[ext4.Unwritten] != 11 || kinds[ext4.Data] != 1 || kinds[ext4.Hole] != 18 {
		t.Errorf("blocks by kind: %v, want 11 unwritten, 1 of data", kinds)
	}
}
