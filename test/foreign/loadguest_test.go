package foreign

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"keyway/control"
	"keyway/test/harness"
)

// The second volume has an area on each leaf with an engine.
const (
	guestArea = miB / 4
	guestSize = 4 * guestArea
)

// A guest is a second volume beside the one under load, on the same leaves. Its key
// is evicted when its traffic has stopped, and added again.
type guest struct {
	w        *world
	sock     string
	key      []byte
	files    map[string]string // of keys, by name
	want     []byte            // what the volume holds
	rng      *rand.Rand
	requests int
}

func (w *world) newGuest() *guest {
	g := &guest{w: w, key: testKey(22), want: make([]byte, guestSize), rng: rand.New(rand.NewPCG(w.rng.Uint64(), 0)), files: map[string]string{}}
	for i, name := range []string{"guest", "nobodys"} {
		g.files[name] = filepath.Join(w.d.Dir, name+".key")
		if err := os.WriteFile(g.files[name], testKey(uint64(22+i)), 0o600); err != nil {
			w.t.Fatal(err)
		}
		g.addKey(name)
	}
	var rows strings.Builder
	for i, e := range loadEngines {
		name := e.leaf
		if i%2 == 1 {
			name = "over-" + name // which ceases to pass contexts from time to time
		}
		at := i * guestArea / 512
		fmt.Fprintf(&rows, "%d %d linear %s %d\n", at, guestArea/512, name, volume/512+at)
	}
	create(w.d, "guest-map", rows.String())
	create(w.d, "guest", fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:guest 0 guest-map 0 2 sector_size:4096 iv_large_sectors", guestSize/512))
	g.sock, _ = export(w.d, "guest")
	g.all(func(c *harness.NBD) { write(w.t, c, 0, g.want) })
	return g
}

// all does something over a connection of its own.
func (g *guest) all(f func(c *harness.NBD)) {
	c, err := harness.DialNBD("unix", g.sock, "guest")
	if err != nil {
		g.w.t.Error(err)
		return
	}
	defer c.Close()
	f(c)
}

func (g *guest) addKey(name string) bool {
	return g.w.do("key add "+name, func(ctx context.Context) error {
		f, err := os.Open(g.files[name])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = g.w.c.AddKey(ctx, control.AddKey{Name: name, Mode: "AES-256-XTS", DataUnit: 4096, Source: g.files[name], File: g.files[name]}, f)
		return err
	})
}

// run writes and reads, stops, evicts both keys and adds them again, until stop.
func (g *guest) run(stop <-chan struct{}) {
	for !g.w.t.Failed() {
		select {
		case <-stop:
			return
		default:
		}
		g.all(g.traffic)
		if !g.evict("nobodys") || !g.addKey("nobodys") {
			return
		}
		g.w.others++
		if !g.evict("guest") || !g.addKey("guest") {
			return
		}
		g.w.evictions++
	}
}

func (g *guest) traffic(c *harness.NBD) {
	for range 32 {
		off := g.rng.IntN(guestSize/4096) * 4096
		b := g.want[off:min(off+4096*(1+g.rng.IntN(4)), guestSize)]
		for i := range b {
			b[i] = byte(g.rng.Uint32())
		}
		got := make([]byte, len(b))
		for _, r := range []struct {
			cmd  uint16
			data []byte
		}{{harness.NBDWrite, b}, {harness.NBDRead, got}} {
			if e, err := c.Do(r.cmd, 0, int64(off), 0, r.data); e != 0 || err != nil {
				g.w.t.Errorf("second volume: command %d of %d bytes at %d: NBD error %d, %v", r.cmd, len(b), off, e, err)
				return
			}
			g.requests++
		}
		if !bytes.Equal(got, b) {
			g.w.t.Errorf("second volume: %d bytes at %d read differently than written", len(b), off)
			return
		}
	}
}

// evict evicts a key, and looks for it in the keyslots.
func (g *guest) evict(name string) bool {
	return g.w.do("key evict "+name, func(ctx context.Context) error {
		e, err := g.w.c.EvictKey(ctx, name, control.EvictKey{})
		if err != nil {
			return err
		}
		if e.Error != "" {
			return fmt.Errorf("%s: %+v", e.Error, e.Places)
		}
		x, err := g.w.c.Crypto(ctx, "guest-map")
		for _, engine := range x.Engines {
			for _, k := range engine.Keys {
				if k.Key == name {
					return fmt.Errorf("after the receipt %+v the key is in keyslot %d of %q", e.Places, k.Slot, engine.Engine)
				}
			}
		}
		return err
	})
}
