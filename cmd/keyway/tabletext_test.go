package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/internal/secret/secrettest"
)

func tableFile(t *testing.T, n int) (path string, text []byte) {
	t.Helper()
	text = bytes.Repeat([]byte("0123456789abcde\n"), n/16+1)[:n]
	path = filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, text
}

func TestTablesAreReadIntoKeyMemory(t *testing.T) {
	for _, n := range []int{0, 1, 32<<10 - 1, 32 << 10, 32<<10 + 1, 100000, maxTable - 1, maxTable} {
		path, want := tableFile(t, n)
		got, err := readTable(path)
		if err != nil {
			t.Fatal(n, err)
		}
		if !bytes.Equal(got.text, want) || got.locked == nil {
			t.Errorf("%d bytes: %d are read, in key memory: %v", n, len(got.text), got.locked != nil)
		}
		got.wipe()
	}
	path, _ := tableFile(t, maxTable+1)
	if _, err := readTable(path); err == nil || !strings.Contains(err.Error(), fmt.Sprint("more than ", maxTable)) {
		t.Errorf("a longer one: %v", err)
	}
}

// A long table is read where little may be locked, but no key in it is taken.
func TestLongTableWithoutKeyMemoryHasNoKey(t *testing.T) {
	path, want := tableFile(t, 300000)
	withKey := filepath.Join(t.TempDir(), "keyed")
	row := "\n0 8 crypt aes-xts-plain64 " + strings.Repeat("0123456789abcdef", 8) + " 0 leaf 0\n"
	if err := os.WriteFile(withKey, []byte(strings.Repeat("# nothing\n", 30000)+row), 0o600); err != nil {
		t.Fatal(err)
	}
	out := secrettest.WithLimit(t, 128<<10, func() {
		got, err := readTable(path)
		fmt.Println("result:", err, got.locked == nil, bytes.Equal(got.text, want))
		err = new(cli).withTable(t.Context(), "d", withKey, nil)
		fmt.Println("keyed:", err)
	})
	for _, want := range []string{"result: <nil> true true", "keyed: table row 1: crypt: argument 2 (key): there is not enough key memory"} {
		if !strings.Contains(out, want) {
			t.Errorf("printed\n%s, want %s", out, want)
		}
	}
}
