package ext4_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"testing"

	"keyway/internal/ext4"
)

// An editor changes bytes of an image, makes checksums good again, and takes all back.
// It knows layouts of one group of descriptors behind the superblock, 1 KiB blocks.
type editor struct {
	t    testing.TB
	img  []byte
	fs   *ext4.FS // of the image as it was made
	sums bool
	undo []change
}

type change struct {
	off int
	old []byte
}

const (
	super = 1024
	block = 1024
)

func edit(t testing.TB, file string) *editor {
	t.Helper()
	img, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return editBytes(t, img)
}

func editBytes(t testing.TB, img []byte) *editor {
	t.Helper()
	e := &editor{t: t, img: img}
	f, err := ext4.Open(e, int64(len(img)), ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.fs, e.sums = f, f.Info().Checksums
	return e
}

func (e *editor) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(e.img).ReadAt(p, off)
}

// revert takes all changes back.
func (e *editor) revert() {
	for k := len(e.undo) - 1; k >= 0; k-- {
		copy(e.img[e.undo[k].off:], e.undo[k].old)
	}
	e.undo = nil
}

func (e *editor) put(off int, b ...byte) {
	e.undo = append(e.undo, change{off, bytes.Clone(e.img[off:][:len(b)])})
	copy(e.img[off:], b)
}

func (e *editor) put16(off int, v uint16) { e.put(off, byte(v), byte(v>>8)) }
func (e *editor) put32(off int, v uint32) { e.put(off, binary.LittleEndian.AppendUint32(nil, v)...) }
func (e *editor) get16(off int) int       { return int(binary.LittleEndian.Uint16(e.img[off:])) }
func (e *editor) get32(off int) uint32    { return binary.LittleEndian.Uint32(e.img[off:]) }
func (e *editor) or32(off int, v uint32)  { e.put32(off, e.get32(off)|v) }
func (e *editor) flip(off int)            { e.put(off, e.img[off]^1) }

// sum is the CRC-32C of the parts, each of which is bytes or a number.
func (e *editor) sum(c uint32, parts ...any) uint32 {
	for _, p := range parts {
		var b []byte
		switch p := p.(type) {
		case []byte:
			b = p
		case uint32:
			b = binary.LittleEndian.AppendUint32(nil, p)
		}
		c = ^crc32.Update(^c, crc32.MakeTable(crc32.Castagnoli), b)
	}
	return c
}

func (e *editor) seed() uint32 { return e.sum(^uint32(0), e.img[super+0x68:][:16]) }

func (e *editor) inodeSeed(n uint32) uint32 {
	return e.sum(e.seed(), n, e.get32(e.inode(n)+0x64))
}

func (e *editor) descSize() int {
	if e.get32(super+0x60)&0x80 != 0 {
		return 64
	}
	return 32
}

// desc and inode are the bytes at which they begin.
func (e *editor) desc(group int) int { return 2*block + group*e.descSize() }

func (e *editor) inode(n uint32) int {
	per, size := e.get32(super+0x28), e.get16(super+0x58)
	return int(e.get32(e.desc(int((n-1)/per))+8))*block + int((n-1)%per)*size
}

// file is the number of an inode by name, and at the byte where its block map begins.
func (e *editor) file(names ...string) (n uint32, at int) {
	e.t.Helper()
	var raw [][]byte
	for _, s := range names {
		raw = append(raw, []byte(s))
	}
	i, err := e.fs.Lookup(raw...)
	if err != nil {
		e.t.Fatal(err)
	}
	return i.Number, e.inode(i.Number) + 0x28
}

// at is the byte where a block of a file lies.
func (e *editor) at(n uint32, logical uint64) int {
	e.t.Helper()
	i, err := e.fs.Inode(n)
	if err != nil {
		e.t.Fatal(err)
	}
	for r, err := range i.Map(logical, 1) {
		if err != nil || r.Kind != ext4.Data {
			e.t.Fatal(r, err)
		}
		return int(r.Physical) * block
	}
	panic("no block")
}

func (e *editor) sealSuper() {
	if e.sums {
		e.put32(super+0x3fc, e.sum(^uint32(0), e.img[super:][:0x3fc]))
	}
}

func (e *editor) sealDesc(group int) {
	if at := e.desc(group); e.sums {
		e.put16(at+0x1e, 0)
		e.put16(at+0x1e, uint16(e.sum(e.seed(), uint32(group), e.img[at:][:e.descSize()])))
	}
}

func (e *editor) sealInode(n uint32) {
	if at := e.inode(n); e.sums {
		size := e.get16(super + 0x58)
		whole := size > 128 && e.get16(at+0x80) >= 4
		e.put16(at+0x7c, 0)
		if whole {
			e.put16(at+0x82, 0)
		}
		c := e.sum(e.inodeSeed(n), e.img[at:][:size])
		e.put16(at+0x7c, uint16(c))
		if whole {
			e.put16(at+0x82, uint16(c>>16))
		}
	}
}

// sealNode is for extents, sealLeaf for names, sealIndex for an index whose entries
// begin at some byte, of the inode n; at is where the block begins.
func (e *editor) sealNode(n uint32, at int) {
	if tail := at + 12*(1+(block-12)/12); e.sums {
		e.put32(tail, e.sum(e.inodeSeed(n), e.img[at:tail]))
	}
}

func (e *editor) sealLeaf(n uint32, at int) {
	if e.sums {
		e.put32(at+block-4, e.sum(e.inodeSeed(n), e.img[at:][:block-12]))
	}
}

func (e *editor) sealIndex(n uint32, at, entries int) {
	if e.sums {
		limit, count := (block-entries-8)/8, e.get16(at+entries+2)
		tail := at + entries + 8*limit
		end := min(at+entries+8*count, at+block)
		e.put32(tail+4, e.sum(e.inodeSeed(n), e.img[at:end], e.img[tail:][:4], uint32(0)))
	}
}

func (e *editor) sealAttrs(at int) {
	if e.sums {
		e.put32(at+16, 0)
		e.put32(at+16, e.sum(e.seed(), uint32(at/block), uint32(0), e.img[at:][:block]))
	}
}

// A meter counts what is read, and ends what does not end.
type meter struct {
	io.ReaderAt
	left int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	if m.left -= int64(len(p)) + 64; m.left < 0 {
		return 0, errTooMuch
	}
	return m.ReaderAt.ReadAt(p, off)
}
