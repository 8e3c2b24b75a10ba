package f2fs_test

import (
	"errors"
	"strings"
	"testing"

	"keyway/internal/f2fs"
)

// A directory in which one block is many times would be a great many names of a small
// image: two hundred for each address of four bytes.
func TestDirectoryOfOneBlockTwice(t *testing.T) {
	e := edit(t)
	at := e.at("xts")
	e.put(at+3, e.img[at+3]&^4) // its names are in blocks
	e.put32(at+16, 3*4096)
	first := at + 360 + int(e.img[at+360])
	empty := 12000 // no slot is in use
	e.put(empty*4096, make([]byte, 4096)...)
	for k, addr := range []uint32{uint32(empty), 0, uint32(empty)} {
		e.put32(first+4*k, addr)
	}
	errs := readAll(e)
	if err := errors.Join(errs...); !errors.Is(err, f2fs.ErrDamaged) || !strings.Contains(err.Error(), "block 2 has block 12000 for the second time") {
		t.Errorf("%v", err)
	}
	e.put32(first+8, uint32(empty)+1)
	e.put((empty+1)*4096, make([]byte, 4096)...)
	for _, err := range readAll(e) {
		if strings.Contains(err.Error(), "second time") {
			t.Errorf("two blocks: %v", err)
		}
	}
}
