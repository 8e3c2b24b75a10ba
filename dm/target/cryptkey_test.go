package target_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

func refused(t *testing.T, dev *dm.Handle, message, says string) {
	t.Helper()
	if _, err := dev.Message(t.Context(), 0, strings.Fields(message)); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("message %q: error %v, want one with %q", message, err, says)
	}
}

// TestCryptKeyMessages: a key is wiped and set while the device is suspended, for
// modes of blk-crypto and for other ciphers; without one the device stays suspended.
func TestCryptKeyMessages(t *testing.T) {
	for _, cipher := range []string{"aes-cbc-plain64", "xchacha12,aes-adiantum-plain64"} {
		t.Run(cipher, func(t *testing.T) {
			w := dmtest.New(t)
			disk := w.Disk("a", 1<<20, 0)
			w.AddKey("one", bytes.Repeat([]byte{1}, 32))
			w.AddKey("two", bytes.Repeat([]byte{2}, 32))
			w.AddKey("short", bytes.Repeat([]byte{2}, 16))
			dev := w.Map("d", "0 1024 crypt "+cipher+" :32:logon:one 0 a 0")
			plain := bytes.Repeat([]byte("plaintext."), 512)[:4096]
			dmtest.Write(t, dev, 0, plain)
			ofOne := disk.Bytes()[:4096]

			refused(t, dev, "key wipe", "suspend")
			refused(t, dev, "key set :32:logon:two", "suspend")
			if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
				t.Fatal(err)
			}
			refused(t, dev, "nonsense", "no such message")
			refused(t, dev, "key wipe now", "not one of")
			refused(t, dev, "key set", "not one of")
			refused(t, dev, "key set :16:logon:short", "16 bytes in place of one of 32")
			refused(t, dev, "key set "+strings.Repeat("07", 32), "not a key reference")
			say(t, dev, 0, "key wipe")
			say(t, dev, 0, "key wipe")
			if err := dev.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "wiped") {
				t.Fatalf("resume without a key: %v", err)
			}
			short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			r := block.Request{Op: block.OpRead, Len: 512, Data: block.Bytes(make([]byte, 512))}
			if err := dev.Do(short, r); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a request without a key: %v, want that it waits", err)
			}
			cancel()
			refused(t, dev, "key set :32:logon:nowhere", "no key now")
			say(t, dev, 0, "key set :32:logon:two")
			if err := dev.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := dmtest.Read(t, dev, 0, 4096); bytes.Equal(got, plain) {
				t.Error("another key reads what the first wrote")
			}
			dmtest.Write(t, dev, 0, plain)
			if bytes.Equal(disk.Bytes()[:4096], ofOne) {
				t.Error("another key writes what the first wrote")
			}
			if err := dev.Suspend(t.Context(), dm.SuspendOptions{}); err != nil {
				t.Fatal(err)
			}
			say(t, dev, 0, "KEY SET :32:logon:one") // in the place of one that is there
			if err := dev.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			dmtest.Write(t, dev, 0, plain)
			if !bytes.Equal(disk.Bytes()[:4096], ofOne) {
				t.Error("the first key does not write what it wrote before")
			}
			refused(t, dev, "key wipe", "suspend")
		})
	}
}

// TestCryptRowsShareAKey: the end of one row leaves nothing of the key there, and
// does not disturb the other.
func TestCryptRowsShareAKey(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	w.AddKey("k", bytes.Repeat([]byte{7}, 32))
	one := w.Map("one", "0 1024 crypt serpent-cbc-essiv:sha256 :32:logon:k 0 a 0")
	two := w.Map("two", "0 1024 crypt aes-cbc-plain64 :32:logon:k 0 a 1024")
	plain := bytes.Repeat([]byte("plaintext."), 512)[:4096]
	dmtest.Write(t, one, 0, plain)
	dmtest.Write(t, two, 0, plain)
	w.Reload("one", "0 1024 zero")
	if got := dmtest.Read(t, two, 0, 4096); !bytes.Equal(got, plain) {
		t.Error("the other row lost its key")
	}
	w.Reload("one", "0 1024 crypt serpent-cbc-essiv:sha256 :32:logon:k 0 a 0")
	if got := dmtest.Read(t, one, 0, 4096); !bytes.Equal(got, plain) {
		t.Error("the same table reads something else")
	}
}

// TestOwnCipherTakesScatteredData: sectors across segments, and memory that others
// change, give what whole ones give.
func TestOwnCipherTakesScatteredData(t *testing.T) {
	w := dmtest.New(t)
	disk := w.Disk("a", 1<<20, 0)
	w.AddKey("k", bytes.Repeat([]byte{7}, 32))
	dev := w.Map("d", "0 1024 crypt aes-cbc-elephant :32:logon:k 8 a 8 1 sector_size:4096")
	plain := make([]byte, 8192)
	for i := range plain {
		plain[i] = byte(i * i >> 3)
	}
	dmtest.Write(t, dev, 4096, plain)
	want := disk.Bytes()
	disk.Set(make([]byte, 1<<20))
	data := block.Vec([][]byte{plain[:100], plain[100:5000], plain[5000:]})
	for _, flags := range []block.Flags{0, block.Shared} {
		if err := dev.Do(t.Context(), block.Request{Op: block.OpWrite, Flags: flags, Off: 4096, Len: 8192, Data: data}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(disk.Bytes(), want) {
			t.Errorf("flags %d: scattered data is written as something else", flags)
		}
		got := make([]byte, 8192)
		into := block.Vec([][]byte{got[:4097], got[4097:]})
		if err := dev.Do(t.Context(), block.Request{Op: block.OpRead, Flags: flags, Off: 4096, Len: 8192, Data: into}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, plain) {
			t.Errorf("flags %d: scattered data is read as something else", flags)
		}
	}
	if x, err := dev.Explain(dm.Question{Sector: 8}); err != nil || len(x.Steps) == 0 || !strings.Contains(x.Steps[0].Says, "aes-cbc-elephant") {
		t.Errorf("explanation %+v, %v", x, err)
	}
}

// TestTablesOfCiphersThatAreMissing: what the kernel takes and this does not is
// refused by name.
func TestTablesOfCiphersThatAreMissing(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("a", 1<<20, 0)
	w.AddKey("k", bytes.Repeat([]byte{7}, 32))
	for _, c := range []string{"aes-xts-random", "cast5-cbc-plain64", "aes-lrw-essiv:sha256", "capi:gcm(aes)-random", "capi:authenc(hmac(sha256),cbc(aes))-plain64"} {
		if _, err := w.Parse("0 64 crypt " + c + " :32:logon:k 0 a 0"); err == nil || !strings.Contains(err.Error(), "(cipher)") {
			t.Errorf("%s: error %v", c, err)
		}
	}
}
