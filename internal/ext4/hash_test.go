package ext4_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyway/internal/ext4"
	"keyway/test/harness"
)

// TestHashesAreDebugfss compares the hash of every name with that of debugfs, for each
// kind of hash, with signed and unsigned characters.
func TestHashesAreDebugfss(t *testing.T) {
	harness.Need(t, "mke2fs", "debugfs")
	names := []string{"a", "name of 16 bytes", "\xe9t\xe9", "\x80\xff\x7f", strings.Repeat("\xfe", 33), strings.Repeat("long", 60)}
	for n := 2; n < 70; n += 3 {
		names = append(names, strings.Repeat("n", n))
	}
	src := t.TempDir()
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(src, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	img := filepath.Join(t.TempDir(), "img")
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "hash_seed=01234567-89ab-cdef-0123-456789abcdef", "-d", src, img, "8M")
	e := edit(t, img)
	found := regexp.MustCompile(`is 0x([0-9a-f]+) \(minor 0x([0-9a-f]+)\)`)
	for version := range 3 {
		for unsigned := range 2 {
			e.put(super+0xfc, byte(version))
			e.put32(super+0x160, uint32(1+unsigned))
			e.sealSuper()
			f, err := ext4.Open(e, int64(len(e.img)), ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			root, err := f.Inode(ext4.Root)
			if err != nil {
				t.Fatal(err)
			}
			var got, commands []string
			for entry, err := range root.Entries() {
				if err != nil {
					t.Fatal(err)
				}
				if n := string(entry.Name); n == "." || n == ".." || n == "lost+found" || strings.Contains(n, " ") {
					continue
				}
				got = append(got, fmt.Sprintf("%q %x %x", entry.Name, entry.Hash, entry.MinorHash))
				commands = append(commands, fmt.Sprintf("dx_hash -h %d -s 01234567-89ab-cdef-0123-456789abcdef %s", version+3*unsigned, entry.Name))
			}
			hashes := found.FindAllStringSubmatch(debugfs(t, img, false, commands...), -1)
			if len(hashes) != len(got) || len(got) < 25 {
				t.Fatalf("debugfs tells %d hashes of %d", len(hashes), len(got))
			}
			for k, h := range hashes {
				if want := " " + h[1] + " " + h[2]; !strings.HasSuffix(got[k], want) {
					t.Errorf("version %d, unsigned %d: %s, want%s", version, unsigned, got[k], want)
				}
			}
			e.revert()
		}
	}
}

// TestHashBesideTheName: entries of a directory that is encrypted and casefolded carry
// their hash, since it cannot be made without the key.
func TestHashBesideTheName(t *testing.T) {
	e, dir, file, _ := kernelImage(t)
	e.put32(super+0x60, e.get32(super+0x60)|0x20000)
	e.sealSuper()
	at := e.inode(dir)
	e.put32(at+0x20, e.get32(at+0x20)&^0x1000|0x40000000)
	e.put32(at+4, block)
	e.put32(at+0x28+16, 1) // one block of the first extent
	e.put16(at+0x2a, 1)
	e.sealInode(dir)
	b := int(e.get32(at+0x28+20)) * block
	e.put(b, make([]byte, block)...)
	entry := func(off, inode, length int, name string, typ byte) int {
		e.put32(b+off, uint32(inode))
		e.put16(b+off+4, uint16(length))
		e.put(b+off+6, byte(len(name)), typ)
		e.put(b+off+8, []byte(name)...)
		return off + length
	}
	cipher := strings.Repeat("\x00/\xff.", 4)
	off := entry(0, int(dir), 12, ".", 2)
	off = entry(off, 2, 12, "..", 2)
	first := off
	off = entry(off, int(file), 32, cipher, 1)
	e.put32(b+first+24, 0x12345678)
	e.put32(b+first+28, 0x9abcdef0)
	entry(off, 0, block-12-off, "", 0)
	e.put(b+block-12, 0, 0, 0, 0, 12, 0, 0, 0xde)
	e.sealLeaf(dir, b)
	f, err := ext4.Open(e, int64(len(e.img)), ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := f.Inode(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for got, err := range i.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 && (string(got.Name) != cipher || got.Inode != file || got.Hash != 0x12345678 || got.MinorHash != 0x9abcdef0) {
			t.Errorf("%+v", got)
		}
	}
	if n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	e.put16(b+first+4, 28) // no room for the hash
	e.sealLeaf(dir, b)
	for _, err = range i.Entries() {
	}
	if err == nil || !strings.Contains(err.Error(), "a name of 16 bytes in an entry of 28") {
		t.Errorf("without room for the hash: %v", err)
	}
}
