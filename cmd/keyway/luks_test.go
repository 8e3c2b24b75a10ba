package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

func luksDisk(t *testing.T, name string) *fixtures.LUKSDisk {
	for _, d := range fixtures.LUKS(t) {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no fixture %s", name)
	return nil
}

func cmdFixture(t *testing.T, ts *testscript.TestScript, name string) {
	d := luksDisk(t, name)
	header, data := d.Devices(t)
	ts.Check(os.WriteFile(ts.MkAbs(name+".img"), data, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(name+".header"), header, 0o600))
	for _, slot := range d.SlotNumbers() {
		ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("%s.%d", name, slot)), d.Key(slot), 0o600))
	}
}

func cmdReads(t *testing.T, ts *testscript.TestScript, name, device string) {
	c, err := harness.DialNBD("unix", filepath.Join(daemonOf(ts).dir, device+".sock"), device)
	ts.Check(err)
	defer c.Close()
	for _, r := range luksDisk(t, name).Regions {
		b := make([]byte, r.Length)
		code, err := c.Do(harness.NBDRead, 0, r.Offset, 0, b)
		ts.Check(err)
		if got := fixtures.SumHex(b); code != 0 || got != r.PlainSHA256 {
			ts.Fatalf("region at %d: NBD error %d, sha256 %s, want %s", r.Offset, code, got, r.PlainSHA256)
		}
	}
}

func TestPassphraseIsALine(t *testing.T) {
	for _, c := range []struct{ in, want, rest string }{
		{"secret\nmore", "secret", "more"},
		{"secret", "secret", ""},
		{" a b \r\n", " a b \r", ""},
		{strings.Repeat("x", maxLine) + "\n", strings.Repeat("x", maxLine), ""},
	} {
		in := strings.NewReader(c.in)
		b, err := scanLine(in)
		if err != nil {
			t.Fatalf("%q: %v", c.in, err)
		}
		rest, _ := io.ReadAll(in)
		if !bytes.Equal(b.Bytes(), []byte(c.want)) || string(rest) != c.rest {
			t.Errorf("%q: %q and then %q, want %q and %q", c.in, b.Bytes(), rest, c.want, c.rest)
		}
		b.Wipe()
	}
	for _, in := range []string{"", "\n", "\nx", strings.Repeat("x", maxLine+1) + "\n"} {
		if b, err := scanLine(strings.NewReader(in)); err == nil {
			t.Errorf("%d bytes: taken as %v", len(in), b)
		}
	}
}
