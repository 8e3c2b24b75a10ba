package f2fs_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"keyway/internal/f2fs"
)

// TestNodeTable: where a node lies is read from the copy of the table that the
// checkpoint names, and from the journal before it.
func TestNodeTable(t *testing.T) {
	e := edit(t)
	nid := e.get32(e.child(f2fs.Regular, 50000) + 4072)
	block := e.fs.BlockOf(nid)
	k := int(nid / 455)
	table := (int(e.get32(1024+0x54)) + k) * 4096
	entry := table + int(nid%455)*9
	if e.get32(entry+5) != block {
		t.Fatalf("the table has block %d of node %d, want %d", e.get32(entry+5), nid, block)
	}
	fails := func(why string) {
		t.Helper()
		if _, err := open(t, e.img).Inode(nid); err == nil {
			t.Errorf("%s: the node is found", why)
		}
	}
	works := func(why string) {
		t.Helper()
		if i, err := open(t, e.img).Inode(nid); err != nil || i.Size != 50000 {
			t.Errorf("%s: %v", why, err)
		}
	}
	pack := e.pack()
	bit := pack + 192 + int(e.get32(pack+156)) + k/8
	e.put(table+512*4096, bytes.Clone(e.img[table:][:4096])...)
	e.put(table, make([]byte, 4096)...)
	fails("the first copy is empty")
	e.put(bit, e.img[bit]|0x80>>(k%8))
	e.seal(pack)
	works("the second copy is the valid one")
	e.revert()

	journal := pack + 4096*int(e.get32(pack+140))
	e.put32(entry+5, 0)
	fails("the entry is empty")
	n := int(binary.LittleEndian.Uint16(e.img[journal:]))
	at := journal + 2 + 13*n
	e.put16(journal, uint16(n+1))
	e.put32(at, nid)
	e.put(at+4, 0)
	e.put32(at+5, nid)
	e.put32(at+9, block)
	works("the entry is in the journal")
}
