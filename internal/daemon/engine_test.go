package daemon

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/block"
	"keyway/control"
)

// Every engine writes the same bytes, whichever of them or the fallback does the
// work, also while a controller is reset under the requests.
func TestEnginesOfEveryKindServeTheSameBytes(t *testing.T) {
	d, c := start(t, nil)
	data := bytes.Repeat([]byte("inline encryption"), 64<<10/17+1)[:64<<10]
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i)
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	w.Write(b)
	w.Close()
	_, err = c.AddKey(t.Context(), control.AddKey{Name: "k", Mode: "AES-256-XTS", DataUnit: 4096, Source: "test"}, r)
	must(t, err)

	var want []byte
	for i, x := range []struct {
		engine string
		native bool
	}{{"none", false}, {"cpu?slots=2", true}, {"ufs", true}, {"ufs?slots=1&reset-every=2ms&program-delay=100us", true}, {"cqhci", true}, {"fmp", true}, {"ufs?modes=Adiantum", false}} {
		leaf, vol := string(rune('a'+i)), "over-"+string(rune('a'+i))
		create(t, c, control.Create{Name: leaf, Backend: "mem:1M", Engine: x.engine})
		create(t, c, control.Create{Name: vol, Table: "0 2048 default-key aes-xts-plain64 :64:logon:k 0 " + leaf + " 0 2 sector_size:4096 iv_large_sectors"})
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
			rw(t, d, vol, block.OpWrite, bytes.Clone(data))
			got := make([]byte, len(data))
			if rw(t, d, vol, block.OpRead, got); !bytes.Equal(got, data) {
				t.Fatalf("%s: read differs from what was written", x.engine)
			}
		}
		medium := make([]byte, len(data))
		rw(t, d, leaf, block.OpRead, medium)
		if want == nil {
			want = medium
		}
		if !bytes.Equal(medium, want) || bytes.Contains(medium, []byte("inline encryption")) {
			t.Errorf("%s: the medium has other bytes than without an engine", x.engine)
		}
		crypto, err := c.Crypto(t.Context(), vol)
		must(t, err)
		if native := len(crypto.Native) > 0; native != (x.engine != "none") {
			t.Errorf("%s: native %v", x.engine, crypto.Native)
		}
		if x.engine != "none" && x.engine != "fmp" {
			if used := crypto.Engines[0].Programs > 0; used != x.native {
				t.Errorf("%s: %d keys programmed", x.engine, crypto.Engines[0].Programs)
			}
		}
	}
	info, err := os.Stat(filepath.Join(d.state.path, "fuses"))
	must(t, err)
	if info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("fuses: mode %v, %d bytes", info.Mode(), info.Size())
	}
}

// rw reads or writes b at the device's beginning.
func rw(t *testing.T, d *Daemon, name string, op block.Op, b []byte) {
	t.Helper()
	v, err := d.find(name)
	must(t, err)
	m, err := d.mapped(v)
	must(t, err)
	must(t, m.Do(context.Background(), block.Request{Op: op, Len: int64(len(b)), Data: block.Bytes(b)}))
}

func TestBadEnginesAreNamed(t *testing.T) {
	_, c := start(t, nil)
	for engine, want := range map[string]string{
		"usf":            `did you mean "ufs"?`,
		"gpu":            `engine "gpu" does not exist`,
		"ufs?slot=1":     `did you mean "slots"?`,
		"fmp?units=1000": `"1000" is not one of [512`,
		"cpu?units=512":  `engine "cpu" has no option "units" (known: slots)`,
	} {
		_, err := c.Create(t.Context(), control.Create{Name: "x", Backend: "mem:1M", Engine: engine})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", engine, err, want)
		}
	}
}

// Without the fuses that a wrapped key was made for, it is lost: a damaged file is
// named, not replaced.
func TestDamagedFusesAreNotReplaced(t *testing.T) {
	d, c := start(t, nil)
	path := filepath.Join(d.state.path, "fuses")
	must(t, os.WriteFile(path, []byte("short"), 0o600))
	_, err := c.Create(t.Context(), control.Create{Name: "x", Backend: "mem:1M", Engine: "ufs"})
	if err == nil || !strings.Contains(err.Error(), "fuses of 5 bytes: must be 32") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "short" {
		t.Errorf("the file is %q now, %v", b, err)
	}
	if _, err := c.Device(t.Context(), "x"); err == nil {
		t.Error("a device is there all the same")
	}
}
