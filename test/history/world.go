package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	_ "keyway/dm/target" // the targets that tables name
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
)

// A material is a key of the key store.
type material struct {
	name    string
	raw     []byte
	wrapped bool
	blob    []byte // for the long term
}

// A keyUse is a key under one config: one of an upper layer, or one that tables
// have taken.
type keyUse struct {
	*cipher
	name string
	id   int // of those of an upper layer
	of   *material
	real *blkcrypto.Key
	told []byte // what engines are told

	// The steps of its eviction, 0 before: when it was asked for, after which no
	// new request is served, after which nothing has the key any more. Guarded by
	// world.mu for keys of tables.
	closed, sealed, dead int
	counted              int // requests of earlier steps had surely begun when the eviction was asked for
	killed               int // the step from which on the key is revoked, 0: it is not

	uses int              // by tables; guarded by world.mu
	sent map[*device]bool // where the upper layer has sent requests with it
}

type useID struct {
	name string
	cfg  blkcrypto.Config
}

// A world is what the product lives in: a dm.Env.
type world struct {
	fallback *engine
	hardware *emul.Hardware

	mu        sync.Mutex
	now       int // the step
	devices   map[string]*dm.Mapped
	materials map[string]*material
	taken     map[useID]*keyUse // by tables
	left      []*keyUse         // those that tables gave back
	warnings  []error
}

func newWorld(slots int) (*world, error) {
	h, err := emul.NewHardware(make([]byte, emul.FuseSize))
	if err != nil {
		return nil, err
	}
	w := &world{hardware: h, devices: map[string]*dm.Mapped{}, materials: map[string]*material{}, taken: map[useID]*keyUse{}}
	w.fallback = newEngine(soft.New("fallback", slots), fmt.Sprintf("soft with %d slots", slots))
	return w, nil
}

// Open opens a device by name.
func (w *world) Open(_ context.Context, name string, _ bool) (block.Device, error) {
	w.mu.Lock()
	m := w.devices[name]
	w.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("no device %q", name)
	}
	return m.Open("a table")
}

// Fallback is the one software engine of all devices.
func (w *world) Fallback() *keyslot.Manager { return w.fallback.m }

// Key returns a key for a table.
func (w *world) Key(_ context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.materials[ref.Name]
	if m == nil {
		return nil, nil, fmt.Errorf("no key %q", ref.Name)
	}
	id := useID{ref.Name, c}
	u := w.taken[id]
	if u == nil || u.real.Evicted() { // by a reload that revokes: the key of the store is alive
		var err error
		if u, err = w.newUse(ref.Name, m, c, weak); err != nil {
			return nil, nil, err
		}
		w.taken[id] = u
	}
	u.uses++
	return u.real, func(ctx context.Context) error { return w.giveBack(ctx, id, u) }, nil
}

// giveBack evicts the key when no table has it any more.
func (w *world) giveBack(ctx context.Context, id useID, u *keyUse) error {
	w.mu.Lock()
	u.uses--
	last := u.uses == 0
	if last {
		if w.taken[id] == u {
			delete(w.taken, id)
		}
		w.left = append(w.left, u)
		if u.closed == 0 {
			u.closed = w.now
		}
		u.sealed = w.now
	}
	w.mu.Unlock()
	if !last {
		return nil
	}
	_, err := u.real.Evict(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && u.dead == 0 {
		u.dead = w.now
	}
	return err
}

// newUse makes a key of m under c.
func (w *world) newUse(name string, m *material, c blkcrypto.Config, weak bool) (*keyUse, error) {
	told, key := slices.Clone(m.raw), m.raw
	if c.KeyType == blkcrypto.HWWrapped {
		if !m.wrapped {
			return nil, fmt.Errorf("key %q is not wrapped", name)
		}
		prepared, err := w.hardware.Prepare(m.blob)
		if err != nil {
			return nil, err
		}
		told = slices.Clone(prepared.Bytes())
		prepared.Wipe()
		key = derived(m.raw)
	}
	b, err := secret.Copy(slices.Clone(told))
	if err != nil {
		return nil, err
	}
	build := blkcrypto.NewKey
	if weak {
		build = blkcrypto.NewDMCryptKey
	}
	k, err := build(name, c, b)
	if err != nil {
		return nil, err
	}
	return &keyUse{cipher: newCipher(c, key), name: name, of: m, real: k, told: told, sent: map[*device]bool{}}, nil
}

// addMaterial puts a random key of n bytes into the store; of a wrapped one n is
// what the hardware takes.
func (w *world) addMaterial(r *rand.Rand, name string, n int, wrapped bool) (*material, error) {
	m := &material{name: name, raw: random(r, n), wrapped: wrapped}
	if wrapped {
		long, err := w.hardware.Import(m.raw)
		if err != nil {
			return nil, err
		}
		m.blob = slices.Clone(long.Bytes())
		long.Wipe()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.materials[name] = m
	return m, nil
}

// options of every device: what goes wrong late is kept.
func (w *world) options() dm.Options {
	return dm.Options{Warn: func(_ *dm.Mapped, err error) {
		if errors.Is(err, errFault) {
			return // asked for
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.warnings = append(w.warnings, err)
	}}
}

func (w *world) put(name string, m *dm.Mapped) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m == nil {
		delete(w.devices, name)
	} else {
		w.devices[name] = m
	}
}

func (w *world) device(name string) *dm.Mapped {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.devices[name]
}

// use is the key that tables have taken under the name and config.
func (w *world) use(name string, c blkcrypto.Config) *keyUse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken[useID{name, c}]
}

// random returns n bytes.
func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
