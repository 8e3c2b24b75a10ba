package ext4_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"keyway/internal/ext4"
	"keyway/test/fixtures/fsimages"
)

// kernelImage returns a small file system of the kernel's, and the inode of an
// encrypted directory with an index and of files in it.
func kernelImage(f testing.TB) (e *editor, dir, file, link uint32) {
	f.Helper()
	for _, fs := range fsimages.All(f, "ext4") {
		if fs.Name != "ext4-1k" {
			continue
		}
		e = editBytes(f, fs.Disk(f, "a"))
		for _, w := range fs.Files {
			if w.Size == 50000 {
				file = w.Inode
			}
		}
		return e, fs.Directories[0].Inode, file, fs.Symlinks[1].Inode
	}
	f.Fatal("no image")
	return nil, 0, 0, 0
}

// see reads what a changed image has at some inodes, within bounds.
func see(t *testing.T, e *editor, inodes ...uint32) {
	t.Helper()
	check := func(err error) bool {
		if err != nil && !isExplained(err) && !errors.Is(err, io.EOF) && !errors.Is(err, ext4.ErrNotExist) && !errors.Is(err, ext4.ErrEncrypted) {
			t.Fatal(err)
		}
		return err == nil
	}
	size := int64(len(e.img))
	f, err := ext4.Open(&meter{e, 16 * size}, size, ext4.Options{IgnoreJournal: true})
	if !check(err) {
		return
	}
	f.Info()
	for _, n := range inodes {
		i, err := f.Inode(n)
		if !check(err) {
			continue
		}
		_, err = i.Attrs()
		check(err)
		_, err = i.EncryptionContext()
		check(err)
		_, err = i.Attr(ext4.AttrSystem, "data")
		check(err)
		switch i.Type() {
		case ext4.Directory:
			k := 0
			for entry, err := range i.Entries() {
				if !check(err) {
					break
				}
				if k++; k > len(e.img)/12 || len(entry.Name) > 255 || entry.Inode == 0 {
					t.Fatalf("entry %d: %+v", k, entry)
				}
			}
		case ext4.Symlink:
			b, err := i.Target()
			if check(err) && int64(len(b)) != i.Size {
				t.Fatalf("target of %d bytes, want %d", len(b), i.Size)
			}
		case ext4.Regular:
			if i.Inline() {
				_, err := i.ReadRaw(make([]byte, 5000), 3)
				check(err)
				continue
			}
			const first, count = 3, 1 << 33
			next := uint64(first)
			for r, err := range i.Map(first, count) {
				if !check(err) {
					next = first + count
					break
				}
				if r.Logical != next || r.Blocks == 0 || r.Kind != ext4.Hole && (r.Physical < 2 || r.Physical+r.Blocks > uint64(size/block)) {
					t.Fatalf("%+v after block %d", r, next)
				}
				next += r.Blocks
			}
			if next != first+count {
				t.Fatalf("the map ends with block %d", next)
			}
			_, err := i.ReadRaw(make([]byte, 5000), 1000)
			check(err)
		}
	}
}

// FuzzSuper reads any superblock and group descriptors.
func FuzzSuper(f *testing.F) {
	e, dir, file, link := kernelImage(f)
	f.Add(bytes.Clone(e.img[super:][:1024]), bytes.Clone(e.img[e.desc(0):][:128]), true)
	f.Add(bytes.Clone(e.img[super:][:1024]), bytes.Clone(e.img[e.desc(0):][:128]), false)
	f.Fuzz(func(t *testing.T, sb, desc []byte, sealed bool) {
		defer e.revert()
		e.put(super, sb[:min(len(sb), 1024)]...)
		e.put(2*block, desc[:min(len(desc), 256)]...)
		// The checksums are there or not as the fuzzer wants it.
		if e.sums = e.get32(super+0x64)&0x400 != 0; sealed {
			e.sealSuper()
			for g := range 2 {
				e.sealDesc(g)
			}
		}
		see(t, e, ext4.Root, dir, file, link)
	})
}

