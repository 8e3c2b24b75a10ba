package f2fs_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyway/internal/f2fs"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// TestMadeBySload reads what mkfs.f2fs and sload.f2fs make of a tree of files: names in
// inodes and in blocks, data in inodes and under trees of nodes.
func TestMadeBySload(t *testing.T) {
	harness.Need(t, "mkfs.f2fs", "sload.f2fs")
	src := t.TempDir()
	type file struct {
		dir     bool
		target  string
		content []byte
	}
	all := map[string]file{}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, n int) {
		b := fixtures.Pattern("mix", uint64(n), n)
		all[name] = file{content: b}
		must(os.WriteFile(filepath.Join(src, name), b, 0o640))
	}
	folder := func(name string) {
		all[name] = file{dir: true}
		must(os.Mkdir(filepath.Join(src, name), 0o755))
	}
	// Up to data in the inode, in its blocks, in those of direct and of indirect nodes.
	for _, n := range []int{0, 1, 3400, 3700, 4096, 4097, 923 * 4096, 3000 * 4096} {
		write(fmt.Sprintf("f%d", n), n)
	}
	write(strings.Repeat("n", 255), 5)
	for _, n := range []int{1, 100, 1000} {
		name, target := fmt.Sprintf("link%d", n), strings.Repeat("t", n)
		all[name] = file{target: target}
		must(os.Symlink(target, filepath.Join(src, name)))
	}
	folder("few")
	write("few/a", 10)
	folder("many")
	for k := range 400 {
		write(fmt.Sprintf("many/entry-%05d-%s", k, strings.Repeat("n", k%100)), 0)
	}
	for _, features := range []string{
		"", "extra_attr", "extra_attr,inode_checksum,sb_checksum",
		"encrypt,extra_attr,inode_checksum,sb_checksum,inode_crtime,lost_found,verity,project_quota",
	} {
		t.Run(features, func(t *testing.T) {
			t.Parallel()
			img := filepath.Join(t.TempDir(), "img")
			must(os.WriteFile(img, nil, 0o600))
			must(os.Truncate(img, 100<<20))
			args := []string{"-q", "-f"}
			if features != "" {
				args = append(args, "-O", features)
			}
			for _, c := range [][]string{append(append([]string{"mkfs.f2fs"}, args...), img), {"sload.f2fs", "-f", src, img}} {
				if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %v\n%s", c, err, out)
				}
			}
			r, err := os.Open(img)
			must(err)
			defer r.Close()
			// sload.f2fs writes a checkpoint like that of a mounted file system.
			f, err := f2fs.Open(r, 100<<20, f2fs.Options{IgnoreUnclean: true})
			must(err)
			n := 0
			var walk func(path string, d *f2fs.Inode)
			walk = func(path string, d *f2fs.Inode) {
				for e, err := range d.Entries() {
					must(err)
					name := path + string(e.Name)
					if string(e.Name) == "." || string(e.Name) == ".." || name == "lost+found" {
						continue
					}
					i, err := f.Open(e)
					must(err)
					w, ok := all[name]
					if n++; !ok {
						t.Errorf("%q is there", name)
						continue
					}
					switch {
					case w.dir:
						walk(name+"/", i)
					case w.target != "":
						if got, err := i.Target(); err != nil || string(got) != w.target {
							t.Errorf("%q: target %q, %v", name, got, err)
						}
					default:
						got := make([]byte, len(w.content)+1)
						n, err := i.ReadAt(got, 0)
						if err != io.EOF || !bytes.Equal(got[:n], w.content) || i.Mode&0o777 != 0o640 {
							t.Errorf("%q: %d bytes, mode %o, %v", name, n, i.Mode, err)
						}
					}
				}
			}
			root, err := f.Inode(f.Root())
			must(err)
			walk("", root)
			if n != len(all) {
				t.Errorf("%d files, want %d", n, len(all))
			}
		})
	}
}
