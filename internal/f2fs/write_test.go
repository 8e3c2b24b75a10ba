package f2fs_test

import (
	"errors"
	"strings"
	"testing"

	"keyway/internal/f2fs"
	"keyway/internal/fstype"
)

// TestMayWrite: whatever forbids writing in place is seen by an inode that was read
// before.
func TestMayWrite(t *testing.T) {
	e := edit(t)
	ino := e.child(fstype.Regular, 50000)
	nid := e.get32(ino + 4072)
	pack := e.pack()
	flag := func(v uint32) func() {
		return func() {
			e.put32(pack+132, e.get32(pack+132)^v)
			e.seal(pack)
			last := pack + 4096*int(e.get32(pack+136)-1)
			e.put32(last+132, e.get32(last+132)^v)
			e.seal(last)
		}
	}
	feature := func(v uint32) func() {
		return func() { e.put32(1024+0x884, e.get32(1024+0x884)|v) }
	}
	inode := func(off int, v uint32) func() { return func() { e.put32(ino+off, e.get32(ino+off)^v) } }
	for _, x := range []struct {
		name   string
		change func()
		reread bool // the file system, which has the change then
		err    error
		want   string
	}{
		{name: "nothing", change: func() {}},
		{"mounted", flag(1), false, f2fs.ErrUnclean, "mount and unmount it, first"},
		{"orphans", flag(2), false, fstype.ErrNoWrite, "deleted while open"},
		{"errors", flag(8), false, fstype.ErrNoWrite, "run fsck.f2fs first"},
		{"to be checked", flag(16), false, fstype.ErrNoWrite, "run fsck.f2fs first"},
		{"checkpoints disabled", flag(0x1000), false, fstype.ErrNoWrite, "checkpoints are disabled"},
		{"read-only", feature(0x4000), false, fstype.ErrNoWrite, "read-only"},
		{"zoned", feature(2), false, fstype.ErrNoWrite, "zones"},
		{"another file system", func() { e.put(1024+0x6c, 1, 2, 3) }, false, fstype.ErrNoWrite, "not the one that was opened"},
		{"no file system", func() { e.put32(1024, 0) }, false, f2fs.ErrNotF2FS, "no f2fs"},
		{"no checkpoint", func() { e.put32(512*4096, 1); e.put32(1024*4096, 1) }, false, fstype.ErrDamaged, "checkpoint"},
		{"other times", inode(56, 1), false, fstype.ErrNoWrite, "changed after it was opened"},
		{"other addresses", inode(360+40, 1), false, fstype.ErrNoWrite, "changed after it was opened"},
		{"gone", func() { e.put32(ino+12, 0) }, false, fstype.ErrNoWrite, "not what it was"},
		{"immutable", inode(80, 0x10), true, fstype.ErrNoWrite, "immutable"},
		{"append-only", inode(80, 0x20), true, fstype.ErrNoWrite, "append-only"},
		{"compressed", inode(80, 0x4), true, fstype.ErrNoWrite, "compressed"},
		{"verity", func() { feature(0x400)(); e.put(ino+2, e.img[ino+2]|0x40) }, true, fstype.ErrNoWrite, "fs-verity"},
	} {
		i, err := open(t, e.img).Inode(nid)
		if err != nil {
			t.Fatal(err)
		}
		x.change()
		if x.reread {
			if err := i.MayWrite(); !errors.Is(err, fstype.ErrNoWrite) || !strings.Contains(err.Error(), "changed after") {
				t.Errorf("%s, set after it was opened: %v", x.name, err)
			}
			if i, err = open(t, e.img).Inode(nid); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		if err := i.MayWrite(); !errors.Is(err, x.err) || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v; want %q", x.name, err, x.want)
		}
		e.revert()
	}
	// A checkpoint that was made meanwhile may have moved anything.
	i, err := open(t, e.img).Inode(nid)
	if err != nil {
		t.Fatal(err)
	}
	journal := pack + 4096*int(e.get32(pack+140))
	n := int(e.get32(journal) & 0xffff)
	e.put16(journal, uint16(n+1))
	e.put32(journal+2+13*n, 9999)
	if err := i.MayWrite(); !errors.Is(err, fstype.ErrNoWrite) || !strings.Contains(err.Error(), "was changed after") {
		t.Errorf("after another checkpoint: %v", err)
	}
}