// FuzzInode reads any inode, and with it any attributes and extents that are in it.
func FuzzInode(f *testing.F) {
	e, dir, file, link := kernelImage(f)
	for _, n := range []uint32{ext4.Root, dir, file, link} {
		f.Add(bytes.Clone(e.img[e.inode(n):][:256]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		defer e.revert()
		e.put(e.inode(file), b[:min(len(b), 256)]...)
		e.sealInode(file)
		see(t, e, file)
	})
}

// FuzzExtents reads any extents: the root, and a block that it may name.
func FuzzExtents(f *testing.F) {
	e, _, file, _ := kernelImage(f)
	free := e.at(file, 0)
	root := append([]byte{0x0a, 0xf3, 1, 0, 4, 0, 1, 0, 0, 0, 0, 0}, 0, 0, 0, 0, byte(free/block), byte(free/block>>8), 0, 0, 0, 0, 0, 0)
	f.Add(root, []byte{0x0a, 0xf3, 1, 0, 84, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, byte(free / block), byte(free / block >> 8), 0, 0})
	f.Add(bytes.Clone(e.img[e.inode(file)+0x28:][:60]), []byte{})
	f.Fuzz(func(t *testing.T, root, node []byte) {
		defer e.revert()
		e.put(e.inode(file)+0x28, root[:min(len(root), 60)]...)
		e.sealInode(file)
		e.put(free, node[:min(len(node), block)]...)
		e.sealNode(file, free)
		see(t, e, file)
	})
}

// FuzzPointers reads any block map, and a block that it may name.
func FuzzPointers(f *testing.F) {
	e, _, file, _ := kernelImage(f)
	free := e.at(file, 0)
	f.Add([]byte{0, 0, 0, 0, byte(free / block), byte(free / block >> 8)}, []byte{byte(free / block), byte(free / block >> 8)})
	f.Fuzz(func(t *testing.T, root, node []byte) {
		defer e.revert()
		at := e.inode(file)
		e.put32(at+0x20, e.get32(at+0x20)&^0x80000)
		e.put(at+0x28, make([]byte, 60)...)
		// The last pointers are those of trees.
		e.put(at+0x28+60-min(len(root), 60), root[:min(len(root), 60)]...)
		e.sealInode(file)
		e.put(free, node[:min(len(node), block)]...)
		see(t, e, file)
	})
}

// FuzzDirectory reads any block of a directory of one, with or without an index,
// encrypted or not, casefolded or not.
func FuzzDirectory(f *testing.F) {
	e, dir, _, _ := kernelImage(f)
	first := e.at(dir, 0)
	f.Add(bytes.Clone(e.img[first:][:block]), uint32(0x1800), true)
	f.Add(bytes.Clone(e.img[e.at(dir, 1):][:block]), uint32(0x800), false)
	f.Add(bytes.Clone(e.img[e.at(ext4.Root, 0):][:block]), uint32(0x800), false)
	f.Add(bytes.Clone(e.img[e.at(ext4.Root, 0):][:block]), uint32(0x40000800), false)
	f.Fuzz(func(t *testing.T, b []byte, flags uint32, index bool) {
		defer e.revert()
		const may = 0x800 | 0x1000 | 0x40000000
		at := e.inode(dir)
		e.put32(super+0x60, e.get32(super+0x60)|0x20000)
		e.sealSuper()
		e.put32(at+0x20, e.get32(at+0x20)&^may|flags&may)
		e.sealInode(dir)
		e.put(first, b[:min(len(b), block)]...)
		if e.put16(first+block-8, 12); !index {
			e.put(first+block-6, 0, 0xde)
			e.sealLeaf(dir, first)
		} else {
			e.sealIndex(dir, first, 32)
		}
		see(t, e, dir)
	})
}

// FuzzAttributes reads any attributes, in a block and in an inode.
func FuzzAttributes(f *testing.F) {
	e, _, file, _ := kernelImage(f)
	free := e.at(file, 0)
	at := e.inode(file)
	body := at + 128 + e.get16(at+0x80)
	entries := []byte{1, 1, 0xf0, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 0, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'b', 'c', 0, 0}
	f.Add(entries, bytes.Clone(e.img[body:at+256]))
	f.Fuzz(func(t *testing.T, list, inside []byte) {
		defer e.revert()
		e.put(body, inside[:min(len(inside), at+256-body)]...)
		e.put32(at+0x68, uint32(free/block))
		e.sealInode(file)
		e.put(free, make([]byte, block)...)
		e.put(free, 0, 0, 2, 0xea, 1, 0, 0, 0, 1, 0, 0, 0)
		e.put(free+32, list[:min(len(list), block-32)]...)
		e.sealAttrs(free)
		see(t, e, file)
	})
}
