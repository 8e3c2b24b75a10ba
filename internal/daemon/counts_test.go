package daemon

import (
	"errors"
	"testing"

	"keyway/block"
	"keyway/control"
)

// TestCountsPerDeviceAndKey: who served a request is told by the device where it was
// decided, by the key, and by the engine; a reload that takes the engine away moves
// the counts from there on, and an eviction does not lose them.
func TestCountsPerDeviceAndKey(t *testing.T) {
	d, c := start(t, nil)
	ctx := t.Context()
	create(t, c, control.Create{Name: "hard", Backend: "mem:1M", Engine: "ufs"})
	create(t, c, control.Create{Name: "soft", Backend: "mem:1M"})
	addKey(t, c, "k")
	create(t, c, control.Create{Name: "mid", Table: "0 2048 linear hard 0"})
	create(t, c, control.Create{Name: "vol", Table: "0 2048 default-key aes-xts-plain64 :64:logon:k 0 mid 0 2 sector_size:4096 iv_large_sectors"})
	data := make([]byte, 4096)
	for range 3 {
		rw(t, d, "vol", block.OpWrite, data)
	}
	rw(t, d, "vol", block.OpRead, data)
	want := func(after string, native, fallback uint64, devices map[string][2]uint64, k control.Key) {
		t.Helper()
		x, err := c.Crypto(ctx, "vol")
		must(t, err)
		for _, s := range x.Served {
			if got := [2]uint64{s.Native, s.Fallback}; got != devices[s.Device] {
				t.Errorf("%s: device %s: %d native and by the fallback, want %d", after, s.Device, got, devices[s.Device])
			}
			delete(devices, s.Device)
		}
		if len(devices) > 0 {
			t.Errorf("%s: no counts of %v", after, devices)
		}
		got, err := c.Key(ctx, "k")
		must(t, err)
		if got.InUse != 0 || got.Native != native || got.Fallback != fallback || got.Programs != k.Programs || got.Evictions != k.Evictions || got.Waits != 0 {
			t.Errorf("%s: key %+v, want %d native, %d by the fallback, %+v", after, got, native, fallback, k)
		}
	}
	want("four requests", 4, 0, map[string][2]uint64{"vol": {0, 0}, "mid": {4, 0}, "hard": {4, 0}}, control.Key{Programs: 1})

	_, err := c.Reload(ctx, "mid", control.Load{Table: "0 2048 linear soft 0"})
	must(t, err)
	rw(t, d, "vol", block.OpWrite, data)
	_, err = c.Reload(ctx, "mid", control.Load{Table: "0 2048 linear hard 0"})
	must(t, err)
	x, err := c.Crypto(ctx, "vol")
	must(t, err)
	if e := x.Engines[0]; e.Programs == 0 || e.Resets != 0 {
		t.Errorf("engine %+v", e)
	}
	_, err = c.Message(ctx, "hard", control.Message{Words: []string{"reset"}})
	must(t, err)
	if x, err = c.Crypto(ctx, "vol"); err != nil || x.Engines[0].Resets != 1 {
		t.Errorf("after a reset: %+v, %v", x.Engines[0], err)
	}
	dev, err := c.Device(ctx, "mid")
	must(t, err)
	if dev.Served == nil || *dev.Served != (control.Served{Native: 4, Fallback: 1}) {
		t.Errorf("mid: served %+v", dev.Served)
	}

	before, err := c.Key(ctx, "k")
	must(t, err)
	if before.Native != 4 || before.Fallback != 1 || before.Programs < 2 || before.Users != 1 {
		t.Errorf("before the table goes: %+v", before)
	}
	_, err = c.Remove(ctx, "vol", control.Remove{})
	must(t, err)
	after, err := c.Key(ctx, "k")
	must(t, err)
	if after.Native != before.Native || after.Fallback != before.Fallback || after.Programs != before.Programs || after.Evictions <= before.Evictions || after.Users != 0 {
		t.Errorf("before the last table went %+v, after %+v", before, after)
	}

	if _, err := c.Key(ctx, "nowhere"); err == nil {
		t.Error("described a key that is not there")
	} else if e, ok := errors.AsType[*control.Error](err); !ok || e.Status != 404 {
		t.Errorf("a key that is not there: %v, %+v", err, e)
	}
}
