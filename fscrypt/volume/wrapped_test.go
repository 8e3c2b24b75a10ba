package volume_test

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/fscrypt"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/internal/f2fs"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

// A wrapper makes a directory of the kernel's f2fs that is under IV_INO_LBLK_64 one
// under a hardware-wrapped key: names and targets are encrypted anew with what the
// software secret gives, contents by the engine. No kernel with such keys made an image.
type wrapper struct {
	t   *testing.T
	img []byte
	fs  fscrypt.FileSystem
	old *fscrypt.MasterKey
	key *fscrypt.MasterKey
}

// policy exchanges the key of a context.
func (w *wrapper) context(old fscrypt.Context) fscrypt.Context {
	old.Policy.Key = w.key.Spec()
	return old
}

func (w *wrapper) names(m *fscrypt.MasterKey, c fscrypt.Context, inode uint32) *fscrypt.Names {
	w.t.Helper()
	f, err := fscrypt.Open(m, w.fs, c, uint64(inode))
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := f.Names()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(n.Wipe)
	return n
}

// exchange replaces bytes that are random, wherever they are: f2fs keeps names in
// inodes too.
func (w *wrapper) exchange(old, with []byte) {
	w.t.Helper()
	if len(old) != len(with) || len(old) < 16 || !bytes.Contains(w.img, old) {
		w.t.Fatalf("%x cannot become %x", old, with)
	}
	w.img = bytes.ReplaceAll(w.img, old, with)
}

// wrapNames goes through a directory of the image as it was.
func (w *wrapper) wrapNames(was *f2fs.FS, dir *f2fs.Inode) {
	w.t.Helper()
	context := func(i *f2fs.Inode) fscrypt.Context {
		b, err := i.EncryptionContext()
		if err != nil {
			w.t.Fatal(err)
		}
		c, err := fscrypt.ParseContext(b)
		if err != nil {
			w.t.Fatal(err)
		}
		return c
	}
	c := context(dir)
	old, with := w.names(w.old, c, dir.Number), w.names(w.key, w.context(c), dir.Number)
	w.exchange(c.Bytes(), w.context(c).Bytes())
	for e, err := range dir.Entries() {
		if err != nil {
			w.t.Fatal(err)
		}
		if s := string(e.Name); s == "." || s == ".." {
			continue
		}
		name, err := old.Decrypt(e.Name)
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := with.Encrypt(name)
		if err != nil {
			w.t.Fatal(err)
		}
		w.exchange(e.Name, b)
		i, err := was.Open(e)
		if err != nil {
			w.t.Fatal(err)
		}
		switch c := context(i); i.Type() {
		case f2fs.Directory:
			w.wrapNames(was, i)
		case f2fs.Symlink:
			target, err := i.Target()
			if err != nil {
				w.t.Fatal(err)
			}
			plain, err := w.names(w.old, c, i.Number).DecryptTarget(target)
			if err != nil {
				w.t.Fatal(err)
			}
			b, err := w.names(w.key, w.context(c), i.Number).EncryptTarget(plain)
			if err != nil {
				w.t.Fatal(err)
			}
			w.exchange(target, b)
			w.exchange(c.Bytes(), w.context(c).Bytes())
		default:
			w.exchange(c.Bytes(), w.context(c).Bytes())
		}
	}
}

