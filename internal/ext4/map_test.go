package ext4_test

import (
	"bytes"
	"testing"

	"keyway/internal/ext4"
)

// TestUnwrittenReadsAsZeros: whatever lies in blocks that were allocated and never
// written, it is not the file's.
func TestUnwrittenReadsAsZeros(t *testing.T) {
	e, _, n, _ := kernelImage(t)
	read := func() ([]byte, []ext4.Run) {
		i, err := e.fs.Inode(n)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, i.RawSize())
		if n, err := i.ReadRaw(b, 0); n != len(b) {
			t.Fatal(n, err)
		}
		var runs []ext4.Run
		for r, err := range i.Map(0, uint64(len(b)/block)) {
			if err != nil {
				t.Fatal(err)
			}
			runs = append(runs, r)
		}
		return b, runs
	}
	before, runs := read()
	if len(runs) != 1 || bytes.Count(before, []byte{0}) > len(before)/64 {
		t.Fatalf("%v, with zeros", runs)
	}
	length := e.inode(n) + 0x28 + 16
	e.put16(length, uint16(e.get16(length)|0x8000))
	e.sealInode(n)
	after, unwritten := read()
	if !bytes.Equal(after, make([]byte, len(before))) {
		t.Error("what was there is read")
	}
	runs[0].Kind = ext4.Unwritten
	if len(unwritten) != 1 || unwritten[0] != runs[0] {
		t.Errorf("%v, want %v", unwritten, runs)
	}
}

// TestMapOfPart: what is asked for is covered, and nothing else.
func TestMapOfPart(t *testing.T) {
	e, _, n, _ := kernelImage(t)
	i, err := e.fs.Inode(n)
	if err != nil {
		t.Fatal(err)
	}
	blocks := uint64(i.RawSize() / block)
	first := uint64(e.at(n, 0) / block)
	for _, c := range []struct {
		first, n uint64
		want     []ext4.Run
	}{
		{0, 0, nil},
		{5, 1, []ext4.Run{{Logical: 5, Physical: first + 5, Blocks: 1}}},
		{3, 7, []ext4.Run{{Logical: 3, Physical: first + 3, Blocks: 7}}},
		{blocks - 1, 9, []ext4.Run{{Logical: blocks - 1, Physical: first + blocks - 1, Blocks: 1}, {Logical: blocks, Blocks: 8, Kind: ext4.Hole}}},
		{1 << 40, 3, []ext4.Run{{Logical: 1 << 40, Blocks: 3, Kind: ext4.Hole}}},
	} {
		var got []ext4.Run
		for r, err := range i.Map(c.first, c.n) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if len(got) != len(c.want) {
			t.Errorf("%d blocks from %d on: %v, want %v", c.n, c.first, got, c.want)
			continue
		}
		for k := range got {
			if got[k] != c.want[k] {
				t.Errorf("%d blocks from %d on: %v, want %v", c.n, c.first, got, c.want)
			}
		}
	}
	if _, err := i.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("an encrypted file is read as if it were not")
	}
	for _, err = range i.Map(5, ^uint64(0)) {
		if err != nil {
			break
		}
	}
	if err == nil {
		t.Error("more blocks than can be counted are mapped")
	}
}
