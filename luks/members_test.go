package luks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"keyway/luks"
)

// everyMember is a header with each kind of object of the format, for the device of
// the fixture: keyslots of both families of derivations, two segments, a token.
const everyMember = `{"keyslots":{` +
	`"0":{"type":"luks2","key_size":32,"priority":2,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},` +
	`"area":{"type":"raw","offset":"32768","size":"131072","encryption":"aes-xts-plain64","key_size":64},` +
	`"kdf":{"type":"argon2id","time":4,"memory":64,"cpus":1,"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},` +
	`"1":{"type":"luks2","key_size":32,"priority":0,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},` +
	`"area":{"type":"raw","offset":"163840","size":"131072","encryption":"aes-xts-plain64","key_size":64},` +
	`"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}},` +
	`"tokens":{"0":{"type":"t","keyslots":["0","1"]}},` +
	`"segments":{"0":{"type":"crypt","offset":"1048576","size":"4096","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096,"flags":["x"]},` +
	`"1":{"type":"crypt","offset":"1052672","size":"dynamic","iv_tweak":"8","encryption":"aes-xts-plain64","sector_size":512,"integrity":{"type":"hmac(sha256)"}}},` +
	`"digests":{"0":{"type":"pbkdf2","keyslots":["0","1"],"segments":["0","1"],"hash":"sha256","iterations":1000,` +
	`"salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}},` +
	`"config":{"json_size":"12288","keyslots_size":"524288","flags":["allow-discards"],"requirements":{"mandatory":["r"]}}}`

// optional are the members that may be absent, by the end of their path.
var optional = []string{".priority", ".flags", ".integrity", ".requirements", ".mandatory"}

// TestEveryMember: each member of each object is taken away, and given a value of
// each other kind; each element of a list likewise. What is refused names it.
func TestEveryMember(t *testing.T) {
	dev := disk(t, "luks2-argon2id").Image.Bytes(t)[:600<<10] // the header
	if _, err := read(withJSON(dev, everyMember), luks.Permissive); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	var tree map[string]any
	d := json.NewDecoder(strings.NewReader(everyMember))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	refused := func(path, how string) {
		t.Helper()
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		h, err := read(withJSON(dev, string(text)), luks.Permissive)
		// An object whose list of members is looked at says which of them is missing.
		where := strings.TrimPrefix(path, "metadata.")
		if err == nil {
			t.Errorf("%s %s is taken: %+v", path, how, h)
		} else if !strings.Contains(err.Error(), where) {
			t.Errorf("%s %s: %q does not name it", path, how, err)
		}
		kinds[path+how] = true
	}
	values := []any{nil, true, json.Number("7"), "7!", []any{}, []any{json.Number("1")}, map[string]any{}, json.Number("-1"), json.Number("1e3"), ""}
	wrong := func(v, with any) bool { return fmt.Sprintf("%T", v) != fmt.Sprintf("%T", with) }
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				at := path + "." + name
				numbered := name[0] >= '0' && name[0] <= '9'
				may := numbered
				for _, o := range optional {
					may = may || strings.HasSuffix(at, o)
				}
				if !may {
					delete(v, name)
					refused(at, "taken away")
				}
				for _, with := range values {
					if wrong(member, with) {
						v[name] = with
						refused(at, fmt.Sprintf("as %T %v", with, with))
					}
				}
				v[name] = member
				walk(at, member)
			}
		case []any:
			for i, e := range v {
				for _, with := range values {
					if wrong(e, with) {
						v[i] = with
						refused(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("as %T %v", with, with))
					}
				}
				v[i] = e
			}
		}
	}
	walk("metadata", tree)
	if len(kinds) < 400 {
		t.Errorf("%d kinds of malformed members", len(kinds))
	}
}

// TestMalformedLUKS1: each field of its header is broken once.
func TestMalformedLUKS1(t *testing.T) {
	dev := disk(t, "luks1-xts512").Image.Bytes(t)
	first := -1
	h, err := read(dev, luks.Permissive)
	if err != nil {
		t.Fatal(err)
	}
	first = 208 + 48*h.Keyslots[0].ID
	for _, c := range []struct {
		at   int
		b    string
		want string
	}{
		{8, "\x00", "cipher name"},
		{8, strings.Repeat("x", 32), "cipher name: has no end"},
		{8, "a b", "cipher name"},
		{8, "a\x1bb", "cipher name"},
		{40, "\x00", "cipher mode"},
		{40, strings.Repeat("x", 32), "cipher mode: has no end"},
		{72, "\x00", "hash"},
		{72, strings.Repeat("x", 32), "hash: has no end"},
		{104, "\x00\x00\x00\x00", "payload offset"},
		{104, "\x00\x00\x00\x09", "keyslot"},
		{108, "\x00\x00\x00\x00", "key bytes"},
		{108, "\x00\x00\x10\x01", "key bytes"},
		{164, "\x00\x00\x00\x00", "iterations of the digest"},
		{164, "\x80\x00\x00\x00", "iterations of the digest"},
		{168, strings.Repeat("x", 40), "uuid: has no end"},
		{168, "\x07", "uuid"},
		{first, "\x00\x00\x00\x00", "state"},
		{first, "\x00\x00\xde\xae", "state"},
		{first + 4, "\x00\x00\x00\x00", "iterations"},
		{first + 4, "\xff\xff\xff\xff", "iterations"},
		{first + 40, "\x00\x00\x00\x01", "key material offset"},
		{first + 40, "\xff\xff\xff\xff", "ends at byte"},
		{first + 44, "\x00\x00\x00\x01", "stripes"},
		{first + 44, "\xff\xff\xff\xff", "stripes"},
		{8, "cipher_null\x00", "encrypts nothing"},
	} {
		bad := bytes.Clone(dev)
		copy(bad[c.at:], c.b)
		if h, err := read(bad, luks.Permissive); err == nil {
			t.Errorf("%q at %d is taken: %+v", c.b, c.at, h)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q at %d: %q, want %q in it", c.b, c.at, err, c.want)
		}
	}
	// Two keyslots in one place.
	bad := bytes.Clone(dev)
	copy(bad[208+48*2:][:48], dev[first:][:48])
	if _, err := read(bad, luks.Permissive); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("two keyslots in one place: %v", err)
	}
}
