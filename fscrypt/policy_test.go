package fscrypt_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"keyway/fscrypt"
)

// good returns a policy that every file system of the tests takes.
func good(version int) fscrypt.Policy {
	p := fscrypt.Policy{Version: version, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Flags: 3}
	p.Key = fscrypt.IdentifierSpec([16]byte(counting(1, 16)))
	if version == 1 {
		p.Key = fscrypt.DescriptorSpec([8]byte(counting(1, 8)))
	}
	return p
}

// The structures of the kernel's headers, byte by byte.
func TestPoliciesAndContextsOnDisk(t *testing.T) {
	nonce := counting(0xa0, 16)
	p2 := good(2)
	p2.Flags, p2.Log2DataUnit, p2.Names = 0x0b, 12, fscrypt.AES256HCTR2
	for _, c := range []struct {
		p               fscrypt.Policy
		policy, context []byte
	}{
		{good(1), append([]byte{0, 1, 4, 3}, counting(1, 8)...), append([]byte{1, 1, 4, 3}, counting(1, 8)...)},
		{p2, append([]byte{2, 1, 10, 0x0b, 12, 0, 0, 0}, counting(1, 16)...), append([]byte{2, 1, 10, 0x0b, 12, 0, 0, 0}, counting(1, 16)...)},
	} {
		if got, err := fscrypt.ParsePolicy(c.policy); err != nil || got != c.p {
			t.Errorf("%x is read as %v (%v), want %v", c.policy, got, err, c.p)
		}
		if got := c.p.Bytes(); !bytes.Equal(got, c.policy) {
			t.Errorf("%v is written as %x, want %x", c.p, got, c.policy)
		}
		stored := append(bytes.Clone(c.context), nonce...)
		want := fscrypt.Context{Policy: c.p, Nonce: [16]byte(nonce)}
		if got, err := fscrypt.ParseContext(stored); err != nil || got != want {
			t.Errorf("%x is read as %v (%v), want %v", stored, got, err, want)
		}
		if got := want.Bytes(); !bytes.Equal(got, stored) {
			t.Errorf("%v is written as %x, want %x", want, got, stored)
		}
		for n := range len(stored) + 2 {
			b := append(bytes.Clone(stored), 0)[:min(n, len(stored)+1)]
			if _, err := fscrypt.ParseContext(b); (err == nil) != (n == len(stored)) {
				t.Errorf("a context of %d bytes: %v", n, err)
			}
			if n <= len(c.policy)+1 {
				b := append(bytes.Clone(c.policy), 0)[:n]
				if _, err := fscrypt.ParsePolicy(b); (err == nil) != (n == len(c.policy)) {
					t.Errorf("a policy of %d bytes: %v", n, err)
				}
			}
		}
	}
	if got, want := p2.String(), "v2, contents AES-256-XTS, names AES-256-HCTR2 padded to 32, IV_INO_LBLK_64, 4096-byte data units, key 0102030405060708090a0b0c0d0e0f10"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What the kernel refuses when a policy is set, by the field at fault.
func TestPoliciesRefused(t *testing.T) {
	ext := ext4()
	unstable, whole, long := ext, ext, ext
	unstable.StableInodes, whole.SubBlockUnits, long.ShortInodes = false, false, false
	large := ext
	large.MaxFileSize = 1 << 45
	f2fs := fscrypt.F2FS(ext.UUID, 4096)
	small := fscrypt.Ext4(ext.UUID, 1024, true)
	for _, c := range []struct {
		name    string
		version int
		change  func(p *fscrypt.Policy)
		fs      fscrypt.FileSystem
		field   string // "": taken
	}{
		{"v1", 1, func(p *fscrypt.Policy) {}, ext, ""},
		{"v2", 2, func(p *fscrypt.Policy) {}, ext, ""},
		{"version 3", 3, func(p *fscrypt.Policy) {}, ext, "version"},
		{"a key of another version", 2, func(p *fscrypt.Policy) { p.Key.Version = 1 }, ext, "master_key_identifier"},
		{"a long descriptor", 1, func(p *fscrypt.Policy) { p.Key.ID[8] = 1 }, ext, "master_key_descriptor"},

		{"v1 5,6", 1, func(p *fscrypt.Policy) { p.Contents, p.Names = 5, 6 }, ext, ""},
		{"v1 9,9", 1, func(p *fscrypt.Policy) { p.Contents, p.Names = 9, 9 }, ext, ""},
		{"v1 1,10", 1, func(p *fscrypt.Policy) { p.Names = 10 }, ext, "filenames_encryption_mode"},
		{"v1 7,8", 1, func(p *fscrypt.Policy) { p.Contents, p.Names = 7, 8 }, ext, "filenames_encryption_mode"},
		{"v2 1,10", 2, func(p *fscrypt.Policy) { p.Names = 10 }, ext, ""},
		{"v2 7,8", 2, func(p *fscrypt.Policy) { p.Contents, p.Names = 7, 8 }, ext, ""},
		{"9,4", 2, func(p *fscrypt.Policy) { p.Contents = 9 }, ext, "filenames_encryption_mode"},
		{"1,9", 2, func(p *fscrypt.Policy) { p.Names = 9 }, ext, "filenames_encryption_mode"},
		{"5,4", 2, func(p *fscrypt.Policy) { p.Contents = 5 }, ext, "filenames_encryption_mode"},
		{"4,1", 2, func(p *fscrypt.Policy) { p.Contents, p.Names = 4, 1 }, ext, "contents_encryption_mode"},
		{"10,10", 2, func(p *fscrypt.Policy) { p.Contents, p.Names = 10, 10 }, ext, "contents_encryption_mode"},
		{"0,0", 2, func(p *fscrypt.Policy) { p.Contents, p.Names = 0, 0 }, ext, "contents_encryption_mode"},
		{"2,3 of old kernels", 1, func(p *fscrypt.Policy) { p.Contents, p.Names = 2, 3 }, ext, "contents_encryption_mode"},

		{"flag 0x20", 2, func(p *fscrypt.Policy) { p.Flags = 0x20 }, ext, "flags"},
		{"v1 IV_INO_LBLK_64", 1, func(p *fscrypt.Policy) { p.Flags = 8 }, ext, "flags"},
		{"v1 IV_INO_LBLK_32", 1, func(p *fscrypt.Policy) { p.Flags = 16 }, ext, "flags"},
		{"v1 DIRECT_KEY", 1, func(p *fscrypt.Policy) { p.Flags, p.Contents, p.Names = 4, 9, 9 }, ext, ""},
		{"v2 DIRECT_KEY", 2, func(p *fscrypt.Policy) { p.Flags, p.Contents, p.Names = 4, 9, 9 }, ext, ""},
		{"DIRECT_KEY, XTS", 2, func(p *fscrypt.Policy) { p.Flags = 4 }, ext, "flags"},
		{"DIRECT_KEY and IV_INO_LBLK_64", 2, func(p *fscrypt.Policy) { p.Flags, p.Contents, p.Names = 12, 9, 9 }, ext, "flags"},
		{"both IV_INO_LBLK", 2, func(p *fscrypt.Policy) { p.Flags = 24 }, ext, "flags"},
		{"all three", 2, func(p *fscrypt.Policy) { p.Flags = 28 }, ext, "flags"},
		{"IV_INO_LBLK_64, Adiantum", 2, func(p *fscrypt.Policy) { p.Flags, p.Contents, p.Names = 8, 9, 9 }, ext, "flags"},
		{"IV_INO_LBLK_32, SM4", 2, func(p *fscrypt.Policy) { p.Flags, p.Contents, p.Names = 16, 7, 8 }, ext, "flags"},
		{"IV_INO_LBLK_64, HCTR2", 2, func(p *fscrypt.Policy) { p.Flags, p.Names = 8, 10 }, ext, ""},
		{"IV_INO_LBLK_64", 2, func(p *fscrypt.Policy) { p.Flags = 8 }, ext, ""},
		{"IV_INO_LBLK_32", 2, func(p *fscrypt.Policy) { p.Flags = 16 }, ext, ""},
		{"IV_INO_LBLK_64, inodes renumbered", 2, func(p *fscrypt.Policy) { p.Flags = 8 }, unstable, "flags"},
		{"IV_INO_LBLK_32, long inodes", 2, func(p *fscrypt.Policy) { p.Flags = 16 }, long, "flags"},
		{"IV_INO_LBLK_64, large files", 2, func(p *fscrypt.Policy) { p.Flags = 8 }, large, "flags"},

		{"data units of 2^8", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 8 }, ext, "log2_data_unit_size"},
		{"data units of 512", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 9 }, ext, ""},
		{"data units of a block", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 12 }, ext, ""},
		{"data units of two blocks", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 13 }, ext, "log2_data_unit_size"},
		{"data units of four small blocks", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 12 }, small, "log2_data_unit_size"},
		{"data units of 2^17", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 17 }, ext, "log2_data_unit_size"},
		{"v1 data units", 1, func(p *fscrypt.Policy) { p.Log2DataUnit = 12 }, ext, "log2_data_unit_size"},
		{"data units, file system without", 2, func(p *fscrypt.Policy) { p.Log2DataUnit = 12 }, whole, "log2_data_unit_size"},
		{"IV_INO_LBLK_32, small data units", 2, func(p *fscrypt.Policy) { p.Flags, p.Log2DataUnit = 16, 10 }, f2fs, "log2_data_unit_size"},
		{"IV_INO_LBLK_32, whole data units", 2, func(p *fscrypt.Policy) { p.Flags, p.Log2DataUnit = 16, 12 }, f2fs, ""},
		{"IV_INO_LBLK_64, small data units, ext4", 2, func(p *fscrypt.Policy) { p.Flags, p.Log2DataUnit = 8, 10 }, ext, "flags"},
		{"IV_INO_LBLK_64, small data units, f2fs", 2, func(p *fscrypt.Policy) { p.Flags, p.Log2DataUnit = 8, 10 }, f2fs, ""},
		{"IV_INO_LBLK_64, too small data units, f2fs", 2, func(p *fscrypt.Policy) { p.Flags, p.Log2DataUnit = 8, 9 }, f2fs, "flags"},
	} {
		p := good(c.version)
		c.change(&p)
		err := p.CheckOn(c.fs)
		var field *fscrypt.FieldError
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.field != "" && (!errors.As(err, &field) || field.Field != c.field):
			t.Errorf("%s: %v, want an error of %s", c.name, err, c.field)
		case c.field != "" && !strings.Contains(err.Error(), c.field):
			t.Errorf("%s: %q does not name the field", c.name, err)
		}
		if p.Check() != nil && err == nil {
			t.Errorf("%s: refused everywhere, and taken here", c.name)
		}
	}
	if good(1).CheckCasefold() == nil || good(2).CheckCasefold() != nil {
		t.Error("casefolded directories need v2 policies, and nothing else")
	}
}

