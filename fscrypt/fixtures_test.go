package fscrypt_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/dmcrypt"
	"keyway/fscrypt"
	"keyway/internal/cipher"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// volume is a file system of the fixtures with the keys of its directories.
type volume struct {
	*fsimages.FileSystem
	fs     fscrypt.FileSystem
	second *dmcrypt.Cipher // what encrypts the file system again; nil: nothing
	image  []byte          // of the file system, where it is one disk
	master map[string]*fscrypt.MasterKey
	notes  map[fscrypt.Policy][]fscrypt.Context // contexts in the image
}

func volumes(t *testing.T) (all []*volume) {
	t.Helper()
	for _, kind := range []string{"ext4", "f2fs"} {
		for _, f := range fsimages.All(t, kind) {
			all = append(all, open(t, f))
		}
	}
	if len(all) != 6 {
		t.Fatalf("%d file systems, want 6", len(all))
	}
	return all
}

func open(t *testing.T, f *fsimages.FileSystem) *volume {
	v := &volume{FileSystem: f, master: map[string]*fscrypt.MasterKey{}, notes: map[fscrypt.Policy][]fscrypt.Context{}}
	if len(f.Tables) == 0 {
		v.image = f.Disk(t, "a")
	}
	if len(f.Tables) == 1 && strings.Contains(f.Tables[0].Table, " crypt ") {
		words := strings.Fields(f.Tables[0].Table)
		spec, err := dmcrypt.Parse(words[3])
		if err != nil {
			t.Fatal(err)
		}
		if v.second, err = dmcrypt.New(spec, dmcrypt.Options{SectorSize: 4096}, fixtures.Hex(words[4])); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(v.second.Wipe)
		v.image = f.Disk(t, "a")
		v.second.Decrypt(v.image, v.image, 0)
	}
	block := 4096
	if f.Name == "ext4-1k" {
		block = 1024
	}
	var uuid [16]byte
	if f.UUIDHex != "" {
		uuid = [16]byte(fixtures.Hex(f.UUIDHex))
	} else {
		uuid = [16]byte(v.image[1024+104:]) // s_uuid of the superblock
	}
	v.fs = fscrypt.Ext4(uuid, block, true)
	if f.Filesystem == "f2fs" {
		v.fs = fscrypt.F2FS(uuid, block)
	}
	for _, d := range f.Directories {
		if v.key(d) != nil {
			continue
		}
		m, err := fscrypt.NewMasterKey(fixtures.Hex(d.MasterKey))
		if d.PolicyVersion == 1 { // added under a descriptor of its own
			m, err = fscrypt.NewMasterKeyAs(fixtures.Hex(d.MasterKey), [8]byte(fixtures.Hex(d.Descriptor)))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Wipe)
		v.master[d.MasterKey+d.Descriptor] = m
	}
	return v
}

func (v *volume) key(d fsimages.Directory) *fscrypt.MasterKey {
	return v.master[d.MasterKey+d.Descriptor]
}

// policy is that of a directory, put together from the manifest.
func policy(d fsimages.Directory) fscrypt.Policy {
	p := fscrypt.Policy{
		Version: d.PolicyVersion, Contents: fscrypt.Mode(d.ContentsMode), Names: fscrypt.Mode(d.NamesMode),
		Flags: fscrypt.Flags(d.Flags), Log2DataUnit: uint8(d.Log2DataUnitSize),
	}
	if p.Version == 1 {
		p.Key = fscrypt.DescriptorSpec([8]byte(fixtures.Hex(d.Descriptor)))
	} else {
		p.Key = fscrypt.IdentifierSpec([16]byte(fixtures.Hex(d.Identifier)))
	}
	return p
}

func (v *volume) directory(t *testing.T, name string) fsimages.Directory {
	t.Helper()
	top, _, _ := strings.Cut(name, "/")
	for _, d := range v.Directories {
		if d.Path == top {
			return d
		}
	}
	t.Fatalf("%s has no directory %s", v.Name, top)
	panic("unreachable")
}

// file opens an inode below directory d.
func (v *volume) file(t *testing.T, d fsimages.Directory, inode uint32, nonce [16]byte) *fscrypt.File {
	t.Helper()
	f, err := fscrypt.Open(v.key(d), v.fs, fscrypt.Context{Policy: policy(d), Nonce: nonce}, uint64(inode))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (v *volume) names(t *testing.T, d fsimages.Directory, inode uint32, nonce [16]byte) *fscrypt.Names {
	t.Helper()
	n, err := v.file(t, d, inode, nonce).Names()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Wipe)
	return n
}

// contexts finds in the image everything that is a context of d's policy: its
// bytes are there as the kernel wrote them, in inodes, in no order.
func (v *volume) contexts(t *testing.T, d fsimages.Directory) []fscrypt.Context {
	p := policy(d)
	if found, ok := v.notes[p]; ok {
		return found
	}
	size := fscrypt.ContextV2Size
	if p.Version == 1 {
		size = fscrypt.ContextV1Size
	}
	head := fscrypt.Context{Policy: p}.Bytes()[:size-fscrypt.NonceSize]
	seen := map[fscrypt.Context]bool{}
	v.notes[p] = nil
	for at := 0; ; {
		i := bytes.Index(v.image[at:], head)
		if i < 0 {
			break
		}
		at += i
		c, err := fscrypt.ParseContext(v.image[at:][:size])
		if err != nil {
			t.Fatal(err)
		}
		if c.Policy != p {
			t.Fatalf("%s: read %v, want %v", v.Name, c.Policy, p)
		}
		if !seen[c] {
			seen[c] = true
			v.notes[p] = append(v.notes[p], c)
		}
		at += size
	}
	return v.notes[p]
}

