package ext4_test

import (
	"math/rand/v2"
	"testing"

	"keyway/internal/race"
)

// A part is a structure that has a checksum of its own.
type part struct {
	name    string
	at, len int
	seal    func()
}

// parts lists one of each structure of the image, and all inodes of the files with
// them.
func parts(e *editor) []part {
	all := []part{{"superblock", super, 1020, e.sealSuper}}
	for g := range 3 {
		all = append(all, part{"descriptor", e.desc(g), e.descSize(), func() { e.sealDesc(g) }})
	}
	for _, name := range []string{"fragments", "f4096", "f70000", "f1025", "f100", "few", "one", "many", "link58", "link500", "sparse", "fifo"} {
		n, at := e.file(name)
		all = append(all, part{"inode of " + name, at - 0x28, e.get16(super + 0x58), func() { e.sealInode(n) }})
	}
	n, at := e.file("fragments")
	node := int(e.get32(at+16)) * block
	all = append(all, part{"extents", node, 12 + 12*(e.get16(node+2)), func() { e.sealNode(n, node) }})
	if e.get16(node+6) > 0 {
		leaf := int(e.get32(node+16)) * block
		all = append(all, part{"extents of a leaf", leaf, 12 + 12*e.get16(leaf+2), func() { e.sealNode(n, leaf) }})
	}
	many, _ := e.file("many")
	root := e.at(many, 0)
	index := e.at(many, uint64(e.get32(root+36)))
	names := e.at(many, uint64(e.get32(index+12)))
	one, _ := e.file("one")
	first := e.at(one, 0)
	all = append(all,
		part{"root of an index", root, 32 + 8*e.get16(root+34), func() { e.sealIndex(many, root, 32) }},
		part{"node of an index", index, 8 + 8*e.get16(index+10), func() { e.sealIndex(many, index, 8) }},
		part{"names", names, block - 12, func() { e.sealLeaf(many, names) }},
		part{"names of one", first, block - 12, func() { e.sealLeaf(one, first) }},
	)
	_, at = e.file("f70000")
	attrs := int(e.get32(at-0x28+0x68)) * block
	all = append(all, part{"attributes", attrs, block, func() { e.sealAttrs(attrs) }})
	_, v := big(e)
	all = append(all, part{"inode of an attribute", e.inode(v), 256, func() { e.sealInode(v) }})
	return append(all, part{"value of an attribute", int(e.get32(e.inode(v)+0x28+20)) * block, block, nil})
}

// TestRandomDamage changes bits and fields of every structure. Without a good checksum
// each change is noticed and what is still read is as it was; with one the image may
// mean something else, and is read or refused with a reason in bounded time.
func TestRandomDamage(t *testing.T) {
	four, _ := bases(t)
	want, errs := readAll(four)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	all := parts(four)
	rounds := 4
	for round := range rounds {
		for i := round % race.Every(8); i < len(all); i += race.Every(8) {
			p := all[i]
			at := p.at + rnd.IntN(p.len)
			switch rnd.IntN(3) {
			case 0:
				four.put(at, four.img[at]^byte(1<<rnd.IntN(8)))
			case 1:
				four.put(at, four.img[at]^byte(1+rnd.IntN(255)))
			case 2:
				at = p.at + rnd.IntN(p.len/4)*4
				v := []uint32{0, 1, ^uint32(0), 1 << 31, 0xffff, four.get32(at) + 1, rnd.Uint32()}[rnd.IntN(7)]
				if v == four.get32(at) {
					v++
				}
				four.put32(at, v)
			}
			sealed := round%2 == 1 && p.seal != nil
			if sealed {
				p.seal()
			}
			got, errs := readAll(four)
			for _, err := range errs {
				if !isExplained(err) {
					t.Errorf("seed %d, %s, byte %d, sealed %v: %v", seed, p.name, at-p.at, sealed, err)
				}
			}
			if !sealed {
				if len(errs) == 0 {
					t.Errorf("seed %d, %s, byte %d: nothing is noticed", seed, p.name, at-p.at)
				}
				for path, s := range got {
					if s != want[path] {
						t.Errorf("seed %d, %s, byte %d: %s is read, and differs", seed, p.name, at-p.at, path)
					}
				}
			}
			four.revert()
		}
	}
}
