package target_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"keyway/block"
	"keyway/internal/dmtest"
)

// paths tells to which of the disks each region of 8 sectors goes: a write of
// the region's number lands there.
func paths(t *testing.T, w *dmtest.World, disks []*dmtest.RAM, regions int) string {
	t.Helper()
	dev := w.Handle("d")
	defer dev.Close()
	var got strings.Builder
	for r := range regions {
		for _, d := range disks {
			d.Set(make([]byte, 1<<20))
		}
		dmtest.Write(t, dev, int64(r)*4096, bytes.Repeat([]byte{9}, 4096))
		for i, d := range disks {
			b := d.Bytes()
			if n := bytes.Count(b, []byte{9}); n != 0 {
				fmt.Fprintf(&got, "%x", i)
				if n != 4096 || b[r*4096] != 9 || b[r*4096+4095] != 9 {
					t.Errorf("region %d: %d bytes on disk %d, and not all where they belong", r, n, i)
				}
			}
		}
	}
	return got.String()
}

// TestSwitchRegionMappings: how each message changes the region table, that
// one refused changes nothing, and what is said then.
func TestSwitchRegionMappings(t *testing.T) {
	for _, c := range []struct{ message, want, refused string }{
		{message: "set_region_mappings", want: "0120120120120120"},
		{message: "set_region_mappings 0:2 :2 :1", want: "2210120120120120"},
		{message: "SET_REGION_MAPPINGS a:0 F:1", want: "0120120120020121"},
		{message: "set_region_mappings :2", want: "0220120120120120"}, // the kernel begins after region 0
		{message: "set_region_mappings 0:1 R1,f", want: "1111111111111111"},
		{message: "set_region_mappings 1:0 :2 r2,8", want: "0020202020220120"},
		{message: "set_region_mappings 3:2 R4,4 :0", want: "0122012200120120"},
		{message: "set_region_mappings R1,3", want: "0000120120120120"},
		{message: "set_region_mappings 5:0 R1,0 :0", want: "0120100120120120"},
		{message: "set_region_mappings 0:1 10:1", refused: `word 2: "10:1": region 0x10: the last is 0xf`},
		{message: "set_region_mappings 0:3", refused: `word 1: "0:3": path 0x3: the last is 0x2`},
		{message: "set_region_mappings 0:1 R1,10", refused: "0x10 regions after region 0x0: the last is 0xf"},
		{message: "set_region_mappings 2:1 R4,1", refused: "0x4 mappings up to region 0x2: there are 0x3"},
		{message: "set_region_mappings 0:1 R0,1", refused: "0x0 mappings"},
		{message: "set_region_mappings R1", refused: "is not of the form RN,M"},
		{message: "set_region_mappings R,1", refused: `number of mappings "" is not`},
		{message: "set_region_mappings R1,", refused: `number of regions "" is not`},
		{message: "set_region_mappings 0:1 0", refused: "is neither [REGION]:PATH nor RN,M"},
		{message: "set_region_mappings 0:1 0:", refused: `path "" is not a number in hex`},
		{message: "set_region_mappings g:1", refused: `region "g" is not a number in hex`},
		{message: "set_region_mappings ffffffffffffffff:1 :1", refused: "is not a number in hex"},
		{message: "set_region_mappings 0:1 R1,7fffffffffffffff", refused: "regions after region 0x0"},
		{message: "mappings 0:1", refused: `no message "mappings"`},
	} {
		t.Run(c.message, func(t *testing.T) {
			w := dmtest.New(t)
			disks := []*dmtest.RAM{w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0), w.Disk("c", 1<<20, 0)}
			dev := w.Map("d", "0 128 switch 3 8 0 a 0 b 0 c 0")
			answer, err := dev.Message(t.Context(), 0, strings.Fields(c.message))
			want := c.want
			if want == "" {
				want = "0120120120120120"
			}
			if answer != "" || (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%q, %v; want %q", answer, err, c.refused)
			}
			if got := paths(t, w, disks, 16); got != want {
				t.Errorf("regions are on paths %s, want %s", got, want)
			}
		})
	}
}

// TestSwitchFlushReachesEveryPath (invariant 12), also those without regions
// now.
func TestSwitchFlushReachesEveryPath(t *testing.T) {
	w := dmtest.New(t)
	disks := []*dmtest.RAM{w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0)}
	dev := w.Map("d", "0 120 switch 2 8 0 a 8 b 0\n120 8 linear a 0")
	say(t, dev, 0, "set_region_mappings 0:0 R1,e")
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); err != nil {
		t.Fatal(err)
	}
	for i, d := range disks {
		if n := d.Count(block.OpFlush); n != 1 {
			t.Errorf("disk %d had %d flushes, want 1", i, n)
		}
	}
}

// TestSwitchPassesContexts where regions are whole data units, and every path
// has an engine.
func TestSwitchPassesContexts(t *testing.T) {
	for _, c := range []struct {
		region, slots int
		native        bool
	}{{8, 2, true}, {64, 2, true}, {12, 2, false}, {3, 2, false}, {8, 0, false}} {
		t.Run(fmt.Sprint(c.region, c.slots), func(t *testing.T) {
			w := dmtest.New(t)
			w.Disk("a", 1<<20, 2)
			w.Disk("b", 1<<20, c.slots)
			table := fmt.Sprintf("0 1024 switch 2 %d 0 a 8 b 1", c.region)
			checkContexts(t, w, table, table, c.native)
		})
	}
}

// TestSwitchWhileItIsUsed: requests that cross regions go by one table while
// messages change it; both paths hold the same.
func TestSwitchWhileItIsUsed(t *testing.T) {
	w := dmtest.New(t)
	a, b := w.Disk("a", 1<<20, 0), w.Disk("b", 1<<20, 0)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i>>9 + i)
	}
	a.Set(data)
	b.Set(data)
	dev := w.Map("d", "0 2048 switch 2 8 0 a 0 b 0")
	stop := make(chan struct{})
	told := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				told <- nil
				return
			default:
				_, err = dev.Message(t.Context(), 0, []string{"set_region_mappings", fmt.Sprintf("%x:%x", i%256, i/256%2), "R1,0"})
			}
		}
		told <- err
	}()
	for i := range int64(300) {
		off := i * 37 % 2000 * 512
		if got := dmtest.Read(t, dev, off, 48*512); !bytes.Equal(got, data[off:off+48*512]) {
			t.Fatalf("read at %d differs at %d", off, firstDiff(got, data[off:]))
		}
	}
	close(stop)
	if err := <-told; err != nil {
		t.Error(err)
	}
}
