package luks_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/block"
	"keyway/dmcrypt"
	"keyway/internal/dmtest"
	"keyway/luks"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// through maps a table over a disk and returns the device.
func through(t *testing.T, table string, disk []byte, v *luks.Volume) block.Device {
	t.Helper()
	w := dmtest.New(t)
	w.Disk("disk", int64(len(disk)), 0).Set(disk)
	w.AddKey("k", v.Key.Bytes())
	return w.Map("plain", table)
}

// TestExactSize: the payload has the size that was asked for, and header and payload
// one after the other are a volume for others.
func TestExactSize(t *testing.T) {
	harness.Need(t, "cryptsetup")
	ctx := context.Background()
	for _, data := range []int64{1 << 20, 1<<20 + 512, 3*4096 + 1024} {
		for _, version := range []int{1, 2} {
			o := luks.FormatOptions{Version: version, Key: cheap, KeySize: 32, Exact: true, DataSize: data}
			if version == 2 {
				o.KeyslotsSize = 512 << 10
			}
			n, err := o.HeaderSize()
			if err != nil {
				t.Fatal(err)
			}
			f := image(t, n)
			_, v, err := luks.Format(ctx, f, n, []byte("first"), o)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Key.Wipe()
			h, err := luks.Read(f, n, luks.Options{Exact: true, Data: data, Policy: luks.Strict})
			if err != nil {
				t.Fatal(err)
			}
			table, err := h.Table(v, "disk", data, ":32:logon:k")
			if err != nil {
				t.Fatal(err)
			}
			unit := ""
			if version == 2 && data%4096 == 0 {
				unit = " 1 sector_size:4096"
			}
			if want := fmt.Sprintf("0 %d crypt aes-xts-plain64 :32:logon:k 0 disk 0%s\n", data/512, unit); table != want {
				t.Errorf("table %q, want %q", table, want)
			}
			plain := fixtures.Pattern("mix", 7, int(data))
			payload := encrypted(t, h, v, plain)
			if got := dmtest.Read(t, through(t, table, payload, v), 0, int(data)); !bytes.Equal(got, plain) {
				t.Errorf("%d bytes of LUKS%d read as something else", data, version)
			}
			// The image of both.
			head, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			both := filepath.Join(t.TempDir(), "both")
			if err := os.WriteFile(both, append(head, payload...), 0o600); err != nil {
				t.Fatal(err)
			}
			cryptsetup(t, "open", "--test-passphrase", "--key-file", keyFile(t, "first"), both)
			img, err := os.Open(both)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := luks.Read(img, n+data, luks.Options{Policy: luks.Strict})
			img.Close()
			if err != nil {
				t.Fatal(err)
			}
			if table, err = whole.Table(v, "disk", n+data, ":32:logon:k"); err != nil || !strings.HasPrefix(table, fmt.Sprintf("0 %d crypt aes-xts-plain64 :32:logon:k 0 disk %d", data/512, n/512)) {
				t.Errorf("of the image: %q, %v", table, err)
			}
		}
	}
	// What cannot be exact is refused before anything is written.
	f := image(t, 1<<20)
	for _, o := range []luks.FormatOptions{
		{Exact: true, KeySize: 32, Key: cheap},
		{Exact: true, KeySize: 32, Key: cheap, DataSize: 513},
		{Exact: true, KeySize: 32, Key: cheap, DataSize: 4096 + 512, SectorSize: 4096},
		{Version: 1, Exact: true, KeySize: 16, Cipher: "aes-cbc-plain64", Key: cheap, DataSize: 513},
		{Exact: true, KeySize: 32, Key: cheap, DataSize: 4096, Detached: true},
		{Exact: true, KeySize: 32, Key: cheap, DataSize: 4096, DataOffset: 2 << 20},
	} {
		if _, _, err := luks.Format(ctx, f, 1<<20, []byte("x"), o); err == nil {
			t.Errorf("%+v is formatted", o)
		}
	}
	if b, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(b, make([]byte, 1<<20)) {
		t.Errorf("what was refused is changed: %v", err)
	}
}

