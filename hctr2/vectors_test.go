package hctr2

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/test/naive"
)

// A vector is one text under one key.
type vector struct {
	name                      string
	key, tweak, plain, cipher []byte
}

// read4 returns the vectors of a file, which names its source.
func read4(t *testing.T, file string, count int) (all []vector) {
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
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		v := vector{name: f[0]}
		for i, to := range []*[]byte{&v.key, &v.tweak, &v.plain, &v.cipher} {
			if *to, err = hex.DecodeString(strings.TrimPrefix(f[i+1], "-")); err != nil {
				t.Fatalf("%s: vector %s: %v", file, f[0], err)
			}
		}
		all = append(all, v)
	}
	if len(all) != count {
		t.Fatalf("%s holds %d vectors, want %d", file, len(all), count)
	}
	return all
}

// The naive reference does all of them, the implementations those whose tweak has 32
// bytes.
func TestPublishedVectors(t *testing.T) {
	for _, set := range []struct {
		file        string
		count, ours int
	}{
		{"google.txt.gz", 10, 7},
		{"linux-cryptoapi.txt.gz", 57, 57},
	} {
		t.Run(set.file, func(t *testing.T) {
			ours := 0
			for _, v := range read4(t, set.file, set.count) {
				got := make([]byte, len(v.plain))
				naive.HCTR2(v.key, got, v.plain, v.tweak, false)
				dataunittest.Diff(t, "naive reference, vector "+v.name, got, v.cipher)
				naive.HCTR2(v.key, got, v.cipher, v.tweak, true)
				dataunittest.Diff(t, "naive reference, vector "+v.name+" decrypted", got, v.plain)
				if len(v.tweak) != TweakSize {
					continue
				}
				ours++
				for _, im := range Implementations() {
					c := mustOpen(t, im, v.key, 4096)
					bothWays(t, im+", vector "+v.name, c, v.plain, v.cipher, (*[TweakSize]byte)(v.tweak))
				}
			}
			if ours != set.ours {
				t.Errorf("%d vectors with tweaks of 32 bytes, want %d", ours, set.ours)
			}
		})
	}
}

// RFC 8452, appendix A: POLYVAL by itself.
func TestPolyvalEqualsRFC8452(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var h, sum element
	read(&h, unhex("25629347589242761d31f826ba4b757b"))
	polyval(&sum, &h, unhex("4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362"))
	var want element
	read(&want, unhex("f7a3b47b846119fae5b7866cf5e5b77e"))
	if sum != want {
		t.Errorf("%x, want %x", sum, want)
	}
}
