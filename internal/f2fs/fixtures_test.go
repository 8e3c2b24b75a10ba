package f2fs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"keyway/internal/f2fs"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// noKey is what Linux shows of a name, or of a target, without the key: fscrypt's
// struct of two words of hash, up to 149 bytes and the SHA-256 of the rest, in base64.
func noKey(hash uint32, name []byte) string {
	b := append(binary.LittleEndian.AppendUint32(nil, hash), 0, 0, 0, 0)
	if len(name) <= 149 {
		return base64.RawURLEncoding.EncodeToString(append(b, name...))
	}
	rest := sha256.Sum256(name[149:])
	return base64.RawURLEncoding.EncodeToString(append(append(b, name[:149]...), rest[:]...))
}

func image(t testing.TB) (*fsimages.FileSystem, []byte) {
	t.Helper()
	fs := fsimages.All(t, "f2fs")[0]
	return fs, fs.Disk(t, "a")
}

func open(t testing.TB, disk []byte) *f2fs.FS {
	t.Helper()
	f, err := f2fs.Open(bytes.NewReader(disk), int64(len(disk)), f2fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFixture walks the f2fs that the kernel wrote, and compares all that its manifest
// says: names without the key, inodes, contexts, extents and ciphertext.
func TestFixture(t *testing.T) {
	fs, disk := image(t)
	f := open(t, disk)
	uuid := f.UUID()
	if got := hex.EncodeToString(uuid[:]); got != fs.UUIDHex {
		t.Errorf("UUID %s, want %s", got, fs.UUIDHex)
	}
	names := map[uint32]string{} // without the key
	inodes := map[uint32]*f2fs.Inode{}
	var walk func(i *f2fs.Inode)
	walk = func(d *f2fs.Inode) {
		dots := 0
		for e, err := range d.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			if name := string(e.Name); name == "." || name == ".." {
				dots++
				continue
			}
			i, err := f.Open(e)
			if err != nil {
				t.Fatal(err)
			}
			names[e.Inode], inodes[e.Inode] = noKey(e.Hash, e.Name), i
			if i.Type() == f2fs.Directory {
				walk(i)
			}
		}
		if dots != 2 {
			t.Errorf("directory %d: %d of . and ..", d.Number, dots)
		}
	}
	root, err := f.Inode(f.Root())
	if err != nil {
		t.Fatal(err)
	}
	walk(root)
	if want := len(fs.Directories) + len(fs.Files) + len(fs.Symlinks); len(inodes) < want {
		t.Errorf("%d files, want at least %d", len(inodes), want)
	}
	policies := map[string]fsimages.Directory{}
	for _, d := range fs.Directories {
		policies[d.Path] = d
		i, err := f.Lookup([]byte(d.Path))
		if err != nil {
			t.Fatal(err)
		}
		if i.Number != d.Inode {
			t.Errorf("%s: inode %d, want %d", d.Path, i.Number, d.Inode)
		}
		context(t, i, d, d.Nonce)
	}
	for _, w := range fs.Files {
		i := inodes[w.Inode]
		if i == nil {
			t.Errorf("%s: inode %d is not there", w.Path, w.Inode)
			continue
		}
		if i.Size != w.Size || i.Type() != f2fs.Regular || names[w.Inode] != w.NoKeyName {
			t.Errorf("%s: a %v of %d bytes, want %d; %s, want %s", w.Path, i.Type(), i.Size, w.Size, names[w.Inode], w.NoKeyName)
		}
		dir, _, _ := strings.Cut(w.Path, "/")
		context(t, i, policies[dir], w.Nonce)
		extents(t, i, &w)
	}
	for _, w := range fs.Symlinks {
		i := inodes[w.Inode]
		if i == nil || names[w.Inode] != w.NoKeyName {
			t.Errorf("%s: %s, want %s", w.Path, names[w.Inode], w.NoKeyName)
			continue
		}
		target, err := i.Target()
		if err != nil {
			t.Error(err)
			continue
		}
		if n := int(binary.LittleEndian.Uint16(target)); n != len(target)-2 || noKey(0, target[2:]) != w.NoKeyTarget {
			t.Errorf("%s: target %x", w.Path, target)
		}
	}
}

func context(t *testing.T, i *f2fs.Inode, d fsimages.Directory, nonce string) {
	t.Helper()
	c, err := i.EncryptionContext()
	if err != nil {
		t.Error(err)
		return
	}
	var want []byte
	if d.PolicyVersion == 2 {
		want = append([]byte{2, byte(d.ContentsMode), byte(d.NamesMode), byte(d.Flags), byte(d.Log2DataUnitSize), 0, 0, 0}, fixtures.Hex(d.Identifier)...)
	} else {
		want = append([]byte{1, byte(d.ContentsMode), byte(d.NamesMode), byte(d.Flags)}, fixtures.Hex(d.Descriptor)...)
	}
	if want = append(want, fixtures.Hex(nonce)...); !bytes.Equal(c, want) {
		t.Errorf("inode %d: context %x, want %x", i.Number, c, want)
	}
}

func extents(t *testing.T, i *f2fs.Inode, w *fsimages.File) {
	t.Helper()
	var got []fsimages.Extent
	h := sha256.New()
	for r, err := range i.Map(0, uint64(i.RawSize())/f2fs.BlockSize) {
		if err != nil {
			t.Error(err)
			return
		}
		if r.Kind != f2fs.Data {
			continue
		}
		e := fsimages.Extent{Logical: int64(r.Logical) * f2fs.BlockSize, Physical: int64(r.Physical) * f2fs.BlockSize, Length: int64(r.Blocks) * f2fs.BlockSize}
		got = append(got, e)
		raw := make([]byte, e.Length)
		if n, err := i.ReadRaw(raw, e.Logical); n != len(raw) {
			t.Errorf("%s: %v", w.Path, err)
			return
		}
		h.Write(raw)
	}
	if len(got) != len(w.Extents) {
		t.Errorf("%s: extents %v, want %v", w.Path, got, w.Extents)
		return
	}
	for k := range got {
		if got[k] != w.Extents[k] {
			t.Errorf("%s: extent %v, want %v", w.Path, got[k], w.Extents[k])
		}
	}
	if s := hex.EncodeToString(h.Sum(nil)); s != w.CipherSHA256 {
		t.Errorf("%s: ciphertext has sha256 %s, want %s", w.Path, s, w.CipherSHA256)
	}
}
