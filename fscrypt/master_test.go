package fscrypt_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/fscrypt"
	"keyway/internal/invariant"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/test/fixtures"
)

// A wrapped key: the engine encrypts the contents with a key that nobody here sees,
// the names are encrypted with one of the software secret (blkcrypto.md, 10.4).
func TestWrappedKey(t *testing.T) {
	hw, err := emul.NewHardware(make([]byte, emul.FuseSize))
	if err != nil {
		t.Fatal(err)
	}
	defer hw.Close()
	long, err := hw.Import(counting(0, emul.RawSize))
	if err != nil {
		t.Fatal(err)
	}
	defer long.Wipe()
	eph, err := hw.Prepare(long.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	defer eph.Wipe()
	m, err := fscrypt.NewWrappedKey(eph.Bytes(), hw)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Wipe()
	if got, want := m.Spec().String(), "a2c6bd9aa8682ec04bc51ac412b9acea"; got != want || !m.Wrapped() {
		t.Errorf("identifier %s, want %s", got, want)
	}
	f := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk64), 1, 5)
	k, err := f.NewKey("wrapped")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := emul.ParseSpec("ufs?slots=2")
	if err != nil {
		t.Fatal(err)
	}
	spec.Options.Hardware = hw
	e := emul.New("ufs", spec.Options)
	if err := k.Program(nil, func(b []byte) error { return e.Program(0, k.Config(), b) }); err != nil {
		t.Fatal(err)
	}
	dun, err := f.DUN(7 << 12)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8192)
	if err := e.Crypt(0, keyslot.Encrypt, dun, block.Bytes(buf), block.Bytes(buf)); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: "ff99d9ac5662b3233a4169d319a88708", 4096: "a639988e433e2f2b4a81c1bcf0fff24a"} {
		if got := hex.EncodeToString(buf[at:][:16]); got != want {
			t.Errorf("unit at %d begins %s, want %s", at, got, want)
		}
	}

	// Names are those of a raw master key with the bytes of the software secret.
	raw := master(t, fixtures.Hex("48b69fb100fda3d600b75d7f25e2b8f1cf95e5de1bd624b9273d537519270c65"))
	of := func(f *fscrypt.File) string {
		n, err := f.Names()
		if err != nil {
			t.Fatal(err)
		}
		defer n.Wipe()
		b, err := n.Encrypt([]byte("name"))
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b)
	}
	if got, want := of(f), of(mustOpen(t, raw, ext4(), v2(raw, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk64), 1, 5)); got != want {
		t.Errorf("name %s, want %s", got, want)
	}

	for _, p := range []fscrypt.Policy{v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), v2(m, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey)} {
		var field *fscrypt.FieldError
		if _, err := fscrypt.Open(m, ext4(), fscrypt.Context{Policy: p}, 5); !errors.As(err, &field) || field.Field != "flags" {
			t.Errorf("%v with a wrapped key: %v", p, err)
		}
	}
	if _, ok := m.DescriptorSpec(); ok || m.Is(fscrypt.KeySpec{}) || m.Is(fscrypt.DescriptorSpec([8]byte{})) {
		t.Error("a wrapped key has a descriptor")
	}
	if _, err := fscrypt.NewWrappedKey(long.Bytes(), hw); !errors.Is(err, keyslot.ErrBadBlob) {
		t.Errorf("a key wrapped for the long term: %v", err)
	}
	for _, n := range []int{0, 129} {
		if _, err := fscrypt.NewWrappedKey(make([]byte, n), hw); err == nil {
			t.Errorf("a wrapped key of %d bytes was taken", n)
		}
	}
}

func TestMasterKeysThatDoNotFit(t *testing.T) {
	for _, n := range []int{0, 15, 65} {
		if _, err := fscrypt.NewMasterKey(make([]byte, n)); err == nil {
			t.Errorf("a master key of %d bytes was taken", n)
		}
	}
	short, m := master(t, counting(1, 16)), master(t, counting(1, 32))
	for _, c := range []struct {
		p        fscrypt.Policy
		of       *fscrypt.MasterKey
		contents bool // the key is long enough for them
	}{
		{v2(short, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), short, false},
		{v2(short, fscrypt.AES128CBCESSIV, fscrypt.AES128CBCCTS, 0), short, true},
		{v2(short, fscrypt.SM4XTS, fscrypt.SM4CBCCTS, 0), short, true},
		{v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), m, true},
		{v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), m, false},
		{v1(m, fscrypt.Adiantum, fscrypt.Adiantum, 0), m, true},
		{v1(short, fscrypt.Adiantum, fscrypt.Adiantum, fscrypt.DirectKey), short, false},
	} {
		_, err := mustOpen(t, c.of, ext4(), c.p, 1, 5).NewKey("test")
		if c.contents && err != nil || !c.contents && !errors.Is(err, fscrypt.ErrShortKey) {
			t.Errorf("%v with a short key: %v", c.p, err)
		}
	}
	// Names need less than contents under v1.
	n, err := mustOpen(t, m, ext4(), v1(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 1, 5).Names()
	if err != nil {
		t.Fatal(err)
	}
	n.Wipe()
	if _, err := fscrypt.Open(m, ext4(), fscrypt.Context{Policy: v2(short, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0)}, 5); !errors.Is(err, fscrypt.ErrWrongKey) {
		t.Errorf("another master key: %v", err)
	}
	// The kernel's crypto API refuses it as well when it is told to forbid weak keys.
	weak := master(t, bytes.Repeat([]byte{5}, 64))
	if _, err := mustOpen(t, weak, ext4(), v1(weak, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, 0), 1, 5).NewKey("test"); !errors.Is(err, blkcrypto.ErrWeakKey) {
		t.Errorf("a key with equal halves: %v", err)
	}
}

// After Wipe nothing can be derived, and all that was asked for is back.
func TestWipe(t *testing.T) {
	before := secret.Held()
	m, err := fscrypt.NewMasterKey(counting(1, 64))
	if err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, m, ext4(), v2(m, fscrypt.AES256XTS, fscrypt.AES256CBCCTS, fscrypt.InoLblk32), 1, 5)
	n, err := f.Names()
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.DirHash()
	if err != nil {
		t.Fatal(err)
	}
	// A key has pages of its own in builds with checks.
	if got := secret.Held(); invariant.Enabled && got == before {
		t.Error("the keys are not in locked memory")
	}
	n.Wipe()
	n.Wipe()
	h.Wipe()
	m.Wipe()
	m.Wipe()
	if got := secret.Held(); invariant.Enabled && got != before {
		t.Errorf("locked: %+v, want %+v", got, before)
	}
	for name, op := range map[string]func() error{
		"Open":    func() error { _, err := fscrypt.Open(m, ext4(), f.Context(), 5); return err },
		"NewKey":  func() error { _, err := f.NewKey("x"); return err },
		"Names":   func() error { _, err := f.Names(); return err },
		"DirHash": func() error { _, err := f.DirHash(); return err },
	} {
		if err := op(); !errors.Is(err, fscrypt.ErrKeyGone) {
			t.Errorf("%s after Wipe: %v", name, err)
		}
		if got := secret.Held(); invariant.Enabled && got != before {
			t.Errorf("%s after Wipe: locked: %+v, want %+v", name, got, before)
		}
	}
}
