package f2fs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"keyway/internal/f2fs"
	"keyway/test/volumetest"
)

// An editor changes bytes of an image and takes all back.
type editor struct {
	t    testing.TB
	img  []byte
	fs   *f2fs.FS // of the image as it was made
	undo []change
}

type change struct {
	off int
	old []byte
}

func edit(t testing.TB) *editor {
	_, disk := image(t)
	return &editor{t: t, img: disk, fs: open(t, disk)}
}

func (e *editor) put(off int, b ...byte) {
	e.undo = append(e.undo, change{off, bytes.Clone(e.img[off:][:len(b)])})
	copy(e.img[off:], b)
}

func (e *editor) put16(off int, v uint16) { e.put(off, byte(v), byte(v>>8)) }
func (e *editor) put32(off int, v uint32) { e.put(off, binary.LittleEndian.AppendUint32(nil, v)...) }
func (e *editor) get32(off int) uint32    { return binary.LittleEndian.Uint32(e.img[off:]) }

func (e *editor) revert() {
	for k := len(e.undo) - 1; k >= 0; k-- {
		copy(e.img[e.undo[k].off:], e.undo[k].old)
	}
	e.undo = nil
}

// pack is the byte where the checkpoint in use begins.
func (e *editor) pack() int {
	a, b := 512*4096, 1024*4096
	if binary.LittleEndian.Uint64(e.img[b:]) > binary.LittleEndian.Uint64(e.img[a:]) {
		return b
	}
	return a
}

// seal gives a block of a checkpoint its checksum.
func (e *editor) seal(at int) {
	n := int(e.get32(at + 164))
	if n > 4092 || n < 0 {
		return
	}
	c := ^crc32.Update(^uint32(0xf2f52010), crc32.IEEETable, e.img[at:][:n])
	if n < 4092 {
		c = ^crc32.Update(^c, crc32.IEEETable, e.img[at+n+4:at+4096])
	}
	e.put32(at+n, c)
}

// at is the byte where an inode lies.
func (e *editor) at(names ...string) int {
	var raw [][]byte
	for _, n := range names {
		raw = append(raw, []byte(n))
	}
	i, err := e.fs.Lookup(raw...)
	if err != nil {
		e.t.Fatal(err)
	}
	return int(e.fs.BlockOf(i.Number)) * 4096
}

// child is the byte where the inode of the first file in xts of some type and size
// lies.
func (e *editor) child(typ f2fs.Type, size int64) int { return e.childOf("xts", typ, size) }

func (e *editor) childOf(dir string, typ f2fs.Type, size int64) int {
	d, err := e.fs.Lookup([]byte(dir))
	if err != nil {
		e.t.Fatal(err)
	}
	for entry, err := range d.Entries() {
		if err != nil {
			e.t.Fatal(err)
		}
		if i, err := e.fs.Open(entry); err == nil && i.Type() == typ && i.Size == size {
			return int(e.fs.BlockOf(i.Number)) * 4096
		}
	}
	e.t.Fatal("no such file")
	return 0
}

var errTooMuch = errors.New("far more is read than there is")

type meter struct {
	img  []byte
	left int64
}

func (m *meter) ReadAt(p []byte, off int64) (int, error) {
	if m.left -= int64(len(p)) + 64; m.left < 0 {
		return 0, errTooMuch
	}
	return bytes.NewReader(m.img).ReadAt(p, off)
}

