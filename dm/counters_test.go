package dm_test

import (
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/dmtest"
)

// TestCountersTellEngineFromFallback: of the requests with a context, each device
// counts those that it hands to engines beneath and those that its fallback
// transforms, at least in part; what was refused counts nowhere. A reload that takes
// the engine away shows in the next request.
func TestCountersTellEngineFromFallback(t *testing.T) {
	w := dmtest.New(t)
	w.Disk("hard", 1<<20, 4)
	w.Disk("soft", 1<<20, 0)
	dev := w.Map("m", "0 8 linear hard 0\n8 8 linear soft 0\n16 8 linear hard 16")
	k := dmtest.NewKey(t, "k", blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}, 1)
	do := func(op block.Op, off, n int64, key *blkcrypto.Key) error {
		return dev.Do(t.Context(), block.Request{Op: op, Off: off, Len: n, Data: block.Bytes(make([]byte, n)), Crypt: blkcrypto.Context{Key: key}})
	}
	for _, c := range []struct {
		what             string
		op               block.Op
		off, n           int64
		key              *blkcrypto.Key
		engine, software uint64
	}{
		{"no context", block.OpRead, 0, 512, nil, 0, 0},
		{"engine", block.OpRead, 0, 512, k, 1, 0},
		{"engine of another row", block.OpWrite, 8192, 4096, k, 1, 0},
		{"no engine", block.OpWrite, 4096, 512, k, 0, 1},
		{"across rows, one without", block.OpRead, 0, 8192, k, 0, 1},
		{"refused", block.OpRead, 0, 1 << 20, k, 0, 0},
	} {
		before := dev.Counters()
		err := do(c.op, c.off, c.n, c.key)
		if (err != nil) != (c.what == "refused") {
			t.Fatalf("%s: %v", c.what, err)
		}
		after := dev.Counters()
		if e, s := after.Native[c.op]-before.Native[c.op], after.Software[c.op]-before.Software[c.op]; e != c.engine || s != c.software {
			t.Errorf("%s: engine %d, software %d, want %d, %d", c.what, e, s, c.engine, c.software)
		}
		if n := after.Ops[c.op] - before.Ops[c.op]; (n == 1) != (err == nil) {
			t.Errorf("%s: %d requests counted", c.what, n)
		}
	}
	w.Reload("m", "0 24 linear soft 0")
	if err := do(block.OpRead, 0, 512, k); err != nil {
		t.Fatal(err)
	}
	if c := dev.Counters(); c.Software != [2]uint64{2, 1} || c.Native != [2]uint64{1, 1} {
		t.Errorf("after the reload: %+v", c)
	}
	// The leaf sees those that came to it with their context.
	if c := w.Device("hard").Counters(); c.Native != [2]uint64{2, 1} || c.Software != [2]uint64{} {
		t.Errorf("the disk with an engine: %+v", c)
	}
	if c := w.Device("soft").Counters(); c.Native != [2]uint64{} || c.Software != [2]uint64{} {
		t.Errorf("the disk without: %+v", c)
	}
}
