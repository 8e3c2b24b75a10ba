package dm_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
)

// A scriptWorld is the dm.Env of one script.
type scriptWorld struct {
	*dmtest.World // for the keys that tables name
	tb            testing.TB

	fallback *keyslot.Manager
	soft     *scriptEngine
	leaves   map[string]*scriptLeaf
	handles  map[string]*dm.Handle // by "device who"
	keyMu    sync.RWMutex          // guards keys, which evictions in the background read
	keys     map[string]*scriptKey // by name
	jobs     map[string]*scriptJob
	hardware map[string]*emul.Hardware
	boots    []*emul.Hardware // all there ever were
	built    map[string]*dm.Table

	mu       sync.Mutex
	devs     map[string]*dm.Mapped
	engines  []*scriptEngine           // all there ever were
	tables   map[string]*blkcrypto.Key // the keys that tables took last
	secret   map[[512]byte]string      // sectors that were sent with a key
	leaked   []string
	events   map[*dm.Mapped][]string // that nobody has asked for yet
	warnings []string
}

func newScriptWorld(tb testing.TB) *scriptWorld {
	w := &scriptWorld{
		World: dmtest.New(tb), tb: tb, leaves: map[string]*scriptLeaf{}, handles: map[string]*dm.Handle{},
		keys: map[string]*scriptKey{}, jobs: map[string]*scriptJob{}, hardware: map[string]*emul.Hardware{}, built: map[string]*dm.Table{},
		events: map[*dm.Mapped][]string{}, devs: map[string]*dm.Mapped{}, tables: map[string]*blkcrypto.Key{},
		secret: map[[512]byte]string{},
	}
	w.setFallback(soft.FallbackSlots)
	return w
}

func (w *scriptWorld) setFallback(slots int) {
	w.soft = newScriptEngine("fallback")
	w.engines = []*scriptEngine{w.soft}
	w.fallback = keyslot.New(w.soft.over(soft.New("fallback", slots)))
	w.soft.manager = w.fallback
}

// Open opens a device by name.
func (w *scriptWorld) Open(_ context.Context, name string, _ bool) (block.Device, error) {
	w.mu.Lock()
	m := w.devs[name]
	w.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("no device %q", name)
	}
	return m.Open("a table")
}

// Fallback is the script's software engine.
func (w *scriptWorld) Fallback() *keyslot.Manager { return w.fallback }

// Key derives the key that ref names, and remembers it for evict.
func (w *scriptWorld) Key(ctx context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	k, release, err := w.World.Key(ctx, ref, c, weak)
	if err == nil {
		w.mu.Lock()
		w.tables[ref.Name] = k
		w.mu.Unlock()
	}
	return k, release, err
}

func (w *scriptWorld) options() dm.Options {
	return dm.Options{
		Warn: func(_ *dm.Mapped, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warnings = append(w.warnings, err.Error())
		},
		Event: func(m *dm.Mapped, e dm.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events[m] = append(w.events[m], string(e.Kind))
		},
		Gone: func(m *dm.Mapped) {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.devs, m.Name())
		},
	}
}

// device returns a device that the script has made.
func (w *scriptWorld) device(a *scriptArgs) *dm.Mapped {
	name := a.next("a device")
	w.mu.Lock()
	m := w.devs[name]
	w.mu.Unlock()
	if m == nil {
		a.ts.Fatalf("there is no device %q", name)
	}
	return m
}

func (w *scriptWorld) put(name string, m *dm.Mapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devs[name] = m
}

// parse makes a table of rows.
func (w *scriptWorld) parse(ctx context.Context, rows []string, readOnly bool) (*dm.Table, error) {
	return dm.Parse(ctx, strings.Join(rows, "\n"), w, dm.ParseOptions{ReadOnly: readOnly})
}

// A scriptLeaf is a disk in memory that can be stalled.
type scriptLeaf struct {
	*scriptEngine // never nil; without a manager the disk has none
	ram           *dmtest.RAM
}

// before is called for each request that reaches the disk.
func (w *scriptWorld) before(name string, l *scriptLeaf) func(context.Context, block.Request) error {
	return func(_ context.Context, r block.Request) error {
		if r.Op == block.OpWrite {
			w.look(name, &r)
		}
		return l.enter(r.Op.String())
	}
}

// look notes a sector that should have been encrypted on its way to a disk.
func (w *scriptWorld) look(disk string, r *block.Request) {
	data := make([]byte, r.Len)
	r.Data.CopyTo(data)
	w.mu.Lock()
	defer w.mu.Unlock()
	for off := 0; off < len(data); off += 512 {
		if text := w.secret[[512]byte(data[off:])]; text != "" {
			w.leaked = append(w.leaked, fmt.Sprintf("%s reached disk %s at sector %d as plaintext", text, disk, (r.Off+int64(off))>>9))
		}
	}
}

// hide makes it a fault if a disk gets to see this.
func (w *scriptWorld) hide(text string, data []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for off := 0; off+512 <= len(data); off += 512 {
		w.secret[[512]byte(data[off:])] = text
	}
}

// until waits for a condition that something in the background brings about.
func until(what string, met func() bool) error {
	for end := time.Now().Add(scriptPatience); !met(); runtime.Gosched() {
		if time.Now().After(end) {
			return fmt.Errorf("it never came to this: %s", what)
		}
	}
	return nil
}

// letGo ends the script: nothing is left, and nothing was lost on the way.
func (w *scriptWorld) letGo() {
	if err := w.finish(); err != nil && !w.tb.Failed() {
		w.tb.Error(err)
	}
	for _, h := range w.boots {
		h.Close()
	}
}

func (w *scriptWorld) finish() error {
	var errs []error
	for _, e := range w.engines {
		e.release("")
	}
	for name, j := range w.jobs {
		errs = append(errs, fmt.Errorf("%q was never waited for", name))
		j.cancel()
	}
	for _, h := range w.handles {
		h.Close()
	}
	errs = append(errs, w.removeAll())
	for name, j := range w.jobs {
		if err := until(name+" ends", func() bool {
			select {
			case <-j.ended:
				return true
			default:
				return false
			}
		}); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	for _, text := range w.leaked {
		errs = append(errs, errors.New(text))
	}
	for _, e := range w.engines {
		if e != w.soft && len(e.faults) == 0 && e.manager != nil {
			for slot, words := range e.registers(w) {
				errs = append(errs, fmt.Errorf("%s keeps %s in keyslot %d after its disk is gone", e.name, words, slot))
			}
		}
		if st := e.stats(); st.Busy > 0 {
			errs = append(errs, fmt.Errorf("%s: %d keyslots are still in use", e.name, st.Busy))
		}
	}
	return errors.Join(errs...)
}

// removeAll removes the devices, those on top first.
func (w *scriptWorld) removeAll() error {
	for {
		w.mu.Lock()
		var left []*dm.Mapped
		for _, m := range w.devs {
			left = append(left, m)
		}
		w.mu.Unlock()
		if len(left) == 0 {
			return nil
		}
		var errs []error
		for _, m := range left {
			ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
			err := m.Remove(ctx, dm.RemoveOptions{})
			cancel()
			if err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == len(left) {
			return errors.Join(errs...)
		}
	}
}
