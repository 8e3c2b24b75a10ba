package luks_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"keyway/luks"
)

// check holds of every header that is taken: all lies within bounds, and what is
// printed says the same again.
func check(t *testing.T, h *luks.Header, size int64) {
	t.Helper()
	for _, k := range h.Keyslots {
		if k.Area.Offset < 0 || k.Area.Size < 0 || k.Area.Offset+k.Area.Size > size || k.KeySize <= 0 || k.ID < 0 || k.ID > 31 {
			t.Fatalf("keyslot %+v of a device of %d bytes", k, size)
		}
	}
	for _, s := range h.Segments {
		if s.Offset < 0 || s.SectorSize < 512 || s.Size == 0 || s.Size < -1 {
			t.Fatalf("segment %+v", s)
		}
	}
	if !json.Valid(h.Metadata()) {
		t.Fatalf("metadata %q", h.Metadata())
	}
	h.Text()
	h.Obstacles()
	v := &luks.Volume{}
	if table, err := h.Table(v, "x", size, ":64:logon:k"); err == nil && table == "" {
		t.Fatal("a table without rows")
	}
}

// FuzzMetadata parses any JSON in an otherwise good LUKS2 header.
func FuzzMetadata(f *testing.F) {
	dev := disk(f, "luks2-argon2id").Image.Bytes(f)
	for _, name := range []string{"luks2-argon2id", "luks2-adiantum", "luks2-reencrypting", "luks2-integrity", "luks2-pbkdf2-and-argon"} {
		f.Add([]byte(compact(f, disk(f, name).Image.Bytes(f))))
	}
	dev = dev[:600<<10] // both copies, and the keyslots
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) >= copySize-4096 {
			return
		}
		d := withJSON(dev, string(text))
		if h, err := luks.Read(bytes.NewReader(d), int64(len(d)), luks.Options{Data: 2 << 20}); err == nil {
			check(t, h, int64(len(d)))
		}
	})
}

// FuzzBinary parses any first bytes: headers of LUKS1 and the binary ones of LUKS2,
// whose checksum is made good.
func FuzzBinary(f *testing.F) {
	dev := disk(f, "luks2-argon2id").Image.Bytes(f)[:600<<10]
	f.Add(dev[:512], true)
	f.Add(dev[:512], false)
	for _, name := range []string{"luks1-xts512", "luks1-cbc-essiv-sha1", "qemu-default"} {
		f.Add(disk(f, name).Image.Bytes(f)[:592], false)
	}
	f.Fuzz(func(t *testing.T, head []byte, sealed bool) {
		d := bytes.Clone(dev)
		clear(d[copySize:][:4096]) // no second copy comes to help
		copy(d[:4096], head)
		if sealed {
			seal(d[:copySize])
		}
		for _, o := range []luks.Options{{}, {Policy: luks.Strict}, {Data: 1 << 20}} {
			if h, err := luks.Read(bytes.NewReader(d), int64(len(d)), o); err == nil {
				check(t, h, int64(len(d)))
			}
		}
	})
}
