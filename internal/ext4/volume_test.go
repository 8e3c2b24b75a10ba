package ext4_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/internal/ext4"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

// An encrypted is the kernel's image with blocks of 1 KiB, to be damaged.
type encrypted struct {
	*editor
	image      *fsimages.FileSystem
	dir        fsimages.Directory // v2, with a key for each file
	other      fsimages.Directory
	file, link uint32 // in dir
}

func editEncrypted(t testing.TB) *encrypted {
	t.Helper()
	for _, fs := range fsimages.All(t, "ext4") {
		if fs.Name != "ext4-1k" {
			continue
		}
		e := &encrypted{editor: editBytes(t, fs.Disk(t, "a")), image: fs, dir: fs.Directories[0], other: fs.Directories[1]}
		for _, w := range fs.Files {
			if strings.HasPrefix(w.Path, e.dir.Path+"/") && w.Size == 50000 {
				e.file = w.Inode
			}
		}
		for _, w := range fs.Symlinks {
			if strings.HasPrefix(w.Path, e.dir.Path+"/") && len(w.Target) > 60 {
				e.link = w.Inode
			}
		}
		if e.file == 0 || e.link == 0 {
			t.Fatal("not the files that are wanted")
		}
		return e
	}
	t.Fatal("no image")
	return nil
}

// context is the byte of the encryption context of an inode.
func (e *encrypted) context(n uint32) int {
	e.t.Helper()
	i, err := e.fs.Inode(n)
	if err != nil {
		e.t.Fatal(err)
	}
	c, err := i.EncryptionContext()
	if err != nil {
		e.t.Fatal(err)
	}
	at := bytes.Index(e.img[e.inode(n):][:e.get16(super+0x58)], c)
	if at < 0 {
		e.t.Fatal("the context is not in the inode")
	}
	return e.inode(n) + at
}

// inContext changes bytes of the context of the file, the directory or the link.
func inContext(which string, off int, b ...byte) func(*encrypted) {
	return func(e *encrypted) {
		n := map[string]uint32{"file": e.file, "dir": e.dir.Inode, "link": e.link}[which]
		e.put(e.context(n)+off, b...)
		e.sealInode(n)
	}
}

// inInode changes 32 bits of an inode.
func inInode(which string, off int, v uint32) func(*encrypted) {
	return func(e *encrypted) {
		n := map[string]uint32{"file": e.file, "dir": e.dir.Inode, "link": e.link}[which]
		e.put32(e.inode(n)+off, v)
		e.sealInode(n)
	}
}

// entry is the byte where the entry of an inode in the directory lies, and that of its
// block.
func (e *encrypted) entry(n uint32) (at, leaf int) {
	e.t.Helper()
	i, err := e.fs.Inode(e.dir.Inode)
	if err != nil {
		e.t.Fatal(err)
	}
	for r, err := range i.Map(0, uint64(i.Size)/block) {
		if err != nil {
			e.t.Fatal(err)
		}
		for k := range r.Blocks {
			leaf := int(r.Physical+k) * block
			for at := leaf; at < leaf+block-12; at += max(12, e.get16(at+4)) {
				if e.get32(at) == n {
					return at, leaf
				}
			}
		}
	}
	e.t.Fatal("no entry")
	return 0, 0
}

// inEntry changes bytes of the file's entry.
func inEntry(off int, b ...byte) func(*encrypted) {
	return func(e *encrypted) {
		at, leaf := e.entry(e.file)
		e.put(at+off, b...)
		e.sealLeaf(e.dir.Inode, leaf)
	}
}

// points lets the file's entry name another inode, of the same type.
func points(to func(e *encrypted) uint32) func(*encrypted) {
	return func(e *encrypted) {
		at, leaf := e.entry(e.file)
		e.put32(at, to(e))
		e.sealLeaf(e.dir.Inode, leaf)
	}
}

func fileIn(dir string) func(*encrypted) uint32 {
	return func(e *encrypted) uint32 {
		for _, w := range e.image.Files {
			if strings.HasPrefix(w.Path, dir+"/") && w.Size > 0 {
				return w.Inode
			}
		}
		e.t.Fatal("no such file")
		return 0
	}
}

