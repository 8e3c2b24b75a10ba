package dm_test

import (
	"context"
	"testing"

	"keyway/backend"
	"keyway/block"
	"keyway/internal/dmtest"
	"keyway/internal/race"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

func newEngine(slots int) *keyslot.Manager { return keyslot.New(soft.New("cpu", slots)) }

// null is a disk that does nothing, so that the stack over it can be timed.
type null struct{ size int64 }

func (null) Do(context.Context, block.Request) error { return nil }
func (null) Close() error                            { return nil }
func (n null) Info() block.Info {
	return block.Info{
		Size: n.size, LogicalBlock: 512, PhysicalBlock: 4096, FUA: block.Native, Discard: block.Native,
		Zeroes: block.Native, NeverBlocks: true,
	}
}

// stacksToTime are those that the issue of speed is about: what they add to a
// request of 4 KiB.
var stacksToTime = []struct {
	name  string
	build func(w *dmtest.World) block.Device
}{
	{"leaf", func(w *dmtest.World) block.Device { return w.Handle("plain") }},
	{"linear on leaf", func(w *dmtest.World) block.Device { return w.Map("d", "0 2048 linear plain 0") }},
	{"two linears on leaf", func(w *dmtest.World) block.Device {
		w.Map("d", "0 2048 linear plain 0")
		return w.Map("d2", "0 2048 linear d 0")
	}},
	{"default-key on engine", func(w *dmtest.World) block.Device {
		return w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 engine 0 2 sector_size:4096 iv_large_sectors")
	}},
	{"default-key on engine on memory", func(w *dmtest.World) block.Device {
		return w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 memory 0 2 sector_size:4096 iv_large_sectors")
	}},
	{"default-key on fallback", func(w *dmtest.World) block.Device {
		return w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 plain 0 2 sector_size:4096 iv_large_sectors")
	}},
	{"crypt on engine", func(w *dmtest.World) block.Device {
		return w.Map("d", "0 2048 crypt aes-xts-plain64 "+metaKey+" 0 engine 0 2 sector_size:4096 iv_large_sectors")
	}},
	{"linear on default-key on engine", func(w *dmtest.World) block.Device {
		w.Map("d", "0 2048 default-key aes-xts-plain64 "+metaKey+" 0 engine 0 2 sector_size:4096 iv_large_sectors")
		return w.Map("d2", "0 2048 linear d 0")
	}},
	{"striped on two", func(w *dmtest.World) block.Device { return w.Map("d", "0 2048 striped 2 128 plain 0 plain 0") }},
}

func timedWorld(tb testing.TB) *dmtest.World {
	w := dmtest.New(tb)
	w.Leaf("plain", null{1 << 20}, nil)
	w.Leaf("engine", null{1 << 20}, newEngine(4))
	memory, err := backend.Open(context.Background(), "mem:1M", backend.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	w.Leaf("memory", memory, newEngine(4))
	return w
}

// TestNoAllocationPerRequest in steady state, whatever the flags.
func TestNoAllocationPerRequest(t *testing.T) {
	for _, st := range stacksToTime {
		dev := st.build(timedWorld(t))
		data := block.Bytes(make([]byte, 4096))
		for _, r := range []block.Request{
			{Op: block.OpRead, Len: 4096, Data: data},
			{Op: block.OpWrite, Len: 4096, Data: data},
			{Op: block.OpWrite, Flags: block.Scratch | block.NoWait, Len: 4096, Data: data},
			{Op: block.OpRead, Flags: block.NoWait, Len: 4096, Data: data},
			{Op: block.OpFlush},
		} {
			run := func() {
				if err := dev.Do(context.Background(), r); err != nil {
					t.Fatal(err)
				}
			}
			if r.NoWait() {
				warm := r
				warm.Flags = 0
				dev.Do(context.Background(), warm) // the key is in its slot from then on
			}
			if n := testing.AllocsPerRun(100, run); n != 0 && !race.Enabled {
				t.Errorf("%s: %v with flags %b allocates %v times", st.name, r.Op, r.Flags, n)
			}
		}
	}
}

func BenchmarkStack(b *testing.B) {
	for _, st := range stacksToTime {
		b.Run(st.name, func(b *testing.B) {
			dev := st.build(timedWorld(b))
			r := block.Request{Op: block.OpRead, Len: 4096, Data: block.Bytes(make([]byte, 4096))}
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if err := dev.Do(ctx, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