// TestFormatLeavesData: a device that has no room for data, or for a part of a sector
// alone, is refused and kept, since the volume could not be opened.
func TestFormatLeavesData(t *testing.T) {
	for _, o := range []luks.FormatOptions{
		{Version: 1, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16, DataOffset: 1 << 20},
		{Version: 2, Key: cheap, KeySize: 32, DataOffset: 1 << 20},
		{Version: 1, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16, Detached: true, DataSize: 513},
		{Version: 2, Key: cheap, KeySize: 32, Detached: true, DataSize: 513},
	} {
		for _, size := range []int64{1 << 20, 1<<20 + 1, 1<<20 + 513} {
			if o.Detached {
				size = 16 << 20
			}
			f := image(t, size)
			if _, _, err := luks.Format(t.Context(), f, size, []byte("x"), o); err == nil || !strings.Contains(err.Error(), "data") {
				t.Errorf("LUKS%d on %d bytes, detached %v: %v", o.Version, size, o.Detached, err)
			}
			if there, err := luks.Probe(f, size); there != "" || err != nil {
				t.Errorf("it is refused, and then there is: %q, %v", there, err)
			}
		}
	}
}

// encrypted is what the payload of one segment has on disk.
func encrypted(t *testing.T, h *luks.Header, v *luks.Volume, plain []byte) []byte {
	t.Helper()
	s := h.Segments[0]
	spec, err := dmcrypt.Parse(s.Encryption)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dmcrypt.New(spec, dmcrypt.Options{SectorSize: s.SectorSize}, v.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	out := make([]byte, len(plain))
	c.Encrypt(out, plain, s.IVTweak)
	return out
}

// TestSeveralSegments: each is a row, on its place of the disk, with its IVs, cipher
// and sectors; what lies between them is not touched.
func TestSeveralSegments(t *testing.T) {
	f, _, v := volume(t, small)
	text := string(fixturesCompact(t, f))
	old := text[strings.Index(text, `"segments":`):strings.Index(text, `,"digests"`)]
	const segments = `"segments":{` +
		`"0":{"type":"crypt","offset":"1114112","size":"65536","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":512},` +
		`"1":{"type":"crypt","offset":"1048576","size":"16384","iv_tweak":"128","encryption":"aes-xts-plain64","sector_size":4096},` +
		`"2":{"type":"crypt","offset":"1310720","size":"dynamic","iv_tweak":"4294967290","encryption":"aes-cbc-essiv:sha256","sector_size":512}}`
	text = strings.Replace(text, old, segments, 1)
	text = strings.Replace(text, `"segments":["0"]`, `"segments":["0","1","2"]`, 1)
	dev, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	dev = withJSON(dev, text)
	h, err := luks.Read(bytes.NewReader(dev), int64(len(dev)), luks.Options{Policy: luks.Strict})
	if err != nil {
		t.Fatal(err)
	}
	table, err := h.Table(v, "disk", int64(len(dev)), ":32:logon:k")
	if err != nil {
		t.Fatal(err)
	}
	want := "0 128 crypt aes-xts-plain64 :32:logon:k 0 disk 2176\n" +
		"128 32 crypt aes-xts-plain64 :32:logon:k 128 disk 2048 1 sector_size:4096\n" +
		"160 1536 crypt aes-cbc-essiv:sha256 :32:logon:k 4294967290 disk 2560\n"
	if table != want {
		t.Fatalf("table\n%s\nwant\n%s", table, want)
	}
	// The disk is made with the ciphers alone, and read through the table.
	plain := fixtures.Pattern("tag", 3, (160+1536)*512)
	at := 0
	for i := range h.Segments {
		s := h.Segments[i]
		n := int(s.Size)
		if n < 0 {
			n = len(dev) - int(s.Offset)
		}
		one := *h
		one.Segments = h.Segments[i : i+1]
		copy(dev[s.Offset:], encrypted(t, &one, v, plain[at:at+n]))
		at += n
	}
	if got := dmtest.Read(t, through(t, table, dev, v), 0, len(plain)); !bytes.Equal(got, plain) {
		t.Error("the rows read as something else")
	}
}

// fixturesCompact is the metadata of an image as stored.
func fixturesCompact(t *testing.T, f *os.File) []byte {
	t.Helper()
	b := make([]byte, copySize-4096)
	if _, err := f.ReadAt(b, 4096); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimRight(b, "\x00")
}
