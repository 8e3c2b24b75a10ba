package emul

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
	"keyway/keyslot"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// counting is the key 00 01 02 ... of the vectors in blkcrypto.md, section 10.4.
func counting() []byte {
	b := make([]byte, RawSize)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func hardware(t *testing.T, fuse byte) *Hardware {
	t.Helper()
	h, err := NewHardware(bytes.Repeat([]byte{fuse}, FuseSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// must returns the bytes of a buffer that the test's end wipes.
func must(t *testing.T) func(b *secret.Buffer, err error) []byte {
	return func(b *secret.Buffer, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Wipe)
		return b.Bytes()
	}
}

// NIST SP 800-38B, appendix D.3 (AES-256).
func TestCMAC(t *testing.T) {
	m, err := newMAC(unhex(t, "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.wipe()
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for n, want := range map[int]string{
		0:  "028962f61b7bf89efc6b551f4667d983",
		16: "28a7023f452e8f82bd4bf28d8c37c35c",
		40: "aaf3d8f1de5640c232f5b169b9c911e6",
		64: "e1992190549f6ed5696a2c056c315410",
	} {
		if got := m.sum(message[:n]); hex.EncodeToString(got[:]) != want {
			t.Errorf("CMAC of %d bytes is %x, want %s", n, got, want)
		}
	}
}

// blkcrypto.md, section 10.4: what all known hardware derives.
func TestKeysDerivedAreThoseOfTheKnownHardware(t *testing.T) {
	h := hardware(t, 7)
	eph := must(t)(h.Prepare(must(t)(h.Import(counting()))))
	if got, want := must(t)(h.inlineKey(eph)), unhex(t, "16317c8fe3133e7aef46bdede2b39f09a81e9fbe0c095f906c5c1341da6eaf17"+
		"f151e2982f4f14a5495f78761066cafa5ebb995997d3fb5c8678bb394b6b57dc"); !bytes.Equal(got, want) {
		t.Errorf("inline key %x, want %x", got, want)
	}
	if got, want := must(t)(h.DeriveSecret(eph)), unhex(t, "48b69fb100fda3d600b75d7f25e2b8f1cf95e5de1bd624b9273d537519270c65"); !bytes.Equal(got, want) {
		t.Errorf("software secret %x, want %x", got, want)
	}
}

// The same, through an engine: the key of IV_INO_LBLK_64, inode 5.
func TestWrappedKeyEncryptsAsTheKnownHardware(t *testing.T) {
	s, err := ParseSpec("ufs?slots=2")
	if err != nil {
		t.Fatal(err)
	}
	h := hardware(t, 7)
	s.Options.Hardware = h
	e := New("ufs", s.Options)
	eph := must(t)(h.Prepare(must(t)(h.Import(counting()))))
	c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.HWWrapped, DataUnitSize: 4096, DUNBytes: 8}
	if err := e.Program(1, c, eph); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8192)
	if err := e.Crypt(1, keyslot.Encrypt, blkcrypto.DUN64(5<<32|7), block.Bytes(buf), block.Bytes(buf)); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: "ff99d9ac5662b3233a4169d319a88708", 4096: "a639988e433e2f2b4a81c1bcf0fff24a"} {
		if got := hex.EncodeToString(buf[at:][:16]); got != want {
			t.Errorf("unit at %d begins %s, want %s", at, got, want)
		}
	}
	if err := e.Evict(1); err != nil || e.Enabled(1) {
		t.Errorf("after evict: %v, enabled %v", err, e.Enabled(1))
	}
}

// blkcrypto.md, section 10.2: forms cannot be mixed up, blobs not forged, and an
// ephemeral one is good for one boot only.
func TestWrappedKeysOpenOnlyWhereTheyShould(t *testing.T) {
	h, other, again := hardware(t, 7), hardware(t, 8), hardware(t, 7)
	long := must(t)(h.Import(counting()))
	eph := must(t)(h.Prepare(long))
	if h.ID() != again.ID() || h.ID() == other.ID() {
		t.Errorf("hardware IDs %s, %s with equal fuses, %s with others", h.ID(), again.ID(), other.ID())
	}
	if bytes.Contains(long, counting()) || bytes.Contains(eph, counting()) || bytes.Equal(long[1:], eph[1:]) {
		t.Error("a wrapped key shows the raw one, or both forms are the same")
	}
	refused := func(what string, f func() (*secret.Buffer, error), want error) {
		t.Helper()
		b, err := f()
		if b.Wipe(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refused("prepare of a prepared key", func() (*secret.Buffer, error) { return h.Prepare(eph) }, keyslot.ErrBadBlob)
	refused("derive from a long-term key", func() (*secret.Buffer, error) { return h.DeriveSecret(long) }, keyslot.ErrBadBlob)
	refused("other hardware", func() (*secret.Buffer, error) { return other.Prepare(long) }, keyslot.ErrBadBlob)
	refused("the next boot", func() (*secret.Buffer, error) { return again.DeriveSecret(eph) }, keyslot.ErrBadBlob)
	if again := must(t)(again.Prepare(long)); bytes.Equal(again, eph) {
		t.Error("two boots prepare alike")
	}
	for _, n := range []int{0, 16, 31, 33, 64} {
		refused("import of another size", func() (*secret.Buffer, error) { return h.Import(make([]byte, n)) }, keyslot.ErrKeySize)
	}
	for i := range long {
		bad := bytes.Clone(long)
		bad[i] ^= 4
		refused("a changed byte", func() (*secret.Buffer, error) { return h.Prepare(bad) }, keyslot.ErrBadBlob)
	}
	for _, n := range []int{0, 1, len(long) - 1} {
		refused("a part", func() (*secret.Buffer, error) { return h.Prepare(long[:n]) }, keyslot.ErrBadBlob)
	}
	a, b := must(t)(h.Generate()), must(t)(h.Generate())
	if bytes.Equal(a, b) {
		t.Error("two generated keys are equal")
	}
	must(t)(h.Prepare(a))
	if _, err := NewHardware(make([]byte, 31)); err == nil {
		t.Error("fuses of 31 bytes are taken")
	}
}
