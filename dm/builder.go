package dm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// A Builder gives the constructor of a target what it stands on. What it
// opened is closed, and what it took is given back, when the constructor
// fails or the table is closed.
type Builder struct {
	env      Env
	ctx      context.Context
	readOnly bool
	start    int64 // of the row in its table, in bytes
	length   int64 // bytes of the row

	typ    string // of the target
	events atomic.Pointer[events]

	devices []block.Device
	release []giveBack

	mu   sync.Mutex
	keys []*blkcrypto.Key // taken and not given back; guarded by mu
}

// giveBack ends a use of a key.
type giveBack struct {
	key *blkcrypto.Key
	do  func(context.Context) error
}

// Context bounds what a constructor does. It is over when the constructor returns.
func (b *Builder) Context() context.Context { return b.ctx }

// Len is the length of the row in bytes.
func (b *Builder) Len() int64 { return b.length }

// Start is where the row begins in its table, in bytes.
func (b *Builder) Start() int64 { return b.start }

// ReadOnly reports whether the table is.
func (b *Builder) ReadOnly() bool { return b.readOnly }

// Open opens a device that a row names. The result honours contexts. The
// builder closes it; a target may close it too, or not.
func (b *Builder) Open(name string) (block.Device, error) {
	dev, err := b.env.Open(b.ctx, name, b.readOnly)
	if err != nil {
		return nil, err
	}
	if dev.Info().ReadOnly && !b.readOnly {
		return nil, errors.Join(fmt.Errorf("device %q is read-only, and the table is not", name), dev.Close())
	}
	if _, ok := dev.(*Handle); !ok {
		dev = honour(dev, b.env.Fallback())
	}
	b.devices = append(b.devices, dev)
	return dev, nil
}

// OpenSpan is Open for a target that uses as many bytes of the device, from
// start on, as its row has.
func (b *Builder) OpenSpan(name string, start, length int64) (block.Device, error) {
	dev, err := b.Open(name)
	if err != nil {
		return nil, err
	}
	return dev, checkSpan(name, dev.Info(), start, length)
}

func checkSpan(name string, i block.Info, start, length int64) error {
	switch {
	case start < 0 || start > i.Size || length > i.Size-start:
		return fmt.Errorf("device %q is too small: %d sectors from sector %d on do not fit its %d",
			name, length>>sectorShift, start>>sectorShift, i.Size>>sectorShift)
	case (start|length)%int64(i.LogicalBlock) != 0:
		return fmt.Errorf("device %q has blocks of %d bytes: %d sectors from sector %d on are not whole blocks",
			name, i.LogicalBlock, length>>sectorShift, start>>sectorShift)
	}
	return nil
}

// Key takes a key that a row names.
func (b *Builder) Key(ref KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, error) {
	return b.TakeKey(b.ctx, ref, c, weak)
}

// TakeKey is Key for a target that changes its key in a message.
func (b *Builder) TakeKey(ctx context.Context, ref KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, error) {
	k, release, err := b.env.Key(ctx, ref, c, weak)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release = append(b.release, giveBack{k, release})
	b.keys = append(b.keys, k)
	return k, nil
}

// lostKeys are the keys of the row that have been evicted.
func (b *Builder) lostKeys() (lost []*blkcrypto.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.keys {
		if k.Evicted() {
			lost = append(lost, k)
		}
	}
	return lost
}

// LostKeys returns the names of the keys that rows of the live table have taken and
// that have been evicted: requests that need them fail until the table is loaded anew.
func (m *Mapped) LostKeys() (names []string) {
	t := m.live.Load()
	if t == nil {
		return nil
	}
	for i := range t.rows {
		for _, k := range t.rows[i].builder.lostKeys() {
			if !slices.Contains(names, k.Name()) {
				names = append(names, k.Name())
			}
		}
	}
	return names
}

// GiveBack gives back a key before the table is closed, in a message while nothing
// uses it, with all that StartKey declared of it. It is given back whatever the
// error, which tells where something of it may be left.
func (b *Builder) GiveBack(ctx context.Context, k *blkcrypto.Key) error {
	b.mu.Lock()
	b.keys = slices.DeleteFunc(b.keys, func(other *blkcrypto.Key) bool { return other == k })
	b.mu.Unlock()
	var errs []error
	kept := b.release[:0:0]
	for _, r := range slices.Backward(b.release) { // it is stopped before it goes
		if r.key == k {
			errs = append(errs, r.do(ctx))
		} else {
			kept = append(kept, r)
		}
	}
	slices.Reverse(kept)
	b.release = kept
	return errors.Join(errs...)
}

// StartKey declares that the target will send requests with k to dev, which Open
// returned: see Mapped.StartKey. by says what kind of target it is.
func (b *Builder) StartKey(dev block.Device, k *blkcrypto.Key, by string) error {
	h, ok := dev.(*Handle)
	if !ok {
		p := dev.Info().Crypto
		if c := k.Config(); c.KeyType == blkcrypto.HWWrapped && !p.Supports(c) {
			return fmt.Errorf("%w: no engine there takes key %v, and a wrapped key has no software form", block.ErrNoCrypto, k)
		}
		return nil
	}
	stop, err := h.startKey(&use{key: k, by: by, row: b})
	if err != nil {
		return err
	}
	b.release = append(b.release, giveBack{k, func(context.Context) error { stop(); return nil }})
	return nil
}

// undo closes and gives back everything.
func (b *Builder) undo(ctx context.Context) error {
	var errs []error
	for _, f := range b.release {
		errs = append(errs, f.do(ctx))
	}
	for _, d := range b.devices {
		errs = append(errs, d.Close())
	}
	b.release, b.devices = nil, nil
	return errors.Join(errs...)
}

// honouring is a device that is no mapped device, with the fallback beside
// it: contexts that its own engine does not support go through software.
type honouring struct {
	block.Device
	profile blkcrypto.Profile
	soft    block.Device
	once    sync.Once
	closed  error
}

func honour(dev block.Device, fallback *keyslot.Manager) block.Device {
	return &honouring{Device: dev, profile: dev.Info().Crypto, soft: keyslot.Fallback(dev, fallback)}
}

func (h *honouring) Close() error {
	h.once.Do(func() { h.closed = h.Device.Close() })
	return h.closed
}

func (h *honouring) Do(ctx context.Context, r block.Request) error {
	if r.Crypt.Active() && !h.profile.Supports(r.Crypt.Key.Config()) {
		return h.soft.Do(ctx, r)
	}
	return h.Device.Do(ctx, r)
}

func (h *honouring) Under() []block.Span {
	return []block.Span{{Dev: h.Device, Len: h.Device.Info().Size}}
}
