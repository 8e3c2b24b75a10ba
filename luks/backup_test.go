package luks_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/luks"
	"keyway/test/harness"
)

// TestBackupIsCryptsetups: files of equal bytes, and each restores the other's.
func TestBackupIsCryptsetups(t *testing.T) {
	harness.Need(t, "cryptsetup")
	ctx := context.Background()
	for _, o := range []luks.FormatOptions{small, {Version: 1, Key: cheap, KeySize: 64, Cipher: "aes-xts-plain64", DataOffset: 0}} {
		size := int64(2<<20) + 4096
		f := image(t, size)
		e, v, err := luks.Format(ctx, f, size, []byte("first"), o)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Key.Wipe()
		name := filepath.Join(t.TempDir(), "backup")
		cryptsetup(t, "luksHeaderBackup", f.Name(), "--header-backup-file", name)
		theirs, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var ours bytes.Buffer
		if err := e.Header().Backup(f, &ours); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours.Bytes(), theirs) {
			t.Errorf("LUKS%d: the backup has %d bytes, cryptsetup's %d, or other ones", e.Header().Version, ours.Len(), len(theirs))
		}
		mine := filepath.Join(t.TempDir(), "mine")
		if err := os.WriteFile(mine, ours.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, restore := range []func() error{
			func() error {
				_, err := luks.Restore(f, size, bytes.NewReader(theirs), int64(len(theirs)), luks.Options{}, false)
				return err
			},
			func() error { cryptsetup(t, "luksHeaderRestore", f.Name(), "--header-backup-file", mine); return nil },
		} {
			e, err := luks.Edit(f, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.ChangeKey(ctx, []byte("first"), []byte("later"), luks.AnySlot, cheap); err != nil {
				t.Fatal(err)
			}
			if err := restore(); err != nil {
				t.Fatal(err)
			}
			if err := testPassphrase(t, f, "first", 0); err != nil {
				t.Error(err)
			}
			if e, err = luks.Edit(f, size, luks.Options{}); err != nil {
				t.Fatal(err)
			}
			if _, err := opens(t, e, f, "later", luks.AnySlot); !errors.Is(err, luks.ErrPassphrase) {
				t.Errorf("the passphrase from after the backup: %v", err)
			}
		}
	}
}

// TestRestoreChecks what it would overwrite, and with what.
func TestRestoreChecks(t *testing.T) {
	ctx := context.Background()
	f, e, _ := volume(t, small)
	var b bytes.Buffer
	if err := e.Header().Backup(f, &b); err != nil {
		t.Fatal(err)
	}
	backup := b.Bytes()
	restore := func(m luks.Medium, size int64, backup []byte, force bool) error {
		_, err := luks.Restore(m, size, bytes.NewReader(backup), int64(len(backup)), luks.Options{}, force)
		return err
	}
	for _, c := range []struct {
		name string
		o    luks.FormatOptions
		want string
	}{
		{"other UUID", small, "UUID"},
		{"other version", luks.FormatOptions{Version: 1, Key: cheap, KeySize: 32, Align: 512}, "version"},
		{"other offset", luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1<<20 + 4096}, "data offset"},
		{"other metadata", luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1 << 20, MetadataSize: 32 << 10}, "size of a header copy"},
		{"other key size", luks.FormatOptions{Key: cheap, KeySize: 64, DataOffset: 1 << 20}, "key size"},
		{"other volume key", luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1 << 20, UUID: e.Header().UUID}, "volume key"},
		{"other sector size", luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1 << 20, SectorSize: 512}, "sector size"},
		{"other cipher", luks.FormatOptions{Key: cheap, KeySize: 32, DataOffset: 1 << 20, Cipher: "serpent-xts-plain64"}, "cipher"},
	} {
		other, _, _ := volume(t, c.o)
		before, err := os.ReadFile(other.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := restore(other, 2<<20, backup, false); !errors.Is(err, luks.ErrMismatch) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.name, err, c.want)
		}
		if after, _ := os.ReadFile(other.Name()); !bytes.Equal(before, after) {
			t.Errorf("%s: refused, and the device is changed", c.name)
		}
		if err := restore(other, 2<<20, backup, true); err != nil {
			t.Errorf("%s: with force: %v", c.name, err)
		}
		h, err := luks.Read(other, 2<<20, luks.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := h.Open(ctx, other, []byte("first"), 0); err != nil {
			t.Errorf("%s: restored: %v", c.name, err)
		} else {
			v.Key.Wipe()
		}
	}
	if err := restore(image(t, 2<<20), 2<<20, backup, false); !errors.Is(err, luks.ErrMismatch) {
		t.Errorf("no header: %v", err)
	}
	// Damaged backups are never written.
	for i, bad := range [][]byte{
		nil, backup[:4096], backup[:len(backup)-1], append(bytes.Clone(backup), 0),
		func() []byte { b := bytes.Clone(backup); b[copySize+5000] ^= 1; return b }(),
	} {
		if err := restore(f, 2<<20, bad, true); err == nil {
			t.Errorf("bad backup %d is restored", i)
		}
	}
	if err := restore(f, 1<<19, backup, true); err == nil || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("on a device that is too small: %v", err)
	}
	if err := restore(f, 2<<20, backup, false); err != nil {
		t.Errorf("its own backup: %v", err)
	}
}

// TestRestoreOfDetachedHeader: a header that was in a file of its own is not written
// over the data, whatever is forced.
func TestRestoreOfDetachedHeader(t *testing.T) {
	for _, version := range []int{1, 2} {
		o := luks.FormatOptions{Version: version, Key: cheap, KeySize: 32, Detached: true, DataSize: 32 << 20}
		n, err := o.HeaderSize()
		if err != nil {
			t.Fatal(err)
		}
		f := image(t, n)
		e, v, err := luks.Format(t.Context(), f, n, []byte("first"), o)
		if err != nil {
			t.Fatal(err)
		}
		v.Key.Wipe()
		var b bytes.Buffer
		if err := e.Header().Backup(f, &b); err != nil {
			t.Fatal(err)
		}
		data := image(t, 32<<20)
		if _, err := data.WriteAt([]byte("the only copy"), 0); err != nil {
			t.Fatal(err)
		}
		restore := func(m luks.Medium, size int64, o luks.Options, force bool) error {
			_, err := luks.Restore(m, size, bytes.NewReader(b.Bytes()), int64(b.Len()), o, force)
			return err
		}
		if err := restore(data, 32<<20, luks.Options{}, true); err == nil || !strings.Contains(err.Error(), "over the data") {
			t.Errorf("LUKS%d: over the data: %v", version, err)
		}
		got := make([]byte, 13)
		if _, err := data.ReadAt(got, 0); err != nil || string(got) != "the only copy" {
			t.Errorf("LUKS%d: the data is %q, %v", version, got, err)
		}
		if err := restore(f, n, luks.Options{Data: -1}, false); err != nil {
			t.Errorf("LUKS%d: to its own file: %v", version, err)
		}
	}
}