// TestSameAsLinux makes of every manifest's keys, nonces and names what the kernel made.
func TestSameAsLinux(t *testing.T) {
	all := volumes(t)
	t.Run("keys and policies", func(t *testing.T) { sameAsLinuxKeysAndPolicies(t, all) })
	t.Run("contents", func(t *testing.T) { sameAsLinuxContents(t, all) })
	t.Run("names", func(t *testing.T) { sameAsLinuxNames(t, all) })
}

func sameAsLinuxKeysAndPolicies(t *testing.T, all []*volume) {
	n := 0
	for _, v := range all {
		for _, d := range v.Directories {
			n++
			m, p := v.key(d), policy(d)
			if !m.Is(p.Key) {
				t.Errorf("%s/%s: %v is not %v", v.Name, d.Path, m, p.Key)
			}
			if err := p.CheckOn(v.fs); err != nil {
				t.Errorf("%s/%s: %v", v.Name, d.Path, err)
			}
			if p.Contents.String() != d.ContentsModeNamed || p.Names.String() != d.NamesModeNamed {
				t.Errorf("%s/%s: modes %v and %v, want %s and %s", v.Name, d.Path, p.Contents, p.Names, d.ContentsModeNamed, d.NamesModeNamed)
			}
			back, err := fscrypt.ParsePolicy(p.Bytes())
			if err != nil || back != p {
				t.Errorf("%s/%s: policy is read as %v (%v), want %v", v.Name, d.Path, back, err, p)
			}
			if v.image != nil {
				own := fscrypt.Context{Policy: p, Nonce: [16]byte(fixtures.Hex(d.Nonce))}
				found := false
				for _, c := range v.contexts(t, d) {
					found = found || c == own
				}
				if !found {
					t.Errorf("%s/%s: no context of the directory among %d", v.Name, d.Path, len(v.notes[p]))
				}
			}
		}
	}
	if n != 49 {
		t.Errorf("%d directories, want 49", n)
	}
}

// Every file's contents encrypted anew are what the kernel wrote.
func sameAsLinuxContents(t *testing.T, all []*volume) {
	files, bytesSeen := 0, int64(0)
	for _, v := range all {
		keys := map[fscrypt.KeyID]*softKey{}
		for _, file := range v.Files {
			files++
			d := v.directory(t, file.Path)
			f := v.file(t, d, file.Inode, [16]byte(fixtures.Hex(file.Nonce)))
			if got, want := f.KeyID().PerFile(), d.Flags&^3 == 0; got != want {
				t.Errorf("%s/%s: key per file %v, want %v", v.Name, file.Path, got, want)
			}
			k := keys[f.KeyID()]
			if k == nil {
				k = newSoftKey(t, f)
				keys[f.KeyID()] = k
			}
			if k.Config() != f.Config() {
				t.Fatalf("%s/%s: a key with config %v is shared by %v", v.Name, file.Path, k.Config(), f.Config())
			}
			sum := sha256.New()
			for _, e := range file.Extents {
				plain, got := make([]byte, e.Length), make([]byte, e.Length)
				for _, p := range file.Pieces {
					if from, to := max(p.Offset, e.Logical), min(p.Offset+int64(p.Length), e.Logical+e.Length); from < to {
						copy(plain[from-e.Logical:], p.Plain()[from-p.Offset:to-p.Offset])
					}
				}
				k.encrypt(t, f, got, plain, e.Logical)
				if v.image != nil && !bytes.Equal(got, v.image[e.Physical:][:e.Length]) {
					t.Errorf("%s/%s: at %d: ciphertext %x..., the kernel's %x...", v.Name, file.Path, e.Logical, got[:16], v.image[e.Physical:][:16])
				}
				if v.second != nil {
					v.second.Encrypt(got, got, uint64(e.Physical/512))
				}
				sum.Write(got)
				bytesSeen += e.Length
			}
			if got := hex.EncodeToString(sum.Sum(nil)); got != file.CipherSHA256 {
				t.Errorf("%s/%s: ciphertext has sha256 %s, want %s", v.Name, file.Path, got, file.CipherSHA256)
			}
		}
		for _, k := range keys {
			k.Wipe()
		}
	}
	if files != 686 || bytesSeen < 5<<20 {
		t.Errorf("%d files with %d bytes, want 686 with 5 MiB", files, bytesSeen)
	}
}

// softKey is a key of contents with the software cipher of its mode.
type softKey struct {
	*blkcrypto.Key
	cipher.Cipher
}

func newSoftKey(t *testing.T, f *fscrypt.File) *softKey {
	t.Helper()
	k, err := f.NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	s := &softKey{Key: k}
	if err := k.Program(nil, func(b []byte) error {
		s.Cipher, err = cipher.New(k.Config().Mode, k.Config().DataUnitSize, b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// encrypt cuts the data where numbers are not consecutive, as requests are.
func (k *softKey) encrypt(t *testing.T, f *fscrypt.File, dst, src []byte, off int64) {
	t.Helper()
	for len(src) > 0 {
		n := f.Contiguous(off, int64(len(src)))
		dun, err := f.DUN(off)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Config().Fits(dun, uint64(n)>>k.Config().UnitShift()) {
			t.Fatalf("numbers from %x on do not fit %v", dun, k.Config())
		}
		k.Cipher.Encrypt(dst[:n], src[:n], dun)
		dst, src, off = dst[n:], src[n:], off+n
	}
}
