package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"keyway/control"
)

func someState(name string) state {
	return state{
		Version: stateVersion,
		Devices: []deviceSpec{
			{Name: name, Backend: "mem:1M", Size: 1 << 20, Engine: "cpu"},
			{Name: name + "x", Live: &tableSpec{Text: "0 8 zero\n"}, Inactive: &tableSpec{Text: "0 8 error\n", ReadOnly: true}, Suspended: true},
		},
		Keys:    []keySpec{{Name: "k", Mode: "AES-256-XTS", DataUnit: 4096, DUNBytes: 8, Source: "x", File: "/x"}},
		Exports: []control.Export{{Name: "e", Device: name, NBD: "unix:/e.sock", TLS: &control.TLS{Cert: "/c", Key: "/k"}}},
	}
}

func openTestState(t *testing.T) *stateDir {
	t.Helper()
	d, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close() })
	return d
}

func TestStateComesBack(t *testing.T) {
	d := openTestState(t)
	if s, err := d.load(); err != nil || len(s.Devices) != 0 {
		t.Errorf("before the first save: %+v, %v; want an empty state", s, err)
	}
	want := someState("a")
	if err := d.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := d.load()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v, %v; want %+v", got, err, want)
	}
	if i, err := os.Stat(d.file()); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", i.Mode(), err)
	}
}

// Whichever step of a save fails, what a later start loads is whole: the new
// state or the one before; and the next save succeeds.
func TestStateIsWholeWhateverStepFails(t *testing.T) {
	var steps []string
	d := openTestState(t)
	d.step = func(name string) error { steps = append(steps, name); return nil }
	if err := d.save(someState("count")); err != nil {
		t.Fatal(err)
	}
	if len(steps) < 5 {
		t.Fatalf("steps %v", steps)
	}
	for i, failing := range steps {
		d := openTestState(t)
		before, after := someState("before"), someState("after")
		if err := errors.Join(d.save(someState("first")), d.save(before)); err != nil {
			t.Fatal(err)
		}
		n := 0
		full := errors.New("no space left")
		d.step = func(string) error {
			if n++; n == i+1 {
				return full
			}
			return nil
		}
		if err := d.save(after); !errors.Is(err, full) || !strings.Contains(err.Error(), d.path) {
			t.Errorf("%s fails: %v; want that, and the directory", failing, err)
		}
		d.step = func(string) error { return nil }
		got, err := d.load()
		if err != nil || !reflect.DeepEqual(got, before) && !reflect.DeepEqual(got, after) {
			t.Errorf("%s fails: loaded %+v, %v", failing, got, err)
		}
		if left, _ := filepath.Glob(filepath.Join(d.path, "*.new")); len(left) > 0 {
			t.Errorf("%s fails: %v is left", failing, left)
		}
		last := someState("last")
		if err := d.save(last); err != nil {
			t.Errorf("save after %s failed: %v", failing, err)
		}
		if got, err := d.load(); err != nil || !reflect.DeepEqual(got, last) {
			t.Errorf("save after %s failed: loaded %+v, %v", failing, got, err)
		}
	}
}

func TestStateKeepsTheGenerationBefore(t *testing.T) {
	d := openTestState(t)
	if err := errors.Join(d.save(someState("one")), d.save(someState("two"))); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(d.file() + ".bak")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := parseState(data); err != nil || s.Devices[0].Name != "one" {
		t.Errorf("%+v, %v; want the state before the last", s, err)
	}
}

func TestStateIsLocked(t *testing.T) {
	d := openTestState(t)
	if _, err := openState(d.path); err == nil || !strings.Contains(err.Error(), "in use by another daemon") {
		t.Errorf("second daemon: %v", err)
	}
	d.close()
	again, err := openState(d.path)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.close()
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"devices":[{"name":"a","backend":"mem:1M"}],"keys":[],"exports":[]}`))
	f.Add([]byte(`{"version":1,"devices":[{"name":"a","live":{"text":"0 8 zero"}}]}{}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err == nil && s.Version != stateVersion {
			t.Fatalf("version %d was taken", s.Version)
		}
	})
}
