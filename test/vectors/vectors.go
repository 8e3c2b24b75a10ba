// Package vectors reads the files of test vectors that the cipher packages keep
// in their testdata: one vector a line, name, key, number, plaintext and ciphertext
// in hexadecimal, with the source in comments on top.
package vectors

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"
)

// A Vector is one data unit under one key.
type Vector struct {
	Name          string
	Key           []byte
	Number        [2]uint64 // of the data unit, low half first
	Plain, Cipher []byte
}

// Read returns the vectors of a file, which gzip may have compressed. A file that
// does not hold count of them fails the test.
func Read(t testing.TB, file string, count int) []Vector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(file, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if text, err = io.ReadAll(z); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	var all []Vector
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 5 {
			t.Fatalf("%s: %d columns after vector %d, want 5", file, len(f), len(all))
		}
		b := make([][]byte, 4)
		for i, s := range f[1:] {
			if b[i], err = hex.DecodeString(s); err != nil {
				t.Fatalf("%s: vector %s: %v", file, f[0], err)
			}
		}
		if len(b[1]) != 16 || len(b[2]) == 0 || len(b[2]) != len(b[3]) {
			t.Fatalf("%s: vector %s: number of %d bytes, plaintext of %d, ciphertext of %d",
				file, f[0], len(b[1]), len(b[2]), len(b[3]))
		}
		all = append(all, Vector{
			Name:   f[0],
			Key:    b[0],
			Number: [2]uint64{binary.LittleEndian.Uint64(b[1]), binary.LittleEndian.Uint64(b[1][8:])},
			Plain:  b[2], Cipher: b[3],
		})
	}
	if len(all) != count {
		t.Fatalf("%s holds %d vectors, want %d", file, len(all), count)
	}
	return all
}
