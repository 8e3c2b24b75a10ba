package adiantum

import (
	"bytes"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// Every published vector whose tweak has 32 bytes, of whatever length.
func TestBytesPublishedVectors(t *testing.T) {
	n := 0
	for _, set := range []struct {
		file  string
		count int
	}{{"google-xchacha12.txt.gz", 120}, {"linux-cryptoapi-xchacha12.txt.gz", 20}} {
		for name, v := range read(t, set.file, set.count) {
			key, tweak, plain, cipher := v[0], v[1], v[2], v[3]
			if len(tweak) != 32 {
				continue
			}
			n++
			b, err := NewBytes(key)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(plain))
			b.Encrypt(got, plain, number4(tweak))
			dataunittest.Diff(t, "vector "+name, got, cipher)
			b.Decrypt(got, got, number4(tweak))
			dataunittest.Diff(t, "vector "+name+" decrypted", got, plain)
			b.Wipe()
		}
	}
	if n < 60 {
		t.Errorf("%d vectors have tweaks of 32 bytes, want at least 60", n)
	}
}

// Every length of a file name, and around the chunks of the hash, in place and not.
func TestBytesSameAsReference(t *testing.T) {
	key := bytes.Repeat([]byte{7, 1}, KeySize/2)
	tweak := make([]byte, 32)
	b, err := NewBytes(key)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	ref := newNaive(key, 12)
	for _, span := range [][2]int{{MinBytes, 260}, {1030, 1060}} {
		for n := span[0]; n <= span[1]; n++ {
			plain, want, got := make([]byte, n), make([]byte, n), make([]byte, n)
			for i := range plain {
				plain[i] = byte(i * n)
			}
			for i := range tweak {
				tweak[i] = byte(n + i)
			}
			ref.Crypt(want, plain, tweak, false)
			b.Encrypt(got, plain, number4(tweak))
			dataunittest.Diff(t, "encrypted", got, want)
			copy(got, plain)
			b.Encrypt(got, got, number4(tweak))
			dataunittest.Diff(t, "encrypted in place", got, want)
			b.Decrypt(got, got, number4(tweak))
			dataunittest.Diff(t, "decrypted in place", got, plain)
			clear(got)
			b.Decrypt(got, want, number4(tweak))
			dataunittest.Diff(t, "decrypted", got, plain)
		}
	}
}

func TestBytesRefusesWhatItCannot(t *testing.T) {
	b, err := NewBytes(make([]byte, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	mustPanic := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s went through", what)
			}
		}()
		f()
	}
	mustPanic("a short message", func() { b.Encrypt(make([]byte, 15), make([]byte, 15), [4]uint64{}) })
	mustPanic("a short output", func() { b.Encrypt(make([]byte, 16), make([]byte, 17), [4]uint64{}) })
	mustPanic("a message that is too long", func() { b.Decrypt(make([]byte, MaxUnit+1), make([]byte, MaxUnit+1), [4]uint64{}) })
	b.Wipe()
	b.Wipe()
	mustPanic("a wiped key", func() { b.Decrypt(make([]byte, 16), make([]byte, 16), [4]uint64{}) })
	if _, err := NewBytes(make([]byte, 31)); err == nil {
		t.Error("a key of 31 bytes was taken")
	}
}