// encryptedRules are broken in what fscrypt keeps on the medium, with good checksums
// but where it says otherwise.
var encryptedRules = []struct {
	name   string
	change func(e *encrypted)
	want   string
	own    string
}{
	{"version of a context", inContext("file", 0, 3), "version", ""},
	{"version 0", inContext("file", 0, 0), "version", ""},
	{"version 1 of this size", inContext("dir", 0, 1), "bytes", ""},
	{"mode of contents", inContext("file", 1, 77), "contents_encryption_mode", ""},
	{"no mode of contents", inContext("dir", 1, 0), "contents_encryption_mode", ""},
	{"mode of names", inContext("file", 2, 200), "filenames_encryption_mode", ""},
	{"modes that do not pair", inContext("dir", 2, 6), "filenames_encryption_mode", ""},
	{"unknown flag", inContext("file", 3, 0x80), "flags", ""},
	{"two layouts of IVs", inContext("dir", 3, 0x18), "flags", ""},
	{"small data units", inContext("file", 4, 8), "log2_data_unit_size", ""},
	{"large data units", inContext("file", 4, 20), "log2_data_unit_size", ""},
	{"reserved bytes", inContext("link", 5, 1), "reserved", ""},
	{"another padding than the directory's", inContext("file", 3, 1), "not that of its directory", ""},
	{"another key than the directory's", inContext("file", 8, 1, 2, 3), "not that of its directory", ""},
	{"another key than the files'", inContext("dir", 8, 1, 2, 3), "not that of its directory", "dir"},
	{"another key than the directory's, of a link", inContext("link", 8, 1, 2, 3), "not that of its directory", ""},
	{"another nonce of a directory", inContext("dir", 24, make([]byte, 16)...), "not a valid name", ""},
	{"another nonce of a link", inContext("link", 24, make([]byte, 16)...), "not a valid name", ""},
	{"context without its checksum", func(e *encrypted) { e.flip(e.context(e.file) + 24) }, "checksum", ""},
	{"no context", func(e *encrypted) { e.flip(e.name(e.file)); e.sealInode(e.file) }, "no encryption context", ""},
	{"not encrypted", func(e *encrypted) {
		e.put32(e.inode(e.file)+0x20, e.get32(e.inode(e.file)+0x20)&^0x800)
		e.sealInode(e.file)
	}, "not that of its directory", ""},
	{"a link not encrypted", func(e *encrypted) {
		e.put32(e.inode(e.link)+0x20, e.get32(e.inode(e.link)+0x20)&^0x800)
		e.sealInode(e.link)
	}, "not that of its directory", ""},
	{"size that no file has", inInode("file", 0x6c, 0x7fffffff), "", ""},
	{"negative size", inInode("file", 0x6c, 0xffffffff), "", ""},
	{"size of a directory", inInode("dir", 4, 100), "directory of 100 bytes", ""},
	{"size of a link", inInode("link", 4, 20), "", ""},
	{"no target", inInode("link", 4, 0), "symbolic link of 0 bytes", ""},
	{"short name", inEntry(6, 8), "not a valid name", ""},
	{"name of an odd length", inEntry(6, 15), "not a valid name", ""},
	{"name of the wrong length", inEntry(6, 17), "not a valid name", ""},
	{"name longer than its entry", inEntry(6, 250), "a name of 250 bytes", ""},
	{"name without its checksum", func(e *encrypted) { at, _ := e.entry(e.file); e.flip(at + 8) }, "checksum", ""},
	{"an entry of another type", inEntry(7, 2), "and inode", ""},
	{"a file of another policy", points(fileIn("xts-ino64")), "not that of its directory", ""},
	{"an inode that is free", points(func(e *encrypted) uint32 { return e.get32(super) - 1 }), "not in use", ""},
	{"no root", func(e *encrypted) { e.put16(e.inode(ext4.Root)+0x1a, 0); e.sealInode(ext4.Root) }, "the root: ", ""},
	{"an inode that is none", points(func(e *encrypted) uint32 { return 1 << 30 }), "is not one of a file", ""},
	{"the directory itself", func(e *encrypted) {
		at, leaf := e.entry(e.file)
		e.put32(at, e.dir.Inode)
		e.put(at+7, 2)
		e.sealLeaf(e.dir.Inode, leaf)
	}, "two names", "file"},
	{"length of a target", func(e *encrypted) { e.put16(e.at(e.link, 0), 9999) }, "", ""},
	{"target", func(e *encrypted) { e.put(e.at(e.link, 0)+2, bytes.Repeat([]byte{0xa5}, 60)...) }, "", "link"},
	{"features without encryption", func(e *encrypted) { e.put32(super+0x60, e.get32(super+0x60)&^0x10000); e.sealSuper() }, "a feature that the file system does not have", ""},
	{"inodes that are renumbered", func(e *encrypted) { e.put32(super+0x5c, e.get32(super+0x5c)&^0x800); e.sealSuper() }, "stable", ""},
}

// name is the byte of the name of the attribute that holds the context.
func (e *encrypted) name(n uint32) int {
	at := e.inode(n)
	i := bytes.Index(e.img[at+128:at+e.get16(super+0x58)], []byte{1, 9}) // one byte, of the prefix of contexts
	if i < 0 {
		e.t.Fatal("no attribute")
	}
	return at + 128 + i + 16
}

// path is that of the file, the directory or the link.
func (e *encrypted) path(which string) string {
	if which == "dir" {
		return "/" + e.dir.Path
	}
	for _, w := range e.image.Files {
		if which == "file" && w.Inode == e.file {
			return "/" + w.Path
		}
	}
	for _, w := range e.image.Symlinks {
		if which == "link" && w.Inode == e.link {
			return "/" + w.Path
		}
	}
	return ""
}

