package oracle_test

import (
	"os"
	"path/filepath"
	"testing"

	"keyway/fscrypt"
	"keyway/internal/ext4"
	"keyway/test/fixtures"
	"keyway/test/oracle"
)

// A file system that the guest makes has the files, and the policies, that were
// asked for; what is in them is ciphertext that only the guest can read here.
func TestGuestMakesEncryptedFiles(t *testing.T) {
	oracle.Need(t)
	raw := fixtures.Pattern("mix", 1, 64)
	m, err := fscrypt.NewMasterKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Wipe()
	v1, _ := m.DescriptorSpec()
	policies := map[string]fscrypt.Policy{
		"xts":     {Version: 2, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Key: m.Spec()},
		"ino64":   {Version: 2, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Flags: fscrypt.InoLblk64, Key: m.Spec()},
		"v1-adi":  {Version: 1, Contents: fscrypt.Adiantum, Names: fscrypt.Adiantum, Flags: fscrypt.DirectKey, Key: v1},
		"cbc-128": {Version: 2, Contents: fscrypt.AES128CBCESSIV, Names: fscrypt.AES128CBCCTS, Key: m.Spec()},
	}
	l := oracle.Layout{
		Mkfs:     "-b 4096",
		Keys:     []oracle.Key{{Raw: raw}, {Raw: raw, Descriptor: v1.Bytes()}},
		Commands: []string{"mkdir plain; ln -s target plain/link"},
	}
	for name, p := range policies {
		l.Directories = append(l.Directories, oracle.Directory{Path: name, Policy: &p})
		l.Files = append(l.Files, oracle.File{Path: name + "/f", Len: 5000, Seed: 7}, oracle.File{Path: name + "/hole", Off: 8192, Len: 10, Seed: 8, Size: 100000})
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	oracle.Make(t, image, l)

	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fs, err := ext4.Open(file, 16<<20, ext4.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range policies {
		dir, err := fs.Lookup([]byte(name))
		if err != nil {
			t.Fatal(err)
		}
		files := map[int64]*ext4.Inode{} // by size
		for e, err := range dir.Entries() {
			if err != nil {
				t.Fatal(err)
			}
			i, err := fs.Open(e)
			if err != nil {
				t.Fatal(err)
			}
			files[i.Size] = i
			b, err := i.EncryptionContext()
			if err != nil {
				continue // ".."
			}
			if c, err := fscrypt.ParseContext(b); err != nil || c.Policy != p {
				t.Errorf("%s: the policy of inode %d is %v, %v; want %v", name, i.Number, c.Policy, err, p)
			}
		}
		if files[5000] == nil || files[100000] == nil {
			t.Errorf("%s: the files are not there", name)
			continue
		}
		got := make([]byte, 5000)
		if _, err := files[5000].ReadRaw(got, 0); err != nil {
			t.Fatal(err)
		}
		if string(got[:16]) == string(fixtures.Pattern("mix", 7, 16)) {
			t.Errorf("%s: the contents are not encrypted", name)
		}
	}
}
