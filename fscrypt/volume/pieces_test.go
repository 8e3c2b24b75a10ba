package volume

import (
	"testing"

	"keyway/fscrypt"
)

// Numbers of data units of IV_INO_LBLK_32 go from 2^32-1 to 0 somewhere in a file; no
// request does (dm-fscrypt.md, section 12.6).
func TestPiecesEndWhereNumbersWrap(t *testing.T) {
	m, err := fscrypt.NewMasterKey(make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Wipe()
	c := fscrypt.Context{Policy: fscrypt.Policy{Version: 2, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Flags: fscrypt.InoLblk32, Key: m.Spec()}}
	const units = 1 << 22
	for inode := uint64(11); inode < 1<<20; inode++ {
		f, err := fscrypt.Open(m, fscrypt.Ext4([16]byte{1}, 4096, true), c, inode)
		if err != nil {
			t.Fatal(err)
		}
		if f.Contiguous(0, units*4096) == units*4096 {
			continue // one in a thousand does not
		}
		var all []Piece
		more, err := cut(Piece{Off: 0, Dev: 1 << 20, Len: units * 4096, Encrypted: true}, f, func(p Piece) bool {
			all = append(all, p)
			return true
		})
		if err != nil || !more || len(all) != 2 {
			t.Fatalf("inode %d: %v, %v", inode, all, err)
		}
		a, b := all[0], all[1]
		n := uint64(a.Len / 4096)
		if a.DUN[0]+n != 1<<32 || b.DUN[0] != 0 || b.Off != a.Len || b.Dev != a.Dev+a.Len || a.Len+b.Len != units*4096 {
			t.Errorf("inode %d: %+v and %+v", inode, a, b)
		}
		if want, err := f.DUN(b.Off + 4096); err != nil || b.From(4096).DUN != want || b.From(4096).Dev != b.Dev+4096 {
			t.Errorf("inode %d: %+v, want DUN %v, %v", inode, b.From(4096), want, err)
		}
		return
	}
	t.Error("the numbers of no file wrap")
}
