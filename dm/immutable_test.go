package dm_test

import (
	"context"
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
	"keyway/keyslot/soft"
)

// counting is a fallback that knows how many depend on it.
type counting struct {
	*soft.Engine
	reserved int
}

func (c *counting) Reserve(blkcrypto.Mode) (func(), error) {
	c.reserved++
	return func() { c.reserved-- }, nil
}

// The first open problem of 2020: what software needs is kept in reserve for keys
// that are started, but only where a table can change (or software is needed
// anyway). blkcrypto.md invariants 29, 30 and 36.
func TestReserveIsKeptWhereATableCanChange(t *testing.T) {
	w := dmtest.New(t)
	fallback := &counting{Engine: soft.New("fallback", 4)}
	m := keyslot.New(fallback)
	leaf := func(name string, e *keyslot.Manager) *dm.Handle {
		d, err := dm.NewLeaf(name, dm.Leaf{Dev: dmtest.NewRAM(1 << 20), Text: name, Engine: e, Fallback: m}, dm.Options{})
		if err != nil {
			t.Fatal(err)
		}
		h, err := d.Open("the test")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	env := devices{"engine": leaf("engine", keyslot.New(soft.New("engine", 4))), "plain": leaf("plain", nil)}
	add := func(name, table string, immutable bool) *dm.Mapped {
		t.Helper()
		tab, err := dm.Parse(t.Context(), table, env.over(w, m), dm.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d := dm.New(name, dm.Options{Immutable: immutable})
		if err := d.Reload(t.Context(), tab, dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		if env[name], err = d.Open("the test"); err != nil {
			t.Fatal(err)
		}
		return d
	}
	fixed := add("fixed", "0 2048 linear engine 0", true)
	add("loose", "0 2048 linear engine 0", false)
	add("fixed over fixed", "0 2048 linear fixed 0", true)
	add("fixed over loose", "0 2048 linear loose 0", true)
	add("fixed over plain", "0 2048 linear plain 0", true)
	k := dmtest.NewKey(t, "k", xts4k, 1)
	for name, want := range map[string]int{
		"engine": 0, "fixed": 0, "fixed over fixed": 0, "plain": 1, "loose": 1, "fixed over loose": 1, "fixed over plain": 1,
	} {
		stop, err := env[name].StartKey(k, "the test")
		if err != nil {
			t.Fatal(err)
		}
		if fallback.reserved != want {
			t.Errorf("%s: %d reserves, want %d", name, fallback.reserved, want)
		}
		stop()
		stop()
		if fallback.reserved != 0 {
			t.Errorf("%s: %d reserves after stop", name, fallback.reserved)
		}
	}

	tab, err := dm.Parse(t.Context(), "0 2048 linear plain 0", env.over(w, m), dm.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fixed.Load(t.Context(), tab); !errors.Is(err, dm.ErrImmutable) {
		t.Errorf("another table for an immutable device: %v, want %v", err, dm.ErrImmutable)
	}
	if err := errors.Join(fixed.Clear(t.Context()), fixed.Suspend(t.Context(), dm.SuspendOptions{}), fixed.Resume(t.Context())); err != nil {
		t.Errorf("what does not change the table: %v", err)
	}
	useKey(t, env["fixed"], k)
}

// devices is an Env of devices by name.
type devices map[string]*dm.Handle

type namedEnv struct {
	*dmtest.World
	devices  devices
	fallback *keyslot.Manager
}

func (d devices) over(w *dmtest.World, fallback *keyslot.Manager) dm.Env {
	return &namedEnv{w, d, fallback}
}

func (e *namedEnv) Open(_ context.Context, name string, _ bool) (block.Device, error) {
	return e.devices[name].Mapped.Open("a table")
}

func (e *namedEnv) Fallback() *keyslot.Manager { return e.fallback }

// dm-fscrypt.md invariant 48: an engine that does not take a key costs no request
// with a raw key, and the medium gets the same bytes.
func TestSoftwareServesWhatAnEngineRefuses(t *testing.T) {
	w := dmtest.New(t)
	e := enginetest.New(t, 2)
	disk := dmtest.NewRAM(1 << 20)
	w.Leaf("a", disk, keyslot.New(e))
	top := w.Map("top", "0 2048 linear a 0")
	k := dmtest.NewKey(t, "k", xts4k, 1)
	e.Fault = func(c enginetest.Call) error {
		if c.Op == enginetest.Program {
			return errors.New("the engine does not answer")
		}
		return nil
	}
	unit := int64(k.Config().DataUnitSize)
	data := make([]byte, 4*unit)
	for i := range data {
		data[i] = byte(i)
	}
	if err := top.Do(t.Context(), block.Request{Op: block.OpWrite, Len: 4 * unit, Data: block.Bytes(data), Crypt: blkcrypto.Context{Key: k}}); err != nil {
		t.Fatal(err)
	}
	if engine, software := k.ServedBy(); engine != 0 || software != 1 {
		t.Errorf("served by engines %d, by software %d; want 0 and 1", engine, software)
	}
	got := make([]byte, 4*unit)
	if err := top.Do(t.Context(), block.Request{Op: block.OpRead, Len: 4 * unit, Data: block.Bytes(got), Crypt: blkcrypto.Context{Key: k}}); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(data) {
		t.Error("what was written does not come back")
	}
	if string(disk.Bytes()[:4*unit]) == string(data) {
		t.Error("plaintext on the medium")
	}
}
