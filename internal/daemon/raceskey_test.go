//go:build invariants || race

package daemon

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"keyway/control"
	"keyway/internal/interleave"
	"keyway/keystore"
)

const raceTable = "0 16 default-key aes-xts-plain64 :64:logon:k 0 disk 0 2 sector_size:4096 iv_large_sectors"

func raceKey(w *interleave.World, d *Daemon) (add func(context.Context) error) {
	raw := make([]byte, 64)
	for i := range raw {
		raw[i] = byte(i)
	}
	file := filepath.Join(w.TempDir(), "k")
	if err := os.WriteFile(file, bytes.Clone(raw), 0o600); err != nil {
		w.Fatal(err)
	}
	return func(ctx context.Context) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = d.addKey(ctx, control.AddKey{Name: "k", Mode: "AES-256-XTS", DataUnit: 4096, Source: file, File: file}, f)
		return err
	}
}

func (d *Daemon) problemOf(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[name].problem
}

// A key is evicted while a device that uses it gets another table: in the end the
// device has a problem only if it is without its key.
func TestRaceEvictionAgainstAnotherTable(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keystore: withdrawn", "keystore: evicted", "daemon: key evicted", "daemon: table built"},
		Outcomes: []string{"reloaded"},
		World: func(w *interleave.World) {
			d := newRaceDaemon(w)
			add := raceKey(w, d)
			d.raceCreate(w, control.Create{Name: "disk", Backend: "mem:64K"})
			if err := add(w.Ctx); err != nil {
				w.Fatal(err)
			}
			d.raceCreate(w, control.Create{Name: "vol", Table: raceTable})
			w.Go("evict", func() {
				if e, err := d.evictKey(w.Ctx, "k", control.EvictKey{}); err != nil || e.Error != "" {
					w.Errorf("evict: %v %s", err, e.Error)
				}
			})
			w.Go("reload", func() {
				if _, err := d.reload(w.Ctx, "vol", control.Load{Table: "0 16 zero"}); err != nil {
					w.Errorf("reload: %v", err)
				}
				w.Outcome("reloaded")
			})
			w.Check(func() {
				if p := d.problemOf("vol"); p != "" {
					w.Errorf("vol has a table that needs no key, and the problem %q", p)
				}
			})
		},
	})
}

// A key is evicted and comes back: when both have ended, the devices that use it work
// if it is there, whoever was last.
func TestRaceEvictionAgainstTheSameKeyAgain(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keystore: withdrawn", "keystore: evicted", "daemon: key evicted"},
		Outcomes: []string{"added", "too early"},
		World: func(w *interleave.World) {
			d := newRaceDaemon(w)
			add := raceKey(w, d)
			d.raceCreate(w, control.Create{Name: "disk", Backend: "mem:64K"})
			if err := add(w.Ctx); err != nil {
				w.Fatal(err)
			}
			d.raceCreate(w, control.Create{Name: "vol", Table: raceTable})
			added := false
			w.Go("evict", func() {
				if e, err := d.evictKey(w.Ctx, "k", control.EvictKey{}); err != nil || e.Error != "" {
					w.Errorf("evict: %v %s", err, e.Error)
				}
			})
			w.Go("add", func() {
				switch err := add(w.Ctx); {
				case err == nil:
					added = true
					w.Outcome("added")
				case errors.Is(err, keystore.ErrEvicting), errors.Is(err, keystore.ErrExists):
					w.Outcome("too early")
				default:
					w.Errorf("add: %v", err)
				}
			})
			w.Check(func() {
				if p := d.problemOf("vol"); (p == "") != added {
					w.Errorf("the key is there: %v; the problem of vol: %q", added, p)
				}
			})
		},
	})
}

// A key is evicted while a device that uses it gets its table anew. Whether the reload
// succeeds or not, the device is without its key in the end, and says so.
func TestRaceEvictionAgainstTheSameTable(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"keystore: withdrawn", "keystore: evicted", "daemon: key evicted", "daemon: table built", "daemon: reloaded"},
		Outcomes: []string{"reloaded", "refused"},
		World: func(w *interleave.World) {
			d := newRaceDaemon(w)
			add := raceKey(w, d)
			d.raceCreate(w, control.Create{Name: "disk", Backend: "mem:64K"})
			if err := add(w.Ctx); err != nil {
				w.Fatal(err)
			}
			d.raceCreate(w, control.Create{Name: "vol", Table: raceTable})
			w.Go("evict", func() {
				if e, err := d.evictKey(w.Ctx, "k", control.EvictKey{}); err != nil || e.Error != "" {
					w.Errorf("evict: %v %s", err, e.Error)
				}
			})
			w.Go("reload", func() {
				if _, err := d.reload(w.Ctx, "vol", control.Load{Table: raceTable}); err != nil {
					w.Outcome("refused")
				} else {
					w.Outcome("reloaded")
				}
			})
			w.Check(func() {
				if d.problemOf("vol") == "" {
					w.Errorf("vol is without its key, and has no problem")
				}
			})
		},
	})
}
