//go:build invariants || race

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"keyway/control"
	"keyway/internal/interleave"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// Races of dm-fscrypt.md, section 15, where they live in the daemon: 20 and 21, and what
// it remembers of tables that change.

// newRaceDaemon is a daemon of one interleaving: without sockets, whose readers the
// scheduler could not wait for.
func newRaceDaemon(w *interleave.World) *Daemon {
	d := &Daemon{
		log: slog.New(slog.DiscardHandler), fallback: keyslot.New(soft.New("fallback", 2)),
		multi: make(chan struct{}, 1), wiring: make(chan struct{}, 1),
		devices: map[string]*device{}, implicit: map[string]*implicitLeaf{}, servers: map[string]*nbdServer{},
		configKey: map[string]bool{},
	}
	d.events.daemon = "race"
	d.ending, d.end = context.WithCancel(context.Background())
	var err error
	if d.state, err = openState(w.TempDir()); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			w.Errorf("close: %v", err)
		}
	})
	return d
}

func (d *Daemon) raceCreate(w *interleave.World, r control.Create) {
	if _, err := d.create(w.Ctx, r); err != nil {
		w.Fatal(err)
	}
}

// texts is what the state remembers of a device's tables, "" for one that is not there.
func (d *Daemon) texts(name string) (live, inactive string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.devices[name]
	if v == nil {
		return "", ""
	}
	if v.spec.Live != nil {
		live = strings.TrimSpace(v.spec.Live.Text)
	}
	if v.spec.Inactive != nil {
		inactive = strings.TrimSpace(v.spec.Inactive.Text)
	}
	return live, inactive
}

// A device is renamed while another gets a table over it. Whichever is first, the table
// that is remembered names the device as it is called in the end: else the next start
// would not find it, or find another device of the old name (race 21: rename).
func TestRaceRenameAgainstTablesThatNameTheDevice(t *testing.T) {
	for name, change := range map[string]func(ctx context.Context, d *Daemon) error{
		"load": func(ctx context.Context, d *Daemon) error {
			_, err := d.load(ctx, "top", control.Load{Table: "0 8 linear disk 0"})
			return err
		},
		"reload": func(ctx context.Context, d *Daemon) error {
			_, err := d.reload(ctx, "top", control.Load{Table: "0 8 linear disk 0"})
			return err
		},
		"create": func(ctx context.Context, d *Daemon) error {
			_, err := d.create(ctx, control.Create{Name: "new", Table: "0 8 linear disk 0"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"daemon: table built", "daemon: parents taken"},
				Outcomes: []string{"changed", "no such device"},
				World: func(w *interleave.World) {
					d := newRaceDaemon(w)
					d.raceCreate(w, control.Create{Name: "disk", Backend: "mem:64K"})
					d.raceCreate(w, control.Create{Name: "top", Table: "0 16 zero"})
					changed := false
					w.Go("change", func() {
						switch err := change(w.Ctx, d); {
						case err == nil:
							changed = true
							w.Outcome("changed")
						case errors.Is(err, errNotFound):
							w.Outcome("no such device")
						default:
							w.Errorf("change: %v", err)
						}
					})
					w.Go("rename", func() {
						if _, err := d.rename(w.Ctx, "disk", "ssd"); err != nil {
							w.Errorf("rename: %v", err)
						}
					})
					w.Check(func() {
						all := ""
						for _, name := range []string{"top", "new"} {
							live, inactive := d.texts(name)
							all += live + "," + inactive + ";"
						}
						if strings.Contains(all, "disk") || strings.Contains(all, "ssd") != changed {
							w.Errorf("after the rename the state has the tables %q", all)
						}
					})
				},
			})
		})
	}
}

// Race 20 in the daemon: a device whose removal is deferred is renamed while it is closed
// for the last time. It is gone then, under either name, and whoever renames it too late
// hears that there is none.
func TestDMRace20RenameAgainstLastClose(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"daemon: parents taken", "dm: last close", "dm: removing"},
		Outcomes: []string{"renamed", "no such device"},
		World: func(w *interleave.World) {
			d := newRaceDaemon(w)
			d.raceCreate(w, control.Create{Name: "disk", Backend: "mem:64K"})
			h, err := d.devices["disk"].m.Open("the test")
			if err != nil {
				w.Fatal(err)
			}
			if _, err := d.remove(w.Ctx, "disk", control.Remove{Deferred: true}); err != nil {
				w.Fatal(err)
			}
			w.Go("close", func() {
				if err := h.Close(); err != nil {
					w.Errorf("close: %v", err)
				}
			})
			w.Go("rename", func() {
				switch _, err := d.rename(w.Ctx, "disk", "ssd"); {
				case err == nil:
					w.Outcome("renamed")
				case errors.Is(err, errNotFound):
					w.Outcome("no such device")
				default:
					w.Errorf("rename: %v", err)
				}
			})
			w.Check(func() {
				for name := range d.devices {
					w.Errorf("device %q has been removed and is listed", name)
				}
				d.raceCreate(w, control.Create{Name: "ssd", Backend: "mem:64K"})
			})
		},
	})
}
