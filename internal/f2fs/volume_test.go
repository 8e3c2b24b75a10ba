package f2fs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"keyway/fscrypt/volume"
	"keyway/internal/f2fs"
	"keyway/test/volumetest"
)

// context is the byte of the encryption context in the inode at some byte.
func (e *editor) context(at int) int {
	e.t.Helper()
	i, err := e.fs.Inode(e.get32(at + 4072))
	if err != nil {
		e.t.Fatal(err)
	}
	c, err := i.EncryptionContext()
	if err != nil {
		e.t.Fatal(err)
	}
	k := bytes.Index(e.img[at:][:4096], c)
	if k < 0 {
		e.t.Fatal("the context is not in the inode")
	}
	return at + k
}

// TestDamagedEncryption breaks what fscrypt keeps on the medium: it is refused with its
// place, and nothing that is still read differs from what it was. Contexts are strict by
// size, version, reserved bytes, flags and pairs of modes (dm-fscrypt.md, invariant 69).
func TestDamagedEncryption(t *testing.T) {
	e := edit(t)
	fs, _ := image(t)
	judge := volumetest.NewJudge(t, e.img, volumetest.Masters(fs))
	file, link, dir := e.child(f2fs.Regular, 50000), e.child(f2fs.Symlink, 34), e.at("xts")
	in := func(at, off int, b ...byte) func() { return func() { e.put(e.context(at)+off, b...) } }
	for _, r := range []struct {
		name   string
		change func()
		want   string
		own    string
	}{
		{"version of a context", in(file, 0, 3), "version", ""},
		{"version 1 of this size", in(dir, 0, 1), "bytes", ""},
		{"mode of contents", in(file, 1, 77), "contents_encryption_mode", ""},
		{"mode of names", in(link, 2, 200), "filenames_encryption_mode", ""},
		{"unknown flag", in(file, 3, 0x80), "flags", ""},
		{"data units", in(file, 4, 13), "log2_data_unit_size", ""},
		{"reserved bytes", in(link, 5, 1), "reserved", ""},
		{"another key than the directory's", in(file, 8, 1, 2, 3), "not that of its directory", ""},
		{"another key than the files'", in(dir, 8, 1, 2, 3), "not that of its directory", "/xts"},
		{"another nonce of a directory", in(dir, 24, make([]byte, 16)...), "not a valid name", ""},
		{"another nonce of a link", in(link, 24, make([]byte, 16)...), "not a valid name", ""},
		{"not encrypted", func() { e.put(file+2, e.img[file+2]&^4) }, "not that of its directory", ""},
		{"a link not encrypted", func() { e.put(link+2, e.img[link+2]&^4) }, "not that of its directory", ""},
		{"size that no file has", func() { e.put32(file+20, 1<<30) }, "a size of", ""},
		{"size of a link", func() { e.put32(link+16, 20) }, "", ""},
		{"attributes in a node that is free", func() { e.put32(file+76, 12336) }, "attributes: node 12336", ""},
		{"a node that is free", func() { e.put32(e.child(f2fs.Regular, 5368717312)+4060, 12336) }, "node 12336", ""},
		{"parent", func() { e.put32(dir+84, 999999) }, "", ""},
	} {
		e.t = t
		r.change()
		errs := judge.Damaged(t, r.name, r.own)
		if len(errs) == 0 && r.want != "" || r.want != "" && !strings.Contains(errors.Join(errs...).Error(), r.want) {
			t.Errorf("%s: %v, want %q", r.name, errs, r.want)
		}
		e.revert()
	}
}

// FuzzVolume changes anything of a file system at once: each edit of the program names a
// structure, a place in it and what comes there. All of a directory is walked and read,
// with keys and without, within bounds.
func FuzzVolume(f *testing.F) {
	e := edit(f)
	fs, _ := image(f)
	open, shut := volumetest.NewBench(f, e.img, volumetest.Masters(fs)), volumetest.NewBench(f, e.img, nil)
	open.Only, shut.Only = "xts", "xts"
	pack, file, link, dir := e.pack(), e.child(f2fs.Regular, 50000), e.child(f2fs.Symlink, 34), e.at("xts")
	inodes := []int{e.at(), dir, file, link, e.child(f2fs.Regular, 5368717312)}
	contexts := []int{e.context(dir), e.context(file), e.context(link)}
	f.Add([]byte{2, 16, 0, 0xff, 0xff, 0, 0}, true)
	f.Add([]byte{7, 3, 0, 0x18, 0, 0, 0, 4, 0x90, 1, 17, 1, 0, 0}, true)
	f.Add([]byte{0, 0x60, 0, 3, 0, 0, 0, 1, 132, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, program []byte, keyed bool) {
		defer e.revert()
		for n := 0; len(program) >= 7 && n < 64; n, program = n+1, program[7:] {
			off, v := int(binary.LittleEndian.Uint16(program[1:])), program[3:7]
			switch place := int(program[0]) % 10; {
			case place == 0:
				e.put(1024+off%(3072-3), v...)
			case place == 1:
				e.put(pack+off%(4096-3), v...)
			case place < 7:
				e.put(inodes[place-2]+off%(4096-3), v...)
			default:
				e.put(contexts[place-7]+off%(40-3), v...)
			}
		}
		e.seal(pack)
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
