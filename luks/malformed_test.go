package luks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/internal/race"
	"keyway/luks"
	"keyway/test/fixtures"
)

// disk returns a fixture.
func disk(t testing.TB, name string) *fixtures.LUKSDisk {
	t.Helper()
	for _, d := range fixtures.LUKS(t) {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no fixture %s", name)
	return nil
}

const copySize = 16 << 10 // of argon2id's header

// seal gives a copy of a header its checksum.
func seal(c []byte) {
	clear(c[448:512])
	sum := sha256.Sum256(c)
	copy(c[448:], sum[:])
}

// withJSON returns the device with other metadata in both copies.
func withJSON(dev []byte, text string) []byte {
	dev = bytes.Clone(dev)
	for at := 0; at <= copySize; at += copySize {
		c := dev[at:][:copySize]
		clear(c[4096:])
		copy(c[4096:], text)
		seal(c)
	}
	return dev
}

func read(dev []byte, p luks.Policy) (*luks.Header, error) {
	return luks.Read(bytes.NewReader(dev), int64(len(dev)), luks.Options{Policy: p})
}

// compact returns the metadata of the device without blanks.
func compact(t testing.TB, dev []byte) string {
	t.Helper()
	return string(bytes.TrimRight(dev[4096:copySize], "\x00"))
}

// TestMalformedMetadata: each rule of the format is broken once, in both copies and
// with good checksums; what the error names is the place.
func TestMalformedMetadata(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	good := compact(t, dev)
	if _, err := read(withJSON(dev, good), luks.Strict); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	kinds := map[string]bool{}
	for _, c := range []struct{ old, to, want string }{
		{`{"keyslots"`, ` {"keyslots"`, "does not begin with {"},
		{`{"keyslots"`, `{"keyslots":{},"keyslots"`, "same name"},
		{`{"keyslots"`, `{"slots"`, "metadata.keyslots: is missing"},
		{`"tokens":{}`, `"tokens":[]`, "metadata.tokens: is not an object"},
		{`"tokens":{}`, `"other":{}`, "metadata.tokens: is missing"},
		{`"segments":{"0"`, `"segment":{"0"`, "metadata.segments: is missing"},
		{`"digests":{"0"`, `"digest":{"0"`, "metadata.digests: is missing"},
		{`"config":{`, `"conf":{`, "metadata.config: is missing"},
		{`"tokens":{}`, `"tokens":{},"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40), "nested"},
		{`"tokens":{}`, `"tokens":{},"x":01`, "not one JSON object"},
		{`"tokens":{}`, `"tokens":{},`, "not one JSON object"},
		{`"tokens":{}`, `"tokens":{},"x":"` + "\xff" + `"`, "not UTF-8"},
		{`"tokens":{}`, `"tokens":{"0":{"keyslots":[]}}`, "tokens.0.type: is missing"},
		{`"tokens":{}`, `"tokens":{"0":{"type":"x"}}`, "tokens.0.keyslots: is missing"},
		{`"tokens":{}`, `"tokens":{"0":{"type":"x","keyslots":["9"]}}`, "tokens.0.keyslots[0]"},
		{`"tokens":{}`, `"tokens":{"0":{"type":"x","keyslots":[0]}}`, "tokens.0.keyslots[0]"},
		{`"tokens":{}`, `"tokens":{"0":{"type":"x","keyslots":["0","0"]}}`, "is there twice"},
		{`"tokens":{}`, `"tokens":{"32":{"type":"x","keyslots":[]}}`, "tokens.32"},
		{`"tokens":{}`, `"tokens":{"00":{"type":"x","keyslots":[]}}`, "tokens.00"},
		{`"tokens":{}`, `"tokens":{"-1":{"type":"x","keyslots":[]}}`, "tokens.-1"},
		{`"tokens":{}`, `"tokens":{"0":7}`, "tokens.0: is not an object"},
		{`"tokens":{}`, `"tokens":{"%s%d":7}`, "tokens.%s%d: the name is not a number up to 31"},
		{`"tokens":{}`, `"tokens":{"\u001b[2J\u009b":7}`, `tokens."\x1b[2J\u009b": the name`},
		{`"tokens":{}`, `"tokens":{},"` + strings.Repeat("x", 4000) + `":7,"` + strings.Repeat("x", 4000) + `":7`, `"` + strings.Repeat("x", 40) + `": two members`},
		{`"key_size":64`, `"key_size":0`, "keyslots.0.key_size"},
		{`"key_size":64`, `"key_size":-64`, "keyslots.0.key_size"},
		{`"key_size":64`, `"key_size":64.5`, "keyslots.0.key_size"},
		{`"key_size":64`, `"key_size":6.4e1`, "keyslots.0.key_size"},
		{`"key_size":64`, `"key_size":99999999999999999999`, "keyslots.0.key_size"},
		{`"key_size":64`, `"key_size":"64"`, "keyslots.0.key_size: is not a number"},
		{`"key_size":64`, `"key_size":128`, "area.size"},
		{`"key_size":64`, `"priority":3,"key_size":64`, "keyslots.0.priority"},
		{`"key_size":64`, `"priority":"1","key_size":64`, "keyslots.0.priority"},
		{`"type":"luks1"`, `"type":"luks9"`, "keyslots.0.af.type"},
		{`"stripes":4000`, `"stripes":1`, "keyslots.0.af.stripes"},
		{`"stripes":4000`, `"stripes":2147483647`, "keyslots.0.af.stripes"},
		{`"type":"raw"`, `"type":"cooked"`, "keyslots.0.area.type"},
		{`"offset":"32768"`, `"offset":"0"`, "keyslots.0.area: bytes 0"},
		{`"offset":"32768"`, `"offset":"32769"`, "keyslots.0.area"},
		{`"offset":"32768"`, `"offset":32768`, "keyslots.0.area.offset: is not a string"},
		{`"offset":"32768"`, `"offset":"-32768"`, "keyslots.0.area.offset"},
		{`"offset":"32768"`, `"offset":"+32768"`, "keyslots.0.area.offset"},
		{`"offset":"32768"`, `"offset":"0x8000"`, "keyslots.0.area.offset"},
		{`"offset":"32768"`, `"offset":"18446744073709551615"`, "keyslots.0.area.offset"},
		{`"offset":"32768"`, `"offset":"99999999999999999999999999"`, "keyslots.0.area.offset"},
		{`"offset":"32768"`, `"offset":"36864"`, "overlap"},
		{`"offset":"32768"`, `"offset":"4611686018427383296"`, "keyslots.0.area"},
		{`"type":"argon2id"`, `"type":"scrypt"`, "keyslots.0.kdf.type"},
		{`"time":4`, `"time":0`, "keyslots.0.kdf.time"},
		{`"memory":64`, `"memory":7`, "keyslots.0.kdf.memory"},
		{`"memory":64`, `"memory":4294967296`, "keyslots.0.kdf.memory"},
		{`"cpus":1`, `"cpus":0`, "keyslots.0.kdf.cpus"},
		{`"cpus":1`, `"cpus":256`, "keyslots.0.kdf.cpus"},
		{`"salt":"`, `"salt":"*`, "keyslots.0.kdf.salt: is not base64"},
		{`"salt":"`, `"salt":"AA==","x":"`, "keyslots.0.kdf.salt: has 1 bytes"},
		{`"type":"crypt"`, `"type":"zero"`, "segments.0.type"},
		{`"segments":{"0"`, `"segments":{"1"`, "digests.0.segments[0]"},
		{`"segments":{"0":{`, `"segments":{"0":{"type":"linear","offset":"1048576","size":"512"},"2":{`, "segments: 1 is missing"},
		{`"segments":{"0":{`, `"segments":{"0":{"type":"linear","offset":"1048576","size":"dynamic"},"1":{`, "segments.0.size"},
		{`"segments":{"0":{`, `"segments":{"0":{"type":"linear","offset":"1049088","size":"512"},"1":{`, "segments.1: overlaps"},
		{`"offset":"1048576"`, `"offset":"4096"`, "segments.0.offset"},
		{`"offset":"1048576"`, `"offset":"1048577"`, "segments.0.offset"},
		{`"size":"dynamic"`, `"size":"0"`, "segments.0.size"},
		{`"size":"dynamic"`, `"size":"513"`, "segments.0.size"},
		{`"size":"dynamic"`, `"size":"endless"`, "segments.0.size"},
		{`"iv_tweak":"0"`, `"iv_tweak":0`, "segments.0.iv_tweak"},
		{`"iv_tweak":"0"`, `"iv_tweak":"18446744073709551616"`, "segments.0.iv_tweak"},
		{`"sector_size":512`, `"sector_size":513`, "segments.0.sector_size"},
		{`"sector_size":512`, `"sector_size":8192`, "segments.0.sector_size"},
		{`"sector_size":512`, `"sector_size":512,"integrity":"x"`, "segments.0.integrity"},
		{`"sector_size":512`, `"sector_size":512,"flags":"x"`, "segments.0.flags"},
		{`"sector_size":512`, `"sector_size":512,"flags":[{}]`, "segments.0.flags[0]"},
		{`"sector_size":512`, `"sector_size":512,"flags":["backup-previous"]`, "segments: there is none"},
		{`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes xts","sector_size"`, "segments.0.encryption"},
		{`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"","sector_size"`, "segments.0.encryption"},
		{`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"cipher_null-ecb","sector_size"`, "encrypts nothing"},
		{`"encryption":"aes-xts-plain64","key_size"`, `"encryption":"cipher_null-ecb","key_size"`, "encrypts nothing"},
		{`"keyslots":["0","1"]`, `"keyslots":["0","2"]`, "digests.0.keyslots[1]"},
		{`"segments":["0"]`, `"segments":["1"]`, "digests.0.segments[0]"},
		{`"digests":{"0"`, `"digests":{"1":{"type":"x","keyslots":["0"],"segments":[]},"0"`, "has digest"},
		{`"iterations":1000`, `"iterations":0`, "digests.0.iterations"},
		{`"iterations":1000`, `"iterations":2147483648`, "digests.0.iterations"},
		{`"digest":"`, `"digest":"","x":"`, "digests.0.digest: has 0 bytes"},
		{`"digest":"`, `"digest":"AAECAwQFBgcICQoLDA0O","x":"`, "digests.0.digest: has 15 bytes"},
		{`"json_size":"12288"`, `"json_size":"8192"`, "config.json_size"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524289"`, "config.keyslots_size"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"1073741824"`, "config.keyslots_size"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"4096"`, "keyslots.0.area"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","requirements":[]`, "config.requirements"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","requirements":{"mandatory":"x"}`, "config.requirements.mandatory"},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","flags":[1]`, "config.flags[0]"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("the metadata has no %s:\n%s", c.old, good)
		}
		kinds[c.to] = true
		h, err := read(withJSON(dev, strings.Replace(good, c.old, c.to, 1)), luks.Permissive)
		if err == nil {
			t.Errorf("%s instead of %s is taken: %+v", c.to, c.old, h)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s instead of %s: %q, want %q in it", c.to, c.old, err, c.want)
		}
	}
	if len(kinds) < 80 {
		t.Errorf("%d kinds of malformed metadata, want at least 80", len(kinds))
	}
	for n := 0; n < len(good); n += race.Every(16) {
		if h, err := read(withJSON(dev, good[:n]), luks.Permissive); err == nil {
			t.Fatalf("metadata cut at byte %d is taken: %+v", n, h)
		}
	}
	if _, err := read(withJSON(dev, good+"\x00x"), luks.Permissive); err == nil {
		t.Error("a byte behind the end of the metadata is taken")
	}
}

// TestStrictPolicy: what it forbids, the permissive one takes.
func TestStrictPolicy(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	good := compact(t, dev)
	for _, c := range []struct{ old, to string }{
		{`"memory":64`, `"memory":1048577`},
		{`"time":4`, `"time":65`},
		{`"memory":64,"cpus":1`, `"memory":128,"cpus":9`},
		{`"iterations":1000`, `"iterations":33554433`},
		{`"encryption":"aes-xts-plain64","sector_size"`, `"encryption":"aes-ecb","sector_size"`},
		{`"encryption":"aes-xts-plain64","key_size"`, `"encryption":"aes-cbc-plain","key_size"`},
		{`"hash":"sha256"`, `"hash":"md5"`},
		{`"offset":"1048576"`, `"offset":"2097152"`},
		{`"offset":"1048576"`, `"offset":"4194304"`},
		{`"size":"dynamic"`, `"size":"1049088"`},
	} {
		dev := withJSON(dev, strings.Replace(good, c.old, c.to, 1))
		if _, err := read(dev, luks.Permissive); err != nil {
			t.Errorf("%s: permissive: %v", c.to, err)
		}
		if _, err := read(dev, luks.Strict); !errors.Is(err, luks.ErrPolicy) {
			t.Errorf("%s: strict: %v", c.to, err)
		}
	}
}

// TestRequirementsAreSeen: a header that asks for more can be read, and says so.
func TestRequirementsAreSeen(t *testing.T) {
	d := disk(t, "luks2-argon2id")
	dev := d.Image.Bytes(t)
	good := compact(t, dev)
	for _, c := range []struct {
		old, to  string
		readable bool
	}{
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","requirements":{"mandatory":["from-the-future"]}`, true},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","requirements":{"mandatory":["offline-reencrypt"]}`, false},
		{`"keyslots_size":"524288"`, `"keyslots_size":"524288","requirements":{"mandatory":["online-reencrypt-v3"]}`, false},
		{`"sector_size":512`, `"sector_size":512,"flags":["in-reencryption"]`, false},
		{`"type":"luks2"`, `"type":"luks3"`, true},
		{`"type":"luks2"`, `"type":"reencrypt"`, false},
	} {
		dev := withJSON(dev, strings.Replace(good, c.old, c.to, 1))
		h, err := read(dev, luks.Strict)
		if err != nil {
			t.Fatalf("%s: %v", c.to, err)
		}
		if len(h.Obstacles()) != 1 || h.Writable() == nil {
			t.Errorf("%s: obstacles %q, want one", c.to, h.Obstacles())
		}
		v, err := h.Open(context.Background(), bytes.NewReader(dev), d.Key(1), luks.AnySlot)
		if err != nil {
			t.Fatal(err)
		}
		if table, err := h.Table(v, "x", int64(len(dev)), ":64:logon:k"); err == nil {
			t.Errorf("%s: table %q", c.to, table)
		}
		if table, err := h.ReadTable(v, "x", int64(len(dev)), ":64:logon:k"); (err == nil) != c.readable || (table != "") != c.readable {
			t.Errorf("%s: table for reading %q, %v, want one: %v", c.to, table, err, c.readable)
		}
		f := image(t, int64(len(dev)))
		if _, err := f.WriteAt(dev, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := luks.Edit(f, int64(len(dev)), luks.Options{}); err == nil {
			t.Errorf("%s: the header can be changed", c.to)
		}
		v.Key.Wipe()
	}
}

// TestEveryByteOfTheBinaryHeader: of either copy each byte is flipped, and the other
// copy is used; of both, and the header is refused.
func TestEveryByteOfTheBinaryHeader(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	want, err := read(dev, luks.Strict)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 4096; i += race.Every(31) {
		for c := range 2 {
			dev[c*copySize+i] ^= 0x40
			h, err := read(dev, luks.Strict)
			if err != nil {
				t.Fatalf("byte %d of copy %d: %v", i, c, err)
			}
			if !h.Copies[1-c].Used || h.Copies[c].Err == nil || !bytes.Equal(h.Metadata(), want.Metadata()) || h.UUID != want.UUID {
				t.Fatalf("byte %d of copy %d: %+v", i, c, h.Copies)
			}
			if c == 0 {
				dev[copySize+i] ^= 0x40
				if h, err := read(dev, luks.Strict); err == nil {
					t.Fatalf("byte %d of both copies: %+v", i, h)
				}
				dev[copySize+i] ^= 0x40
			}
			dev[c*copySize+i] ^= 0x40
		}
	}
}

// TestNewerCopyWins, and the first where both are of one age.
func TestNewerCopyWins(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	for _, c := range []struct {
		epochs [2]uint64
		want   int
	}{{[2]uint64{7, 7}, 0}, {[2]uint64{8, 7}, 0}, {[2]uint64{7, 8}, 1}, {[2]uint64{1, 1<<64 - 1}, 1}} {
		for i, e := range c.epochs {
			one := dev[i*copySize:][:copySize]
			binary.BigEndian.PutUint64(one[16:], e)
			copy(one[24:72], fmt.Sprintf("copy %d", i))
			seal(one)
		}
		h, err := read(dev, luks.Strict)
		if err != nil {
			t.Fatal(err)
		}
		if h.Label != fmt.Sprintf("copy %d", c.want) || h.Epoch != c.epochs[c.want] || !h.Copies[c.want].Used || h.Copies[1-c.want].Used {
			t.Errorf("epochs %v: %q is used: %+v, want copy %d", c.epochs, h.Label, h.Copies, c.want)
		}
	}
}

// TestBinaryHeaderFields: wrong fields with good checksums, in both copies.
func TestBinaryHeaderFields(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	for _, c := range []struct {
		at   int
		b    string
		want string
	}{
		{6, "\x00\x03", "version 3"},
		{8, "\x00\x00\x00\x00\x00\x00\x20\x00", "hdr_size"},
		{8, "\x00\x00\x00\x00\x00\x00\x50\x00", "hdr_size"},
		{8, "\xff\xff\xff\xff\xff\xff\xf0\x00", "hdr_size"},
		{8, "\x00\x00\x00\x00\x00\x40\x00\x00", "hdr_size"},
		{24, strings.Repeat("x", 48), "label"},
		{24, "a\nb", "label"},
		{72, "md5\x00\x00\x00", "checksum_alg"},
		{168, strings.Repeat("x", 40), "uuid"},
		{208, strings.Repeat("x", 48), "subsystem"},
		{256, "\x00\x00\x00\x00\x00\x00\x00\x01", "hdr_offset"},
	} {
		dev := bytes.Clone(dev)
		for at := 0; at <= copySize; at += copySize {
			copy(dev[at+c.at:], c.b)
			seal(dev[at:][:copySize])
		}
		if _, err := read(dev, luks.Permissive); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q at %d: %v, want %q in it", c.b, c.at, err, c.want)
		}
	}
}

// TestCutDevices: a device that ends anywhere within its header is refused.
func TestCutDevices(t *testing.T) {
	for _, name := range []string{"luks2-argon2id", "luks1-xts512"} {
		d := disk(t, name)
		dev := d.Image.Bytes(t)
		h, err := read(dev, luks.Strict)
		if err != nil {
			t.Fatal(err)
		}
		end := 0
		for _, k := range h.Keyslots {
			end = max(end, int(k.Area.Offset+k.Area.Size))
		}
		for n := 0; n < end; n += 1 + n/100 {
			if h, err := read(dev[:n], luks.Permissive); err == nil {
				t.Fatalf("%s with %d bytes is taken: %+v", name, n, h)
			}
		}
	}
	for _, n := range []int{0, 1, 4096, 1 << 20} {
		if _, err := read(make([]byte, n), luks.Permissive); !errors.Is(err, luks.ErrNotLUKS) {
			t.Errorf("%d zeroes: %v, want that there is no header", n, err)
		}
	}
}

// TestEveryByteOfLUKS1: it has no checksum. Whatever is flipped, the header is
// refused, or opens to the same key, or does not open.
func TestEveryByteOfLUKS1(t *testing.T) {
	d := disk(t, "luks1-xts512")
	dev := d.Image.Bytes(t)
	refused, wrong, same := 0, 0, 0
	for i := range 592 {
		if i >= 264 && i != 592-1 { // the slots after the first are not used here: one byte of each field
			if at := (i - 208) % 48; at != 3 && at != 7 && at != 20 && at != 43 && at != 47 {
				continue
			}
		}
		bit := byte(0x40)
		// The high bytes of an iteration count would only take their time.
		if i >= 164 && i < 168 || i >= 208 && (i-208)%48 >= 4 && (i-208)%48 < 8 {
			bit = 1
			if i%4 < 2 {
				continue
			}
		}
		dev[i] ^= bit
		h, err := read(dev, luks.Strict)
		if err != nil {
			refused++
		} else if v, err := h.Open(context.Background(), bytes.NewReader(dev), d.Key(0), 0); err != nil {
			wrong++
		} else {
			same++
			if got := fmt.Sprintf("%x", v.Key.Bytes()); got != d.VolumeKeyHex {
				t.Errorf("byte %d: opens to another key", i)
			}
			v.Key.Wipe()
		}
		dev[i] ^= bit
	}
	if refused < 40 || wrong < 60 || same < 60 {
		t.Errorf("%d refused, %d not opened, %d the same", refused, wrong, same)
	}
}

// TestWrongPassphraseBesideOddKeyslot: one keyslot that cannot be tried does not hide
// that the passphrase is wrong for the others.
func TestWrongPassphraseBesideOddKeyslot(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)
	odd := withJSON(dev, strings.Replace(compact(t, dev), `"stripes":4000,"hash":"sha256"`, `"stripes":4000,"hash":"md99"`, 1))
	h, err := read(odd, luks.Permissive)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Open(t.Context(), bytes.NewReader(odd), []byte("mistyped"), luks.AnySlot)
	if !errors.Is(err, luks.ErrPassphrase) || !errors.Is(err, luks.ErrUnsupported) || !strings.Contains(err.Error(), "md99") {
		t.Errorf("a wrong passphrase, and a keyslot with an unknown hash: %v", err)
	}
}
