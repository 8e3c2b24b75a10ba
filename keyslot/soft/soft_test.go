package soft

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/cipher"
	"keyway/internal/race"
	"keyway/internal/secret"
	"keyway/keyslot"
)

var conf = blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 16}

// watched is a cipher that counts its wipes.
type watched struct{ wipes int }

func (w *watched) Encrypt(_, _ []byte, _ blkcrypto.DUN) {}
func (w *watched) Decrypt(_, _ []byte, _ blkcrypto.DUN) {}
func (w *watched) Wipe()                                { w.wipes++ }

// blkcrypto.md invariant 26.
func TestWhateverLeavesASlotIsWiped(t *testing.T) {
	key := bytes.Repeat([]byte{1, 2}, 32)
	for name, leave := range map[string]func(e *Engine) error{
		"evict":   func(e *Engine) error { return e.Evict(1) },
		"program": func(e *Engine) error { return e.Program(1, conf, key) },
	} {
		e, w := New("cpu", 3), &watched{}
		e.put(1, &cipher.Units{Cipher: w, Config: conf})
		if err := leave(e); err != nil || w.wipes != 1 {
			t.Errorf("%s: %v, %d wipes, want 1", name, err, w.wipes)
		}
	}
}

func TestEmptySlotsAndForeignKeysAreRefused(t *testing.T) {
	e := New("cpu", 2)
	b := block.Bytes(make([]byte, 512))
	if err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{}, b, b); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty slot: %v, want %v", err, ErrEmpty)
	}
	if err := e.Evict(0); err != nil {
		t.Errorf("evict of an empty slot: %v", err)
	}
	wrapped := conf
	wrapped.KeyType = blkcrypto.HWWrapped
	if err := e.Program(0, wrapped, make([]byte, 64)); err == nil {
		t.Error("a wrapped key was taken")
	}
	if p := e.Profile(); p.Supports(wrapped) || !p.Supports(conf) {
		t.Errorf("profile %v", p)
	}
	if err := e.Program(0, conf, make([]byte, 63)); err == nil {
		t.Error("a key of 63 bytes was taken")
	}
	if err := e.Program(0, conf, bytes.Repeat([]byte{1, 2}, 32)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dst, src int }{{512, 500}, {500, 500}, {1024, 512}, {512, 1024}} {
		err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{}, block.Bytes(make([]byte, tt.dst)), block.Bytes(make([]byte, tt.src)))
		if !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%d bytes into %d: %v, want %v", tt.src, tt.dst, err, block.ErrInvalid)
		}
	}
}

// Hidden memory cannot be searched, and so neither shows that keys are wiped.
func init() { secret.SetPolicy(secret.MlockOnly) }

// blkcrypto.md invariants 21 and 26, as an attacker with the process's memory
// would check them: of a key that was used and evicted, neither its bytes nor
// its first round keys are left anywhere. The key is made in locked memory and
// the needles are kept inverted, so that the test is no hiding place itself.
func TestNoKeyMaterialIsLeftInMemory(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector's shadow memory is too large to search")
	}
	m := keyslot.New(New("cpu", 2))
	buf, err := secret.New(64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rand.Read(buf.Bytes()); err != nil {
		t.Fatal(err)
	}
	var needles [4][]byte
	for i := range needles { // both halves of the data key and of the tweak key
		needles[i] = make([]byte, 16)
		for j := range needles[i] {
			needles[i][j] = ^buf.Bytes()[16*i+j]
		}
	}
	k, err := blkcrypto.NewKey("k", conf, buf)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Get(context.Background(), k, false)
	if err != nil {
		t.Fatal(err)
	}
	data := block.Vec([][]byte{make([]byte, 100), make([]byte, 4096-100)})
	if err := s.Crypt(keyslot.Encrypt, blkcrypto.DUN{}, data, data); err != nil {
		t.Fatal(err)
	}
	s.Put()
	for i, n := range needles {
		if found := search(t, n); len(found) < 2 { // the key and its schedule
			t.Errorf("part %d of a key in use is found at %v: the search is blind", i, found)
		}
	}
	if _, err := k.Evict(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, n := range needles {
		if found := search(t, n); len(found) > 0 {
			t.Errorf("part %d of the evicted key is at %v", i, found)
		}
	}
}

// search returns where the inverse of needle lies in this process.
func search(t *testing.T, needle []byte) (found []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	window := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if !strings.HasPrefix(perm, "rw") {
			continue
		}
		for at := from; at < to; at += uint64(len(window) - len(needle)) {
			// Regions may go while we look, and vvar cannot be read.
			n, _ := mem.ReadAt(window[:min(uint64(len(window)), to-at)], int64(at))
			for i := 0; i+len(needle) <= n; i++ {
				if window[i] == ^needle[0] && inverse(window[i:], needle) && !within(at+uint64(i), window) {
					found = append(found, fmt.Sprintf("%#x in %s", at+uint64(i), strings.TrimSpace(line)))
				}
			}
			clear(window)
		}
	}
	return found
}

func inverse(b, needle []byte) bool {
	for i, c := range needle {
		if b[i] != ^c {
			return false
		}
	}
	return true
}

// within reports whether an address lies in the window of the search itself.
func within(addr uint64, window []byte) bool {
	start := uint64(uintptr(unsafe.Pointer(&window[0])))
	return addr >= start && addr < start+uint64(len(window))
}