// TestDamagedEncryption breaks what fscrypt keeps on the medium: it is refused with its
// place, and nothing that is still read differs from what it was. Contexts are strict by
// size, version, reserved bytes, flags and pairs of modes (dm-fscrypt.md, invariant 69).
func TestDamagedEncryption(t *testing.T) {
	e := editEncrypted(t)
	e.t = t
	judge := volumetest.NewJudge(t, e.img, volumetest.Masters(e.image))
	for _, r := range encryptedRules {
		own := e.path(r.own)
		r.change(e)
		errs := judge.Damaged(t, r.name, own)
		if len(errs) == 0 && r.own == "" || !strings.Contains(errors.Join(append(errs, errNone)...).Error(), r.want) {
			t.Errorf("%s: %v, want %q", r.name, errs, r.want)
		}
		e.revert()
	}
	judge.Undamaged(t)
}

var errNone = errors.New("")

// A file in its inode goes on with zeros, as Linux reads it, however large its size says
// that it is: nothing is made of that size.
func TestInlineFileOfAnySize(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "small"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := edit(t, makeFS(t, src, "-t ext4 -b 1024 -I 256 -O inline_data,metadata_csum", 1))
	n, _ := e.file("small")
	e.put32(e.inode(n)+0x6c, 0x100) // 2^40 bytes
	e.sealInode(n)
	w := dmtest.New(t)
	w.Leaf("a", &volumetest.Medium{Bytes: e.img}, nil)
	v, err := volume.Open(t.Context(), w.Handle("a"), volume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.Lookup("small")
	if err != nil {
		t.Fatal(err)
	}
	full, got := errors.New("full"), 0
	sent, err := f.Send(t.Context(), writer(func(b []byte) (int, error) {
		if got += len(b); got > 5<<20 {
			return 0, full
		}
		return len(b), nil
	}))
	if !f.Inline || f.Size != 1<<40+4 || sent != 5<<20 || !errors.Is(err, full) {
		t.Errorf("inline %v, sent %d of %d bytes: %v", f.Inline, sent, f.Size, err)
	}
	b := bytes.Repeat([]byte{1}, 10)
	if n, err := f.ReadAt(t.Context(), b, 1<<40-3); n != 7 || err != io.EOF || !bytes.Equal(b[:7], make([]byte, 7)) {
		t.Errorf("at the end: %d, %v, %x", n, err, b)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// FuzzVolume changes anything of a file system at once: each edit of the program names a
// structure, a place in it and what comes there. All is walked and read, with keys and
// without, within bounds.
func FuzzVolume(f *testing.F) {
	e := editEncrypted(f)
	e.t = f
	keys := volumetest.Masters(e.image)
	open, shut := volumetest.NewBench(f, e.img, keys), volumetest.NewBench(f, e.img, nil)
	open.Only, shut.Only = e.dir.Path, e.dir.Path
	_, leaf := e.entry(e.file)
	inodes := []uint32{ext4.Root, e.dir.Inode, e.other.Inode, e.file, e.link}
	var inode, context []int // where they lie, whatever the superblock will say
	for _, n := range inodes {
		inode = append(inode, e.inode(n))
	}
	for _, n := range []uint32{e.dir.Inode, e.file, e.link} {
		context = append(context, e.context(n))
	}
	target, per, size := e.at(e.link, 0), e.get32(super+0x28), e.get16(super+0x58)
	f.Add([]byte{3, 0x6c, 0, 0xff, 0xff, 0, 0}, true, true)
	f.Add([]byte{8, 3, 0, 0x18, 0, 0, 0, 7, 6, 0, 17, 1, 0, 0}, true, false)
	f.Add([]byte{0, 0x60, 0, 0xc2, 2, 1, 0, 1, 8, 0, 5, 0, 0, 0}, false, true)
	f.Fuzz(func(t *testing.T, program []byte, sealed, keyed bool) {
		defer e.revert()
		e.t = t
		for n := 0; len(program) >= 7 && n < 64; n, program = n+1, program[7:] {
			off, v := int(binary.LittleEndian.Uint16(program[1:])), program[3:7]
			switch place := int(program[0]) % 12; place {
			case 0:
				e.put(super+off%(1024-3), v...)
			case 1:
				e.put(e.desc(0)+off%(128-3), v...)
			case 2, 3, 4, 5, 6:
				e.put(inode[place-2]+off%(256-3), v...)
			case 7:
				e.put(leaf+off%(block-3), v...)
			case 8, 9, 10:
				e.put(context[place-8]+off%(40-3), v...)
			case 11:
				e.put(target+off%(128-3), v...)
			}
		}
		if sealed && per == e.get32(super+0x28) && size == e.get16(super+0x58) {
			for k, n := range inodes {
				if e.inode(n) == inode[k] { // still where it was
					e.sealInode(n)
				}
			}
			if e.inode(e.dir.Inode) == inode[1] {
				e.sealLeaf(e.dir.Inode, leaf)
			}
			e.sealDesc(0)
			e.sealSuper()
		}
		b := shut
		if keyed {
			b = open
		}
		_, errs := b.ReadAll(volume.Options{IgnoreUnclean: true})
		for _, err := range errs {
			if !volumetest.Explained(err) && !errors.Is(err, volumetest.ErrTooMuch) {
				t.Fatal(err)
			}
		}
	})
}
