package luks_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyway/dm/target"
	"keyway/internal/dmtest"
	"keyway/luks"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// readDisk reads the header of a fixture.
func readDisk(t *testing.T, d *fixtures.LUKSDisk, p luks.Policy) (h *luks.Header, header, data []byte, err error) {
	t.Helper()
	header, data = d.Devices(t)
	o := luks.Options{Policy: p}
	if d.Header != nil {
		o.Data = int64(len(data))
	}
	h, err = luks.Read(bytes.NewReader(header), int64(len(header)), o)
	return h, header, data, err
}

// TestFixtures opens every disk that cryptsetup and qemu-img made, with every key, and reads what they wrote wherever the crypt target has the
// cipher (dm-fscrypt.md, invariant 71).
func TestFixtures(t *testing.T) {
	opened, read := 0, 0
	for _, d := range fixtures.LUKS(t) {
		t.Run(d.Name, func(t *testing.T) {
			for _, p := range []luks.Policy{luks.Permissive, luks.Strict} {
				h, header, data, err := readDisk(t, d, p)
				if d.Expect == "refuse" {
					if err == nil {
						t.Fatalf("%v: opened, and both copies are damaged", p)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%v: %v", p, err)
				}
				if p == luks.Strict {
					continue // it reads them: opening is the same
				}
				for _, slot := range d.SlotNumbers() {
					v, err := h.Open(context.Background(), bytes.NewReader(header), d.Key(slot), luks.AnySlot)
					switch {
					case d.Expect == "wrong-key":
						if !errors.Is(err, luks.ErrPassphrase) {
							t.Fatalf("slot %d: %v, want a wrong passphrase", slot, err)
						}
						continue
					case err != nil:
						t.Fatalf("slot %d: %v", slot, err)
					}
					opened++
					if v.Slot != slot {
						t.Errorf("slot %d opened, want %d", v.Slot, slot)
					}
					// Of the disk under reencryption the manifest tells the new key.
					if want := d.VolumeKeyHex; want != "" && d.Name != "luks2-reencrypting" && hex.EncodeToString(v.Key.Bytes()) != want {
						t.Errorf("slot %d opens to another key", slot)
					}
					if readThrough(t, d, h, v, data) {
						read++
					}
					v.Key.Wipe()
				}
			}
		})
	}
	if opened < 24 || read < 18 {
		t.Errorf("%d times opened and %d times read, want at least 24 and 18", opened, read)
	}
}

// readThrough reads the regions through the crypt target, if it has the cipher.
func readThrough(t *testing.T, d *fixtures.LUKSDisk, h *luks.Header, v *luks.Volume, data []byte) bool {
	t.Helper()
	ref := fmt.Sprintf(":%d:logon:k", v.Key.Len())
	table, err := h.Table(v, "disk", int64(len(data)), ref)
	if d.Expect == "read-or-refuse" {
		if err == nil {
			t.Errorf("table %q, want a refusal: it would read wrong data", table)
		}
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if d.Table != "" {
		// cryptsetup's, with names of ours in the place of its key and its loop device.
		w := strings.Fields(d.Table)
		w[4], w[6] = ref, "disk"
		if got, want := strings.TrimSpace(table), strings.Join(w, " "); got != want {
			t.Errorf("table %q, cryptsetup made %q", got, want)
		}
	}
	if _, err := target.ModeOf("crypt", h.Segments[0].Encryption, v.Key.Len()); err != nil {
		t.Logf("not read: %v", err)
		return false
	}
	w := dmtest.New(t)
	w.Disk("disk", int64(len(data)), 0).Set(data)
	w.AddKey("k", v.Key.Bytes())
	dev := w.Map("plain", table)
	if n := dev.Info().Size; n != d.PayloadSize {
		t.Errorf("the payload has %d bytes, want %d", n, d.PayloadSize)
	}
	for _, r := range d.Regions {
		if got := fixtures.SumHex(dmtest.Read(t, dev, r.Offset, r.Length)); got != r.PlainSHA256 {
			t.Errorf("region at %d reads as sha256 %s, want %s", r.Offset, got, r.PlainSHA256)
		}
	}
	return true
}

func TestWrongPassphraseAndSlot(t *testing.T) {
	for _, d := range fixtures.LUKS(t) {
		if d.Name != "luks2-slots-tokens" && d.Name != "luks1-xts512" {
			continue
		}
		h, header, _, err := readDisk(t, d, luks.Strict)
		if err != nil {
			t.Fatal(err)
		}
		slots := d.SlotNumbers()
		first, last := slots[0], slots[len(slots)-1]
		r := bytes.NewReader(header)
		for _, p := range []string{"", "x", string(d.Key(first)) + "\n", string(d.Key(first))[1:]} {
			if v, err := h.Open(context.Background(), r, []byte(p), luks.AnySlot); !errors.Is(err, luks.ErrPassphrase) {
				t.Errorf("%s: a wrong passphrase of %d bytes: %v, %v", d.Name, len(p), v, err)
			}
		}
		if _, err := h.Open(context.Background(), r, d.Key(first), last); !errors.Is(err, luks.ErrPassphrase) {
			t.Errorf("%s: slot %d with the passphrase of %d: %v", d.Name, last, first, err)
		}
		if _, err := h.Open(context.Background(), r, d.Key(first), 31); err == nil || errors.Is(err, luks.ErrPassphrase) {
			t.Errorf("%s: a slot that is not in use: %v", d.Name, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := h.Open(ctx, r, d.Key(first), luks.AnySlot); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: with an ended context: %v", d.Name, err)
		}
	}
}

// TestObstacles: what a writer must know shows, and only where it is.
func TestObstacles(t *testing.T) {
	for _, d := range fixtures.LUKS(t) {
		h, _, _, err := readDisk(t, d, luks.Permissive)
		if err != nil {
			continue
		}
		want := d.Name == "luks2-reencrypting"
		if got := h.Writable(); (got != nil) != want {
			t.Errorf("%s: writable: %v", d.Name, got)
		} else if want && len(h.Obstacles()) != 4 {
			t.Errorf("%s: obstacles %q, want the requirement, the keyslot and two segments", d.Name, h.Obstacles())
		}
	}
}

// TestDumpIsCryptsetups: the JSON is the same, byte for byte.
func TestDumpIsCryptsetups(t *testing.T) {
	harness.Need(t, "cryptsetup")
	n := 0
	for _, d := range fixtures.LUKS(t) {
		h, header, _, err := readDisk(t, d, luks.Permissive)
		// cryptsetup would repair a damaged copy of what it only prints.
		if err != nil || d.Type != "luks2" {
			continue
		}
		n++
		file := filepath.Join(t.TempDir(), "header")
		if err := os.WriteFile(file, header, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("cryptsetup", "luksDump", "--dump-json-metadata", "--disable-locks", file)
		want, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		if got := h.Metadata(); !bytes.Equal(got, bytes.TrimRight(want, "\n")) {
			t.Errorf("%s: metadata\n%s\ncryptsetup prints\n%s", d.Name, got, want)
		}
	}
	if n < 14 {
		t.Errorf("%d headers compared, want at least 14", n)
	}
}
