package ext4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"testing"

	dev "keyway/block"
	_ "keyway/dm/target"
	"keyway/internal/dmtest"
	"keyway/internal/ext4"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// device opens the device of the file system, through its tables.
func device(t *testing.T, f *fsimages.FileSystem) (io.ReaderAt, int64) {
	t.Helper()
	if len(f.Tables) == 0 {
		disk := f.Disk(t, "a")
		return bytes.NewReader(disk), int64(len(disk))
	}
	w := dmtest.New(t)
	for name := range f.Disks {
		disk := f.Disk(t, name)
		w.Disk(name, int64(len(disk)), 0).Set(disk)
	}
	var top *devReader
	for _, tb := range f.Tables {
		top = &devReader{w.Map(tb.Device, tb.TableOn(nil))}
	}
	return top, top.Info().Size
}

// A devReader reads any bytes of a device.
type devReader struct{ dev.Device }

func (d *devReader) ReadAt(p []byte, off int64) (int, error) {
	const unit = 4096
	first, end := off&^(unit-1), (off+int64(len(p))+unit-1)&^(unit-1)
	end = min(end, d.Info().Size)
	b := make([]byte, end-first)
	if err := d.Do(context.Background(), dev.Request{Op: dev.OpRead, Off: first, Len: end - first, Data: dev.Bytes(b)}); err != nil {
		return 0, err
	}
	return copy(p, b[off-first:]), nil
}

// noKey is what Linux shows of a name, or of a target, without the key: fscrypt's
// struct of hash, up to 149 bytes and the SHA-256 of the rest, in base64.
func noKey(hash, minor uint32, name []byte) string {
	b := binary.LittleEndian.AppendUint32(nil, hash)
	b = binary.LittleEndian.AppendUint32(b, minor)
	rest := []byte(nil)
	if len(name) > 149 {
		name, rest = name[:149], name[149:]
	}
	b = append(b, name...)
	if rest != nil {
		s := sha256.Sum256(rest)
		b = append(b, s[:]...)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// TestFixtures walks every ext4 that the kernel wrote, and compares all that its
// manifest says: names without the key, inodes, contexts, extents and ciphertext.
func TestFixtures(t *testing.T) {
	for _, fs := range fsimages.All(t, "ext4") {
		t.Run(fs.Name, func(t *testing.T) {
			r, size := device(t, fs)
			below := bytes.NewReader(fs.Disk(t, "a"))
			f, err := ext4.Open(r, size, ext4.Options{})
			if err != nil {
				t.Fatal(err)
			}
			info := f.Info()
			if got := hex.EncodeToString(info.UUID[:]); fs.UUIDHex != "" && got != fs.UUIDHex {
				t.Errorf("UUID %s, want %s", got, fs.UUIDHex)
			}
			if !info.Encrypt || !info.StableInodes || !info.Checksums || len(info.Warnings) != 0 {
				t.Errorf("%+v", info)
			}
			root, err := f.Inode(ext4.Root)
			if err != nil {
				t.Fatal(err)
			}
			type found struct {
				in    *ext4.Inode
				noKey string
			}
			all := map[uint32]found{}
			err = f.Walk(root, func(p []ext4.Entry, i *ext4.Inode) error {
				e := p[len(p)-1]
				all[i.Number] = found{i, noKey(e.Hash, e.MinorHash, e.Name)}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := len(fs.Directories) + len(fs.Files) + len(fs.Symlinks)
			if len(all) < want {
				t.Errorf("%d files, want at least %d", len(all), want)
			}
			nonce := map[string]string{}
			for _, d := range fs.Directories {
				i, err := f.Lookup([]byte(d.Path))
				if err != nil {
					t.Fatal(err)
				}
				if i.Number != d.Inode || !i.Encrypted() {
					t.Errorf("%s: inode %d, want %d; encrypted: %v", d.Path, i.Number, d.Inode, i.Encrypted())
				}
				checkContext(t, i, d, d.Nonce)
				nonce[d.Path] = d.Nonce
			}
			policy := func(file string) fsimages.Directory {
				for _, d := range fs.Directories {
					if len(file) > len(d.Path) && file[:len(d.Path)+1] == d.Path+"/" {
						return d
					}
				}
				t.Fatalf("no directory of %s", file)
				return fsimages.Directory{}
			}
			for _, w := range fs.Files {
				got, ok := all[w.Inode]
				if !ok {
					t.Errorf("%s: inode %d is not there", w.Path, w.Inode)
					continue
				}
				i := got.in
				if i.Size != w.Size || !i.Encrypted() || i.Type() != ext4.Regular {
					t.Errorf("%s: size %d, want %d; encrypted %v; %v", w.Path, i.Size, w.Size, i.Encrypted(), i.Type())
				}
				if got.noKey != w.NoKeyName {
					t.Errorf("%s: without the key %s, want %s", w.Path, got.noKey, w.NoKeyName)
				}
				checkContext(t, i, policy(w.Path), w.Nonce)
				checkFile(t, i, &w, info.BlockSize, below, fs)
			}
			for _, w := range fs.Symlinks {
				got, ok := all[w.Inode]
				if !ok {
					t.Errorf("%s: inode %d is not there", w.Path, w.Inode)
					continue
				}
				if got.noKey != w.NoKeyName {
					t.Errorf("%s: without the key %s, want %s", w.Path, got.noKey, w.NoKeyName)
				}
				target, err := got.in.Target()
				if err != nil {
					t.Errorf("%s: %v", w.Path, err)
					continue
				}
				if n := int(binary.LittleEndian.Uint16(target)); n != len(target)-2 || noKey(0, 0, target[2:]) != w.NoKeyTarget {
					t.Errorf("%s: target %x", w.Path, target)
				}
			}
		})
	}
}

func checkContext(t *testing.T, i *ext4.Inode, d fsimages.Directory, nonce string) {
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

// checkFile compares where a file lies and what is there.
func checkFile(t *testing.T, i *ext4.Inode, w *fsimages.File, blockSize int, below io.ReaderAt, fs *fsimages.FileSystem) {
	t.Helper()
	var got []fsimages.Extent
	blocks := uint64(i.RawSize()) / uint64(blockSize)
	for run, err := range i.Map(0, blocks) {
		if err != nil {
			t.Error(err)
			return
		}
		if run.Kind == ext4.Data {
			b := int64(blockSize)
			got = append(got, fsimages.Extent{Logical: int64(run.Logical) * b, Physical: int64(run.Physical) * b, Length: int64(run.Blocks) * b})
		}
	}
	if len(got) != len(w.Extents) {
		t.Errorf("%s: extents %v, want %v", w.Path, got, w.Extents)
		return
	}
	h := sha256.New()
	for k, e := range got {
		if e != w.Extents[k] {
			t.Errorf("%s: extent %v, want %v", w.Path, e, w.Extents[k])
		}
		raw := make([]byte, e.Length)
		if n, err := i.ReadRaw(raw, e.Logical); n != len(raw) {
			t.Errorf("%s: %v", w.Path, err)
			return
		}
		if fs.Name == "ext4-on-crypt" {
			// The manifest tells what lies on the disk, encrypted once more by a target that
			// moves nothing.
			if _, err := below.ReadAt(raw, e.Physical); err != nil {
				t.Fatal(err)
			}
		}
		h.Write(raw)
	}
	if s := hex.EncodeToString(h.Sum(nil)); s != w.CipherSHA256 {
		t.Errorf("%s: ciphertext has sha256 %s, want %s", w.Path, s, w.CipherSHA256)
	}
}