// readAll reads everything below xts and the names of the root.
func readAll(e *editor) (errs []error) {
	size := int64(len(e.img))
	f, err := f2fs.Open(&meter{e.img, size}, size, f2fs.Options{})
	if err != nil {
		return []error{err}
	}
	fail := func(err error) {
		if err != nil && err != io.EOF {
			errs = append(errs, err)
		}
	}
	root, err := f.Inode(f.Root())
	if err != nil {
		return []error{err}
	}
	depth := 0
	var walk func(d *f2fs.Inode)
	walk = func(d *f2fs.Inode) {
		if depth++; depth > 100 {
			return
		}
		for entry, err := range d.Entries() {
			if err != nil {
				fail(err)
				return
			}
			if name := string(entry.Name); name == "." || name == ".." || d == root && name != "xts" {
				continue
			}
			i, err := f.Open(entry)
			if err != nil {
				fail(err)
				continue
			}
			_, err = i.Attrs()
			fail(err)
			if i.Encrypted() {
				_, err = i.EncryptionContext()
				fail(err)
			}
			switch i.Type() {
			case f2fs.Directory:
				walk(i)
			case f2fs.Symlink:
				_, err := i.Target()
				fail(err)
			case f2fs.Regular:
				if i.Inline() {
					continue
				}
				next := uint64(0)
				for r, err := range i.Map(0, uint64(i.RawSize())/4096) {
					if fail(err); err != nil {
						break
					}
					if r.Logical != next || r.Blocks == 0 {
						fail(errors.New("a map with gaps"))
					}
					next += r.Blocks
					if r.Kind == f2fs.Data {
						_, err := i.ReadRaw(make([]byte, r.Blocks*4096), int64(r.Logical)*4096)
						fail(err)
					}
				}
			}
		}
	}
	walk(root)
	return errs
}