// Names are encrypted under the software secret of a hardware-wrapped key, contents by
// the engine alone, which derives both (blkcrypto.md, section 10.4): a device whose
// engine does not have the hardware shows names and reads nothing.
func TestWrappedKey(t *testing.T) {
	const dir = "xts-ino64"
	ctx, f := t.Context(), image(t, "f2fs")
	hw, err := emul.NewHardware(bytes.Repeat([]byte{7}, emul.FuseSize))
	if err != nil {
		t.Fatal(err)
	}
	defer hw.Close()
	raw := make([]byte, emul.RawSize) // the key of section 10.4
	for i := range raw {
		raw[i] = byte(i)
	}
	longTerm, err := hw.Import(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer longTerm.Wipe()
	ephemeral, err := hw.Prepare(longTerm.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	defer ephemeral.Wipe()
	newKey := func() *fscrypt.MasterKey {
		m, err := fscrypt.NewWrappedKey(ephemeral.Bytes(), hw)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	w := &wrapper{t: t, img: bytes.Clone(disk(t, f, "a")), key: newKey()}
	defer w.key.Wipe()
	if got := w.key.Spec().String(); got != "a2c6bd9aa8682ec04bc51ac412b9acea" {
		t.Fatalf("identifier %s", got)
	}
	for _, d := range f.Directories {
		if d.Path == dir {
			if w.old, err = fscrypt.NewMasterKey(fixtures.Hex(d.MasterKey)); err != nil {
				t.Fatal(err)
			}
			defer w.old.Wipe()
		}
	}
	was, err := f2fs.Open(bytes.NewReader(disk(t, f, "a")), int64(len(w.img)), f2fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	top, err := was.Lookup([]byte(dir))
	if err != nil {
		t.Fatal(err)
	}
	w.fs = fscrypt.F2FS(was.UUID(), f2fs.BlockSize)
	w.fs.MaxFileSize = was.MaxFileSize()
	w.wrapNames(was, top)

	spec, err := emul.ParseSpec("ufs")
	if err != nil {
		t.Fatal(err)
	}
	spec.Options.Hardware = hw
	engine := keyslot.New(emul.New("ufs", spec.Options))
	world, ram := dmtest.New(t), dmtest.NewRAM(int64(len(w.img)))
	ram.Set(w.img)
	world.Leaf("a", ram, engine)
	dev := world.Map("fs", volumetest.Linear(len(w.img), "a"))
	wrapContents(t, w, dev, f, dir)

	v := mustOpen(t, dev)
	if err := v.AddKey(newKey()); err != nil {
		t.Fatal(err)
	}
	programs, n := engine.Stats().Programs, 0
	sub := *f // what is below the directory
	sub.Directories, sub.Files, sub.Symlinks = nil, nil, nil
	for _, file := range f.Files {
		if strings.HasPrefix(file.Path, dir+"/") {
			sub.Files = append(sub.Files, file)
			n++
		}
	}
	for _, link := range f.Symlinks {
		if strings.HasPrefix(link.Path, dir+"/") {
			sub.Symlinks = append(sub.Symlinks, link)
			n++
		}
	}
	check(t, v, &sub)
	if engine.Stats().Programs == programs || n < 10 {
		t.Errorf("the engine was not programmed for %d files", n)
	}
	if r := engine.Residents(); len(r) != 0 {
		t.Errorf("left in keyslots: %+v", r)
	}

	// Without the hardware.
	world.Leaf("b", &volumetest.Medium{Bytes: ram.Bytes()}, newEngine(t, "cpu"))
	v = mustOpen(t, world.Handle("b"))
	if err := v.AddKey(newKey()); err != nil {
		t.Fatal(err)
	}
	file := mustLookup(t, v, dir+"/p4097")
	buf := make([]byte, 4097)
	if n, err := file.ReadAt(ctx, buf, 0); n != 0 || !errors.Is(err, block.ErrNoCrypto) || !bytes.Equal(buf, make([]byte, 4097)) {
		t.Errorf("%d bytes read without the hardware: %v", n, err)
	}
}

// wrapContents writes the files below a directory by requests with the wrapped key.
func wrapContents(t *testing.T, w *wrapper, dev volume.Device, f *fsimages.FileSystem, dir string) {
	t.Helper()
	var key *blkcrypto.Key
	for i := range f.Files {
		file := &f.Files[i]
		if !strings.HasPrefix(file.Path, dir+"/") {
			continue
		}
		k := slices.IndexFunc(f.Directories, func(d fsimages.Directory) bool { return path.Clean(dir) == d.Path })
		d := f.Directories[k]
		c, err := fscrypt.Open(w.key, w.fs, fscrypt.Context{Policy: fscrypt.Policy{
			Version: 2, Contents: fscrypt.Mode(d.ContentsMode), Names: fscrypt.Mode(d.NamesMode), Flags: fscrypt.Flags(d.Flags), Key: w.key.Spec(),
		}, Nonce: [16]byte(fixtures.Hex(file.Nonce))}, uint64(file.Inode))
		if err != nil {
			t.Fatal(err)
		}
		if key == nil { // one for the file system
			if key, err = c.NewKey("the test's"); err != nil {
				t.Fatal(err)
			}
			stop, err := dev.StartKey(key, "the test")
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
		}
		for _, e := range file.Extents {
			dun, err := c.DUN(e.Logical)
			if err != nil {
				t.Fatal(err)
			}
			r := block.Request{
				Op: block.OpWrite, Off: e.Physical, Len: e.Length, Data: block.Bytes(plain(file, e.Logical, e.Length)),
				Crypt: blkcrypto.Context{Key: key, DUN: dun},
			}
			if err := dev.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := key.Evict(t.Context()); err != nil {
		t.Fatal(err)
	}
}
