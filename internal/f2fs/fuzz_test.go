package f2fs_test

import (
	"bytes"
	"testing"

	"keyway/internal/f2fs"
)

func fuzz(t *testing.T, e *editor) {
	t.Helper()
	for _, err := range readAll(e) {
		if !explained(err) {
			t.Fatal(err)
		}
	}
}

// FuzzSuper reads any superblock, and any checkpoint with a good checksum.
func FuzzSuper(f *testing.F) {
	e := edit(f)
	at := e.pack()
	f.Add(bytes.Clone(e.img[1024:4096]), bytes.Clone(e.img[at:][:300]))
	f.Fuzz(func(t *testing.T, super, checkpoint []byte) {
		defer e.revert()
		e.put(1024, super[:min(len(super), 3072)]...)
		e.put(at, checkpoint[:min(len(checkpoint), 4092)]...)
		e.seal(at)
		fuzz(t, e)
	})
}

// FuzzInode reads any inode: fields, addresses, numbers of nodes, inline attributes,
// and names, since that of a directory may be an inode with them.
func FuzzInode(f *testing.F) {
	e := edit(f)
	file, dir, link := e.child(f2fs.Regular, 50000), e.at("xts"), e.child(f2fs.Symlink, 34)
	for _, at := range []int{file, dir, link} {
		f.Add(bytes.Clone(e.img[at:][:4072]), at == dir)
	}
	f.Fuzz(func(t *testing.T, b []byte, directory bool) {
		defer e.revert()
		at := file
		if directory {
			at = dir
		}
		e.put(at, b[:min(len(b), 4072)]...)
		fuzz(t, e)
	})
}

// FuzzNames reads any block of names.
func FuzzNames(f *testing.F) {
	e := edit(f)
	dir := e.at("xts")
	data := e.child(f2fs.Regular, 50000)
	block := e.get32(data + 360 + int(e.img[data+360]))
	one := make([]byte, 30+11+214*8)
	one[0] = 1
	copy(one[30:], []byte{1, 2, 3, 4, 3, 0, 0, 0, 4, 0, 2})
	f.Add(one)
	f.Fuzz(func(t *testing.T, b []byte) {
		defer e.revert()
		e.put(dir+3, e.img[dir+3]&^4)
		e.put32(dir+16, 4096)
		e.put32(dir+360+int(e.img[dir+360]), block)
		e.put(int(block)*4096, make([]byte, 4096)...)
		e.put(int(block)*4096, b[:min(len(b), 4096)]...)
		fuzz(t, e)
	})
}
