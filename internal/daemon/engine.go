package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyway/internal/nearest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
	"keyway/keystore"
)

// An engineSpec is a parsed --engine.
type engineSpec struct {
	name  string
	slots int       // of cpu
	emul  emul.Spec // of an emulated controller
}

// parseEngine reads NAME[?k=v&...]. The empty text is "none".
func parseEngine(text string) (engineSpec, error) {
	name, query, _ := strings.Cut(text, "?")
	e := engineSpec{name: name, slots: soft.DefaultSlots}
	switch name {
	case "", "none":
		e.name = "none"
	case "cpu":
	default:
		known := append([]string{"none", "cpu"}, emul.Kinds()...)
		for _, k := range emul.Kinds() {
			if k == name {
				var err error
				e.emul, err = emul.ParseSpec(text)
				return e, err
			}
		}
		return e, fmt.Errorf("engine %q does not exist%s", name, didYouMean(name, known))
	}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		if e.name != "cpu" || key != "slots" {
			known := "it has no options"
			if e.name == "cpu" {
				known = "known: slots"
				if nearest.Of(key, []string{"slots"}) != "" {
					known = "did you mean \"slots\"?"
				}
			}
			return e, fmt.Errorf("engine %q has no option %q (%s)", e.name, key, known)
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 65536 {
			return e, fmt.Errorf("engine %q: option \"slots\": %q is not a number from 1 to 65536", e.name, value)
		}
		e.slots = n
	}
	return e, nil
}

// makeEngine makes the engine for the leaf device called name, nil for none. stop
// ends what it does by itself, and may be nil.
func (d *Daemon) makeEngine(e engineSpec, name string) (m *keyslot.Manager, stop func(), err error) {
	title := fmt.Sprintf("engine %s of device %q", e.name, name)
	switch e.name {
	case "none":
		return nil, nil, nil
	case "cpu":
		return keyslot.New(soft.New(title, e.slots)), nil, nil
	}
	if e.emul.Wrapped() {
		if e.emul.Options.Hardware, err = d.hardware(); err != nil {
			return nil, nil, err
		}
	}
	engine := emul.New(title, e.emul.Options)
	m = keyslot.New(engine)
	if every := e.emul.ResetEvery; every > 0 {
		stop = d.resetEvery(every, m, engine)
	}
	return m, stop, nil
}

// trace has the keyslots of m traced, if anything is and m is not nil.
func (d *Daemon) trace(m *keyslot.Manager) {
	if m != nil && d.o.Trace != nil {
		m.Trace(d.o.Trace.Engine(m.Name(), m.Stats().Slots))
	}
}

// resetEvery resets a controller until stop is called, which returns when the last
// reset has ended.
func (d *Daemon) resetEvery(every time.Duration, m *keyslot.Manager, e *emul.Engine) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if err := m.Reset(e.Lose); err != nil {
				d.log.Warn("reset", "engine", e.Name(), "err", err)
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// hardware is what the emulated engines of this daemon share, so that a wrapped key
// is good for all of them. Its fuses lie in the state directory: whoever has them
// can open wrapped keys.
func (d *Daemon) hardware() (*emul.Hardware, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.emulated != nil {
		return d.emulated, nil
	}
	path := filepath.Join(d.state.path, "fuses")
	fuses, err := keystore.Generate(path, emul.FuseSize)
	if errors.Is(err, fs.ErrExist) {
		fuses, err = keystore.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("fuses of the emulated engines: %w", err)
	}
	defer fuses.Wipe()
	d.emulated, err = emul.NewHardware(fuses.Bytes())
	if err != nil {
		return nil, hint(fmt.Errorf("fuses of the emulated engines in %s: %w", path, err),
			"put the right file back; without it no key that these engines wrapped can be used")
	}
	return d.emulated, nil
}