func explained(err error) bool {
	for _, e := range []error{f2fs.ErrNotF2FS, f2fs.ErrUnsupported, f2fs.ErrDamaged, f2fs.ErrUnclean, f2fs.ErrUnused, f2fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func sb32(off int, v uint32) func(*editor) { return func(e *editor) { e.put32(1024+off, v) } }

// cp is a change of the checkpoint in use, sealed, with the other one damaged.
func cp(change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		at := e.pack()
		e.put32((512+1024)*4096-at+100, 12345)
		change(e, at)
		e.seal(at)
	}
}

func in(change func(e *editor, at int)) func(*editor) {
	return func(e *editor) { change(e, e.child(f2fs.Regular, 50000)) }
}

// TestDamage breaks each rule of the format once; what the error says is the place.
// Nothing that is still read through a volume differs from what it was.
func TestDamage(t *testing.T) {
	e := edit(t)
	if errs := readAll(e); len(errs) > 0 {
		t.Fatal(errs)
	}
	fs, _ := image(t)
	judge := volumetest.NewJudge(t, e.img, volumetest.Masters(fs))
	for _, r := range []struct {
		name   string
		change func(e *editor)
		want   string
	}{
		{"magic", sb32(0, 1), "no f2fs"},
		{"features", sb32(0x884, 1<<20|9), "features 0x100000"},
		{"checksum of the superblock", func(e *editor) { e.put32(1024+0x884, 0x809); e.put32(1024+0x20, 3068) }, "superblock: checksum"},
		{"place of its checksum", sb32(0x884, 0x809), "a checksum at byte"},
		{"block size", sb32(0x10, 14), "blocks of 2^14"},
		{"segments", sb32(0x14, 10), "2^10 blocks in a segment"},
		{"devices", func(e *editor) { e.put(1024+0x899, '/') }, "several devices"},
		{"blocks", sb32(0x24, 1<<20), "is it whole"},
		{"no blocks", sb32(0x24, 0), "is it whole"},
		{"many blocks", sb32(0x28, 1), "is it whole"},
		{"checkpoint area", sb32(0x4c, 100), "the checkpoint area"},
		{"NAT area", sb32(0x54, 1<<31), "the NAT area"},
		{"main area", sb32(0x44, 1<<30), "the main area ends"},
		{"no SIT", sb32(0x38, 0), "the SIT area has 0"},
		{"payload", sb32(0x680, 1<<31), "more blocks of checkpoint"},
		{"root", sb32(0x60, 1<<30), "is not one of the node table"},
		{"root is a file", func(e *editor) { e.put32(1024+0x60, e.get32(e.child(f2fs.Regular, 50000)+4072)) }, "has no names"},
		{"both checkpoints", func(e *editor) { e.put(512*4096+200, 1, 2, 3); e.put(1024*4096+200, 1, 2, 3) }, "none of two is valid"},
		{"blocks of a checkpoint", cp(func(e *editor, at int) { e.put32(at+136, 1<<30) }), "a checkpoint of"},
		{"summaries", cp(func(e *editor, at int) { e.put32(at+140, 600) }), "summaries at block 600"},
		{"place of the checksum", cp(func(e *editor, at int) { e.put32(at+164, 4096) }), "a checksum at byte 4096"},
		{"two versions", cp(func(e *editor, at int) { e.put(at, 1, 2, 3, 4) }), "begins with version"},
		{"map", cp(func(e *editor, at int) { e.put32(at+160, 1) }), "a map of 1 bytes"},
		{"maps", cp(func(e *editor, at int) { e.put32(at+156, 1<<31) }), "maps of"},
		{"not unmounted", cp(func(e *editor, at int) { e.put32(at+132, e.get32(at+132)&^1) }), "was not unmounted"},
		{"journal", func(e *editor) { e.put16(e.pack()+4096*int(e.get32(e.pack()+140)), 39) }, "39 entries"},
		{"footer", in(func(e *editor, at int) { e.put32(at+4072, 5) }), "holds node 5"},
		{"owner", in(func(e *editor, at int) { e.put32(at+4076, 5) }), "of inode 5"},
		{"no type", in(func(e *editor, at int) { e.put16(at, 0o644) }), "has no type"},
		{"another type", in(func(e *editor, at int) { e.put16(at, 0x1000) }), "says a regular file"},
		{"no links", in(func(e *editor, at int) { e.put32(at+12, 0) }), "not in use"},
		{"size", in(func(e *editor, at int) { e.put32(at+20, 1<<20) }), "a size of"},
		{"verity", in(func(e *editor, at int) { e.put(at+2, e.img[at+2]|0x40) }), "is verity, a feature"},
		{"casefolded", in(func(e *editor, at int) { e.put32(at+80, 0x40000000) }), "is casefolded, a feature"},
		{"inline data", in(func(e *editor, at int) { e.put(at+3, e.img[at+3]|2) }), "with its data in the inode"},
		{"inline names", in(func(e *editor, at int) { e.put(at+3, e.img[at+3]|4) }), "inline flags"},
		{"extra fields", in(func(e *editor, at int) { e.put16(at+360, 500) }), "500 bytes of extra fields"},
		{"odd extra fields", in(func(e *editor, at int) { e.put16(at+360, 3) }), "3 bytes of extra fields"},
		{"address", in(func(e *editor, at int) { e.put32(at+360+int(e.img[at+360]), 100) }), "block 0: 100 is not in the main area"},
		{"address behind", in(func(e *editor, at int) { e.put32(at+360+int(e.img[at+360])+4, 16384) }), "block 1: 16384 is not"},
		{"compressed", in(func(e *editor, at int) { e.put32(at+360+int(e.img[at+360])+4, 1<<32-2) }), "block 1 is compressed"},
		{"node outside", func(e *editor) { e.put32(e.child(f2fs.Regular, 5368717312)+4052, 1<<30) }, "node 1073741824"},
		{"node of another", func(e *editor) { e.put32(e.child(f2fs.Regular, 5368717312)+4052, 4) }, "belongs to inode 4"},
		{"node is the inode", func(e *editor) {
			at := e.child(f2fs.Regular, 5368717312)
			e.put32(at+4052, e.get32(at+4072))
		}, "is the inode itself"},
		{"tree is the inode", func(e *editor) {
			at := e.child(f2fs.Regular, 5368717312)
			e.put32(at+4064, e.get32(at+4072))
		}, "is the inode itself"},
		{"nodes without end", func(e *editor) {
			at, other := e.child(f2fs.Regular, 5368717312), e.childOf("sm4", f2fs.Regular, 5368717312)
			own := func(nid uint32) int { // the node, which belongs to the file
				block := e.fs.BlockOf(nid)
				b := int(block) * 4096
				entry := binary.LittleEndian.AppendUint32(nil, e.get32(b+4076)) // of the node table: inode and block
				entry = binary.LittleEndian.AppendUint32(entry, block)
				for k := range e.img {
					if bytes.HasPrefix(e.img[k:], entry) {
						e.put32(k, e.get32(at+4072))
					}
				}
				e.put32(b+4076, e.get32(at+4072))
				return b
			}
			fill := func(b int, nid uint32) {
				for k := range 1018 {
					e.put32(b+4*k, nid)
				}
			}
			first := func(b int) uint32 { // that is in an indirect node
				for k := range 1018 {
					if nid := e.get32(b + 4*k); nid != 0 {
						return nid
					}
				}
				panic("none")
			}
			x, y := e.get32(at+4060), e.get32(other+4060) // both indirect
			if x == 0 || y == 0 {
				x, y = e.get32(at+4064), e.get32(other+4064)
			}
			leaf := first(own(x))
			fill(own(leaf), 0)
			fill(own(y), leaf)
			fill(own(x), y)
			e.put32(at+4068, x)
			e.put32(at+4060, 0)
			e.put32(at+4064, 0)
			e.put32(at+20, 1000) // of four terabytes, the size is 4.3
		}, "is in the tree twice"},
		{"node of attributes", in(func(e *editor, at int) { e.put32(at+76, 4) }), "belongs to inode 4"},
		{"magic of attributes", in(func(e *editor, at int) { e.put32(at+4052-200, 1) }), "attributes: magic"},
		{"length of an attribute", in(func(e *editor, at int) { e.put16(at+4052-200+24+2, 4000) }), "a value of 4000"},
		{"name of an attribute", in(func(e *editor, at int) { e.put(at+4052-200+24+1, 255) }), "a name of 255"},
		{"no context", in(func(e *editor, at int) { e.put(at+4052-200+24, 1) }), "does not exist"},
		{"link", func(e *editor) {
			at := e.child(f2fs.Symlink, 34)
			e.put32(at+16, 5000)
			e.put(at+3, e.img[at+3]&^2)
		}, "a symbolic link of 5000"},
		{"inline link", func(e *editor) { e.put32(e.child(f2fs.Symlink, 34)+16, 4000) }, "4000 bytes in the inode"},
		{"directory", func(e *editor) { at := e.at("xts"); e.put(at+3, e.img[at+3]&^4); e.put32(at+16, 100) }, "a directory of 100"},
	} {
		e.t = t
		r.change(e)
		errs := readAll(e)
		if len(errs) == 0 || !strings.Contains(errors.Join(errs...).Error(), r.want) {
			t.Errorf("%s: %v, want %q", r.name, errs, r.want)
		}
		for _, err := range errs {
			if !explained(err) {
				t.Errorf("%s: %v", r.name, err)
			}
		}
		judge.Damaged(t, r.name, "")
		e.revert()
	}
	judge.Undamaged(t)
}

// TestRandomDamage changes bytes of inodes and of names in them; what comes of it is
// read or refused with a reason in bounded time.
func TestRandomDamage(t *testing.T) {
	e := edit(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	places := []int{1024, e.pack(), e.at(), e.at("xts"), e.child(f2fs.Regular, 50000), e.child(f2fs.Regular, 5368717312), e.child(f2fs.Symlink, 34)}
	for range 100 {
		at := places[rnd.IntN(len(places))]
		off := at + rnd.IntN(1024)*4%3072
		e.put32(off, []uint32{0, 1, ^uint32(0), 1 << 31, 0xffff, e.get32(off) + 1, rnd.Uint32()}[rnd.IntN(7)])
		if at == e.pack() {
			e.seal(at)
		}
		for _, err := range readAll(e) {
			if !explained(err) {
				t.Errorf("seed %d, byte %d: %v", seed, off, err)
			}
		}
		e.revert()
	}
}
