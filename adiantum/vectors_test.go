package adiantum

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/fixtures"
)

// read returns the columns behind the name of each line of a file of vectors, by
// name; the file names its source.
func read(t *testing.T, file string, count int) map[string][][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if text, err = io.ReadAll(z); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	all := map[string][][]byte{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		for _, s := range f[1:] {
			b, err := hex.DecodeString(strings.TrimPrefix(s, "-"))
			if err != nil {
				t.Fatalf("%s: vector %s: %v", file, f[0], err)
			}
			all[f[0]] = append(all[f[0]], b)
		}
	}
	if len(all) != count {
		t.Fatalf("%s holds %d vectors, want %d", file, len(all), count)
	}
	return all
}

func number4(tweak []byte) (dun [4]uint64) {
	for i := range dun {
		dun[i] = binary.LittleEndian.Uint64(tweak[8*i:])
	}
	return dun
}

// The naive reference does all of them; the implementations those that are data
// units: tweaks of 32 bytes and whole blocks.
func TestPublishedVectors(t *testing.T) {
	for _, set := range []struct {
		file                 string
		rounds, count, units int
	}{
		{"google-xchacha12.txt.gz", 12, 120, 50},
		{"google-xchacha20.txt.gz", 20, 120, 50},
		{"linux-cryptoapi-xchacha12.txt.gz", 12, 20, 10},
		{"linux-cryptoapi-xchacha20.txt.gz", 20, 9, 5},
	} {
		t.Run(set.file, func(t *testing.T) {
			units := 0
			for name, v := range read(t, set.file, set.count) {
				key, tweak, plain, cipher := v[0], v[1], v[2], v[3]
				got := make([]byte, len(plain))
				ref := newNaive(key, set.rounds)
				ref.Crypt(got, plain, tweak, false)
				dataunittest.Diff(t, "naive reference, vector "+name, got, cipher)
				ref.Crypt(got, cipher, tweak, true)
				dataunittest.Diff(t, "naive reference, vector "+name+" decrypted", got, plain)
				if len(tweak) != 32 || len(plain)%blockLen != 0 {
					continue
				}
				units++
				for _, im := range Implementations() {
					c := mustOpen(t, im, key, len(plain), set.rounds)
					c.Encrypt(got, plain, number4(tweak))
					dataunittest.Diff(t, im+", vector "+name, got, cipher)
					c.Decrypt(got, got, number4(tweak))
					dataunittest.Diff(t, im+", vector "+name+" decrypted", got, plain)
				}
			}
			if units != set.units {
				t.Errorf("%d vectors were data units, want %d", units, set.units)
			}
		})
	}
}

func mustOpen(t testing.TB, name string, key []byte, unit, rounds int) *Cipher {
	t.Helper()
	im, err := choice.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := open(im.Open, key, unit, rounds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// What a Linux kernel's blk-crypto wrote, by its software fallback and by an
// emulated inline engine, with numbers that carry out of each limb (blkcrypto.md
// invariants 2 and 3).
func TestEqualsLinuxBlkCrypto(t *testing.T) {
	seen := 0
	for i, v := range fixtures.Vectors(t) {
		if v.Mode != "Adiantum" {
			continue
		}
		seen++
		plain := v.Plain()
		for _, im := range Implementations() {
			got := make([]byte, v.Length)
			c := mustOpen(t, im, v.Key(), v.DataUnitSize, 12)
			c.Encrypt(got, plain, v.DUN)
			for u, head := range v.Heads {
				dataunittest.Diff(t, fmt.Sprintf("%s, vector %d, dun %x, unit %d", im, i, v.DUN, u), got[u*v.DataUnitSize:], fixtures.Hex(head))
			}
			if have := fixtures.SumHex(got); have != v.CipherSHA256 {
				t.Errorf("%s, vector %d, dun %x: SHA-256 %s, want %s", im, i, v.DUN, have, v.CipherSHA256)
			}
			c.Decrypt(got, got, v.DUN)
			dataunittest.Diff(t, "decrypted", got, plain)
		}
	}
	if seen != 21 {
		t.Errorf("%d vectors, want 21", seen)
	}
}

// What a Linux 6.12 kernel's dm-crypt wrote through tables with xchacha12 and
// xchacha20, as the manifests of three disks tell it: the pattern of the plaintext
// and the SHA-256 of the ciphertext. dm-crypt numbers sectors of 512 bytes from the
// IV offset on, or, with iv_large_sectors, its own.
func TestEqualsLinuxDMCrypt(t *testing.T) {
	for _, name := range []string{"adiantum12", "adiantum12-4k", "adiantum20-4k-large"} {
		text, err := os.ReadFile("testdata/dmcrypt-" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var d fixtures.DMCryptDisk
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		rounds := map[string]int{"xchacha12,aes-adiantum-plain64": 12, "xchacha20,aes-adiantum-plain64": 20}[d.Cipher]
		unit, perUnit := d.SectorSize(), uint64(1)
		if !d.LargeIV() {
			perUnit = uint64(unit / 512)
		}
		if len(d.Regions) != 3 {
			t.Fatalf("%s has %d regions, want 3", name, len(d.Regions))
		}
		for _, im := range Implementations() {
			c := mustOpen(t, im, d.Key(), unit, rounds)
			for _, r := range d.Regions {
				plain := r.Plain()
				n := (uint64(r.Offset)/512 + d.IVOffset) / (uint64(unit) / 512) * perUnit
				got := make([]byte, r.Length)
				run := func(op func(dst, src []byte, dun [4]uint64), src []byte) {
					if perUnit == 1 {
						op(got, src, [4]uint64{n})
						return
					}
					for i := 0; i < r.Length; i += unit { // the numbers are not consecutive
						op(got[i:], src[i:][:unit], [4]uint64{n + uint64(i/unit)*perUnit})
					}
				}
				run(c.Encrypt, plain)
				if have := fixtures.SumHex(got); have != r.CipherSHA256 {
					t.Errorf("%s, %s, offset %d: SHA-256 of the ciphertext %s, want %s", name, im, r.Offset, have, r.CipherSHA256)
				}
				run(c.Decrypt, bytes.Clone(got))
				dataunittest.Diff(t, "decrypted", got, plain)
			}
		}
	}
}
