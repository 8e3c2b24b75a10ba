package dm_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
)

// faultyEnv fails at one of its calls, and counts what is out.
type faultyEnv struct {
	*dmtest.World
	calls, failAt int
	keys          []*blkcrypto.Key
	taken         int // keys that were not given back
}

var errFaultyEnv = errors.New("this call was to fail")

func (e *faultyEnv) step() error {
	e.calls++
	if e.calls == e.failAt {
		return errFaultyEnv
	}
	return nil
}

func (e *faultyEnv) Open(ctx context.Context, name string, readOnly bool) (block.Device, error) {
	if err := e.step(); err != nil {
		return nil, err
	}
	return e.World.Open(ctx, name, readOnly)
}

func (e *faultyEnv) Key(ctx context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	if err := e.step(); err != nil {
		return nil, nil, err
	}
	k, release, err := e.World.Key(ctx, ref, c, weak)
	if err == nil {
		e.taken++
		e.keys = append(e.keys, k)
	}
	return k, func(ctx context.Context) error { e.taken--; return release(ctx) }, err
}

// TestTableThatFailsAnywhereLeavesNothing: a table with keys in several rows is built
// with each call of its environment failing in turn, then with a last row that is
// wrong, then loaded where it would stand on itself. Each time all keys are given
// back and dead, their bytes wiped, and all devices are closed (dm-fscrypt.md,
// invariant 64).
func TestTableThatFailsAnywhereLeavesNothing(t *testing.T) {
	const rows = "0 32 crypt aes-xts-plain64 :64:logon:k1 0 a 0\n" +
		"32 32 inlinecrypt aes-xts-plain64 :64:logon:k2 0 a 0\n" +
		"64 32 default-key aes-xts-plain64 :64:logon:k3 0 b 0\n" +
		"96 32 striped 2 8 a 0 b 0\n"
	build := func(failAt int, text string) (*faultyEnv, *dm.Table, error) {
		e := &faultyEnv{World: dmtest.New(t), failAt: failAt}
		for i := 1; i <= 3; i++ {
			e.AddKey(fmt.Sprint("k", i), keyBytes(fmt.Sprint(i)))
		}
		e.Disk("a", 64<<10, 4)
		e.Disk("b", 64<<10, 0)
		table, err := dm.Parse(t.Context(), text, e, dm.ParseOptions{})
		return e, table, err
	}
	clean := func(e *faultyEnv, what string) {
		t.Helper()
		for _, name := range []string{"a", "b"} {
			if n := e.Device(name).State().Open; n != 0 {
				t.Errorf("%s: %s is open %d times", what, name, n)
			}
		}
		if e.taken != 0 {
			t.Errorf("%s: %d keys were not given back", what, e.taken)
		}
		for _, k := range e.keys {
			if !k.Dead() {
				t.Errorf("%s: key %v is alive", what, k)
			}
			if r, err := k.EvictIdle(t.Context()); err != nil || len(r.Places) > 0 {
				t.Errorf("%s: key %v is somewhere still: %v, %v", what, k, err, r.Places)
			}
		}
	}

	e, table, err := build(0, rows)
	if err != nil || len(e.keys) != 3 || e.Device("a").State().Open != 3 {
		t.Fatalf("%v, %d keys, a is open %d times", err, len(e.keys), e.Device("a").State().Open)
	}
	calls := e.calls
	if err := table.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(e, "closed")

	for n := 1; n <= calls; n++ {
		e, _, err := build(n, rows)
		if !errors.Is(err, errFaultyEnv) {
			t.Errorf("call %d of %d fails: %v", n, calls, err)
		}
		clean(e, fmt.Sprintf("call %d of %d fails", n, calls))
	}
	for _, last := range []string{"128 32 linear a 128", "128 32 linear nothing 0", "128 7 crypt aes-xts-plain64 :64:logon:k1 0 a 0 1 sector_size:4096", "129 1 error"} {
		e, _, err := build(0, rows+last)
		if err == nil {
			t.Fatalf("%q was taken", last)
		}
		clean(e, last)
	}

	e, table, err = build(0, rows)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Device("a").Load(t.Context(), table); err == nil {
		t.Error("a table was loaded into a device that it stands on")
	}
	clean(e, "refused by the load")
}
