package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/block"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/test/harness"
	"keyway/test/volumetest"
)

// TestPaths finds files of an ordinary file system by paths, with links and without.
func TestPaths(t *testing.T) {
	harness.Need(t, "mke2fs")
	dir, img := t.TempDir(), filepath.Join(t.TempDir(), "img")
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a/b/file": "contents", "small": "s", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	long := strings.Repeat("./", 40) + "a/b/file" // not in the inode
	for name, target := range map[string]string{
		"abs": "/a/b/file", "rel": "a/b", "a/up": "../a/b/../b/file", "loop": "loop", "none": "nothing", "long": long, "a/top": "/",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	harness.ToolOK(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "inline_data", "-d", dir, img, "8M")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	w := dmtest.New(t)
	w.Leaf("a", &volumetest.Medium{Bytes: b}, nil)
	v := mustOpen(t, w.Handle("a"))
	read := func(f *volume.File) string {
		var s strings.Builder
		if _, err := f.Send(t.Context(), &s); err != nil {
			t.Error(err)
		}
		return s.String()
	}
	file := mustLookup(t, v, "a/b/file").Inode
	for _, p := range []string{"a/b/file", "/a//b/./file", "a/../a/b/file", "../../a/b/file"} {
		if f := mustLookup(t, v, p); f.Inode != file || read(f) != "contents" {
			t.Errorf("%s is inode %d, want %d", p, f.Inode, file)
		}
	}
	for _, p := range []string{"abs", "rel/file", "a/up", "long", "a/top/abs", "a/top/a/top/rel/../b/file"} {
		if f, err := v.Follow(p); err != nil || f.Inode != file {
			t.Errorf("%s: %v, want inode %d", p, err, file)
		}
	}
	for p, want := range map[string]error{
		"nothing": volume.ErrNotExist, "a/b/file/x": volume.ErrType, "a/b/file/..": volume.ErrType, "abs/x": volume.ErrType, "rel/file": volume.ErrType,
	} {
		if _, err := v.Lookup(p); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", p, err, want)
		}
	}
	if _, err := v.Follow("none"); !errors.Is(err, volume.ErrNotExist) {
		t.Error(err)
	}
	if _, err := v.Follow("loop"); err == nil || !strings.Contains(err.Error(), "40 symbolic links") {
		t.Error(err)
	}
	if target, err := mustLookup(t, v, "long").Readlink(); err != nil || target != long {
		t.Errorf("%q, %v", target, err)
	}
	for p, text := range map[string]string{"small": "s", "empty": ""} {
		f := mustLookup(t, v, p)
		if read(f) != text {
			t.Errorf("%s: another text", p)
		}
	}
	if f := mustLookup(t, v, "small"); !f.Inline || f.Encrypted || f.HasKey() {
		t.Errorf("%+v", f.Facts)
	}
	if all := walk(t, v); len(all) != 13 { // with lost+found
		t.Errorf("%d files: %v", len(all), all)
	}
}

// Links with encrypted targets are not followed without the key.
func TestFollowNeedsTheKey(t *testing.T) {
	f := image(t, "ext4-1k")
	v := mustOpen(t, stack(t, dmtest.New(t), f, 0))
	for p, facts := range walk(t, v) {
		if facts.Type != volume.Symlink {
			continue
		}
		if _, err := v.Follow(p); !errors.Is(err, volume.ErrNoKey) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// What is no file system that is known, or on no device that fits, is refused by name.
func TestOpenRefuses(t *testing.T) {
	w := dmtest.New(t)
	w.Leaf("empty", &volumetest.Medium{Bytes: make([]byte, 1<<20)}, nil)
	w.Leaf("small", &volumetest.Medium{Bytes: make([]byte, 512)}, nil)
	for _, name := range []string{"empty", "small"} {
		if _, err := volume.Open(t.Context(), w.Handle(name), volume.Options{}); !errors.Is(err, volume.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ram := dmtest.NewRAM(int64(len(disk(t, image(t, "ext4-1k"), "a"))))
	ram.Set(disk(t, image(t, "ext4-1k"), "a"))
	ram.SetInfo(func(i *block.Info) { i.LogicalBlock = 4096 })
	w.Leaf("4k", ram, nil)
	if _, err := volume.Open(t.Context(), w.Handle("4k"), volume.Options{}); !errors.Is(err, volume.ErrNotSupported) {
		t.Errorf("blocks of 1 KiB on a disk with blocks of 4 KiB: %v", err)
	}
}