// Bytes that the parsers refuse, by field.
func TestParsersNameTheField(t *testing.T) {
	v2 := fscrypt.Context{Policy: good(2)}.Bytes()
	v1 := fscrypt.Context{Policy: good(1)}.Bytes()
	for _, c := range []struct {
		b     []byte
		at    int
		value byte
		field string
	}{
		{v2, 0, 0, "version"}, {v2, 0, 3, "version"}, {v2, 0, 1, ""}, {v1, 0, 2, ""}, {v1, 0, 0, "version"},
		{v2, 1, 2, "contents_encryption_mode"}, {v2, 2, 6, "filenames_encryption_mode"}, {v2, 3, 0x40, "flags"},
		{v2, 4, 8, "log2_data_unit_size"}, {v2, 5, 1, "__reserved"}, {v2, 6, 1, "__reserved"}, {v2, 7, 0x80, "__reserved"},
		{v1, 3, 8, "flags"}, {v1, 2, 10, "filenames_encryption_mode"},
	} {
		b := bytes.Clone(c.b)
		b[c.at] = c.value
		var field *fscrypt.FieldError
		if _, err := fscrypt.ParseContext(b); !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("byte %d is %d: %v, want an error of %q", c.at, c.value, err, c.field)
		}
	}
	if _, err := fscrypt.ParsePolicy(append([]byte{1}, v1[1:12]...)); err == nil {
		t.Error("a policy with the version of a context was taken")
	}
}

func TestFileSystemsThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		block int
		most  int64
		ok    bool
	}{
		{4096, 1 << 40, true}, {512, 512, true}, {65536, 1 << 62, true}, {0, 1 << 40, false}, {-4096, 1 << 40, false},
		{256, 1 << 40, false}, {131072, 1 << 40, false}, {3000, 1 << 40, false}, {4096, 0, false}, {4096, -1, false},
	} {
		err := good(2).CheckOn(fscrypt.FileSystem{BlockSize: c.block, MaxFileSize: c.most})
		if (err == nil) != c.ok {
			t.Errorf("blocks of %d bytes, files of %d: %v", c.block, c.most, err)
		}
	}
	// Inode numbers are part of the numbers of data units.
	m := master(t, counting(1, 64))
	if _, err := fscrypt.Open(m, ext4(), fscrypt.Context{Policy: v2(m, 1, 4, fscrypt.InoLblk64)}, 1<<32); err == nil {
		t.Error("an inode number of 33 bits was taken")
	}
	mustOpen(t, m, ext4(), v2(m, 1, 4, 0), 1, 1<<32)
}

func FuzzContext(f *testing.F) {
	f.Add(fscrypt.Context{Policy: good(1)}.Bytes())
	f.Add(fscrypt.Context{Policy: good(2)}.Bytes())
	f.Add(good(1).Bytes())
	f.Add(good(2).Bytes())
	fs := ext4()
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := fscrypt.ParseContext(b); err == nil {
			if !bytes.Equal(c.Bytes(), b) || c.Policy.Check() != nil || c.Policy.String() == "" {
				t.Fatalf("%x is read as %v, which is %x (%v)", b, c, c.Bytes(), c.Policy.Check())
			}
			c.Policy.CheckOn(fs)
		}
		if p, err := fscrypt.ParsePolicy(b); err == nil && (!bytes.Equal(p.Bytes(), b) || p.Check() != nil) {
			t.Fatalf("%x is read as %v, which is %x (%v)", b, p, p.Bytes(), p.Check())
		}
	})
}
