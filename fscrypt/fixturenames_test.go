package fscrypt_test

import (
	"path"
	"testing"

	"keyway/fscrypt"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// Every name and target is encrypted to what the kernel lists without the key, and
// back.
func sameAsLinuxNames(t *testing.T, all []*volume) {
	var names, nested, targets int
	for _, v := range all {
		entries := map[string]string{} // path to no-key name
		for _, f := range v.Files {
			entries[f.Path] = f.NoKeyName
		}
		for _, l := range v.Symlinks {
			entries[l.Path] = l.NoKeyName
		}
		for p, shown := range entries {
			d := v.directory(t, p)
			if path.Dir(p) == d.Path {
				names++
				if ok, got := check(t, v.names(t, d, d.Inode, [16]byte(fixtures.Hex(d.Nonce))), path.Base(p), shown); !ok {
					t.Errorf("%s/%s: %s, want %s", v.Name, p, got, shown)
				}
			} else if v.image != nil && d.Flags&0x18 == 0 {
				// The manifest does not tell the directory's nonce: it is one of those there.
				nested++
				if !v.some(t, d, func(n *fscrypt.Names) bool { ok, _ := check(t, n, path.Base(p), shown); return ok }) {
					t.Errorf("%s/%s: no context there makes %s", v.Name, p, shown)
				}
			}
		}
		for _, l := range v.Symlinks {
			d := v.directory(t, l.Path)
			try := func(n *fscrypt.Names) bool { return checkTarget(t, n, l.Target, l.NoKeyTarget) }
			if d.Flags&0x18 != 0 { // no nonce in them
				targets++
				if !try(v.names(t, d, l.Inode, [16]byte{})) {
					t.Errorf("%s/%s: another target than %s", v.Name, l.Path, l.NoKeyTarget)
				}
			} else if v.image != nil {
				targets++
				if !v.some(t, d, try) {
					t.Errorf("%s/%s: no context there makes %s", v.Name, l.Path, l.NoKeyTarget)
				}
			}
		}
	}
	if names != 735 || nested != 34 || targets != 92 {
		t.Errorf("%d names, %d in subdirectories and %d targets, want 735, 34 and 92", names, nested, targets)
	}
}

// some reports whether f holds with one of the contexts of d's policy in the image.
func (v *volume) some(t *testing.T, d fsimages.Directory, f func(*fscrypt.Names) bool) bool {
	t.Helper()
	for _, c := range v.contexts(t, d) {
		file, err := fscrypt.Open(v.key(d), v.fs, c, 1)
		if err != nil {
			t.Fatal(err)
		}
		n, err := file.Names()
		if err != nil {
			t.Fatal(err)
		}
		ok := f(n)
		n.Wipe()
		if ok {
			return true
		}
	}
	return false
}

// check encrypts name, and compares with what is shown without the key. The hashes
// in it are the file system's, and taken as they are.
func check(t *testing.T, n *fscrypt.Names, name, shown string) (ok bool, got string) {
	t.Helper()
	encrypted, err := n.Encrypt([]byte(name))
	if err != nil {
		t.Fatal(err)
	}
	want, err := fscrypt.ParseNoKey(shown)
	if err != nil {
		t.Fatal(err)
	}
	made, err := fscrypt.NoKey(want.Hash, want.MinorHash, encrypted)
	if err != nil {
		t.Fatal(err)
	}
	if got = made.String(); got != shown {
		return false, got
	}
	if !want.Matches(encrypted) {
		t.Errorf("%s does not match what it stands for", shown)
	}
	encrypted[len(encrypted)-1]++
	if want.Matches(encrypted) {
		t.Errorf("%s matches something else", shown)
	}
	encrypted[len(encrypted)-1]--
	if back, err := n.Decrypt(encrypted); err != nil || string(back) != name {
		t.Errorf("%s is decrypted to %q (%v), want %q", shown, back, err, name)
	}
	return true, got
}

func checkTarget(t *testing.T, n *fscrypt.Names, target, shown string) bool {
	t.Helper()
	data, err := n.EncryptTarget([]byte(target))
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := fscrypt.EncryptedTarget(data)
	if err != nil {
		t.Fatal(err)
	}
	made, err := fscrypt.NoKey(0, 0, encrypted)
	if err != nil {
		t.Fatal(err)
	}
	if made.String() != shown {
		return false
	}
	if back, err := n.DecryptTarget(data); err != nil || string(back) != target {
		t.Errorf("%s is decrypted to %q (%v), want %q", shown, back, err, target)
	}
	return true
}
