package ext4_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/internal/ext4"
	"keyway/internal/fstype"
	"keyway/test/fixtures"
)

// TestMayWrite: whatever forbids writing in place is seen by an inode that was read
// before, since it is what the medium says now that counts.
func TestMayWrite(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), fixtures.Pattern("mix", 1, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	e := edit(t, makeFS(t, dir, "-t ext4 -b 1024 -I 256 -O metadata_csum,64bit,verity,mmp", 1))
	n, _ := e.file("f")
	top, err := e.fs.Inode(ext4.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := top.MayWrite(); !errors.Is(err, fstype.ErrNoWrite) || !strings.Contains(err.Error(), "a directory has no contents") {
		t.Errorf("a directory: %v", err)
	}
	ino := e.inode(n)
	mmp := int(e.get32(super+0x168)) * block
	inode := func(off int, v uint32) func(*editor) {
		return func(e *editor) { e.put32(ino+off, e.get32(ino+off)^v); e.sealInode(n) }
	}
	for _, x := range []struct {
		name   string
		change func(*editor)
		reread bool // the inode, which has the change then
		err    error
		want   string
	}{
		{name: "nothing", change: func(*editor) {}},
		{"journal", sbOr(0x60, 4), false, ext4.ErrJournal, "mount and unmount it, or run e2fsck"},
		{"mounted without a journal", sb16(0x3a, 0), false, fstype.ErrNoWrite, "it is mounted, or was not unmounted"},
		{"errors", sb16(0x3a, 3), false, fstype.ErrNoWrite, "run e2fsck first"},
		{"orphans are taken", sb16(0x3a, 5), false, fstype.ErrNoWrite, "deleted while open"},
		{"orphans", sb32(0xe8, 12), false, fstype.ErrNoWrite, "deleted while open"},
		{"read-only", sbOr(0x64, 0x1000), false, fstype.ErrNoWrite, "feature read-only"},
		{"shared blocks", sbOr(0x64, 0x4000), false, fstype.ErrNoWrite, "feature shared_blocks"},
		{"unknown", sbOr(0x64, 1<<30), false, fstype.ErrNoWrite, "feature FEATURE_R30"},
		{"another file system", sb32(0x28, 8), false, fstype.ErrDamaged, "inodes, not 8"},
		{"superblock", func(e *editor) { e.flip(super + 0x78) }, false, fstype.ErrDamaged, "checksum"},
		{"in use elsewhere", func(e *editor) { e.put32(mmp+4, 17) }, false, fstype.ErrNoWrite, "a host has it mounted"},
		{"checked elsewhere", func(e *editor) { e.put32(mmp+4, 0xe24d4d50) }, false, fstype.ErrNoWrite, "a host has it mounted"},
		{"no mount protection there", func(e *editor) { e.put32(mmp, 0) }, false, fstype.ErrDamaged, "is not one of mount protection"},
		{"mount protection nowhere", sb32(0x168, 1<<30), false, fstype.ErrDamaged, "of mount protection"},
		{"other contents", inode(0x64, 1), false, fstype.ErrNoWrite, "changed after it was opened"},
		{"other blocks", inode(0x28+12+8, 1), false, fstype.ErrNoWrite, "changed after it was opened"},
		{"other size", inode(4, 1), false, fstype.ErrNoWrite, "changed after it was opened"},
		{"gone", func(e *editor) { e.put16(ino+0x1a, 0); e.sealInode(n) }, false, fstype.ErrNoWrite, "not what it was"},
		{"damaged", func(e *editor) { e.flip(ino + 0x64) }, false, fstype.ErrNoWrite, "checksum"},
		{"immutable", inode(0x20, 0x10), true, fstype.ErrNoWrite, "immutable"},
		{"append-only", inode(0x20, 0x20), true, fstype.ErrNoWrite, "append-only"},
		{"compressed", inode(0x20, 0x4), true, fstype.ErrNoWrite, "compressed"},
		{"journalled", inode(0x20, 0x4000), true, fstype.ErrNoWrite, "journal"},
		{"verity", inode(0x20, 0x100000), true, fstype.ErrNoWrite, "fs-verity"},
	} {
		i, err := e.fs.Inode(n)
		if err != nil {
			t.Fatal(err)
		}
		x.change(e)
		if x.reread {
			if err := i.MayWrite(); !errors.Is(err, fstype.ErrNoWrite) || !strings.Contains(err.Error(), "changed after") {
				t.Errorf("%s, set after it was opened: %v", x.name, err)
			}
			if i, err = e.fs.Inode(n); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		if err := i.MayWrite(); !errors.Is(err, x.err) || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v; want %q", x.name, err, x.want)
		}
		e.revert()
	}
}

// TestMayWriteInline refuses data in the inode.
func TestMayWriteInline(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("short"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := edit(t, makeFS(t, dir, "-t ext4 -b 1024 -I 256 -O inline_data", 1))
	n, _ := e.file("f")
	i, err := e.fs.Inode(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.MayWrite(); !i.Inline() || !errors.Is(err, fstype.ErrNoWrite) || !strings.Contains(err.Error(), "its data is in the inode") {
		t.Error(err)
	}
}
