package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/daemon"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
	"keyway/keystore"
)

// A stack is the devices of a configuration in this process, brought up as they are
// asked for: what the daemon makes of the same file.
type stack struct {
	config   *daemon.Config
	keys     keystore.Store
	fallback *keyslot.Manager
	hardware *emul.Hardware // of engines that take wrapped keys
	up       []*dm.Mapped   // the lowest first
}

var _ dm.Env = (*stack)(nil)

// newStack reads the configuration and its keys.
func newStack(path string) (*stack, error) {
	c, err := daemon.ReadConfig(path)
	if err != nil {
		return nil, err
	}
	s := &stack{config: c, fallback: keyslot.New(soft.New("fallback", soft.FallbackSlots))}
	var fuses [emul.FuseSize]byte
	rand.Read(fuses[:])
	if s.hardware, err = emul.NewHardware(fuses[:]); err != nil {
		return nil, err
	}
	for _, k := range c.Keys {
		b, err := keyOf(k)
		if err == nil {
			err = s.keys.Add(keystore.Desc{Name: k.Name, Config: k.Config, Source: k.File}, b)
		}
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.Name, errors.Join(err, s.close(context.Background())))
		}
	}
	return s, nil
}

// keyOf reads a key from its file, which is made if it is absent and may be.
func keyOf(k daemon.KeyConfig) (*secret.Buffer, error) {
	if k.Generate {
		if b, err := keystore.Generate(k.File, k.Config.Mode.KeySize()); !errors.Is(err, fs.ErrExist) {
			return b, err
		}
	}
	return keystore.ReadFile(k.File)
}

// open brings a device up, with what it stands on, and opens it.
func (s *stack) open(ctx context.Context, name string) (*dm.Handle, error) {
	for _, m := range s.up {
		if m.Name() == name {
			return m.Open("flash")
		}
	}
	for _, d := range s.config.Devices {
		if d.Name != name {
			continue
		}
		m, err := s.make(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", name, err)
		}
		s.up = append(s.up, m)
		return m.Open("flash")
	}
	return nil, fmt.Errorf("the configuration has no device %q", name)
}

func (s *stack) make(ctx context.Context, d daemon.DeviceConfig) (*dm.Mapped, error) {
	if d.Backend != "" {
		e, err := emul.ParseSpec(d.Engine)
		if err != nil {
			return nil, err
		}
		e.Options.Hardware = s.hardware
		dev, err := backend.Open(ctx, d.Backend, backend.Options{Size: d.Size, Create: d.Size > 0})
		if err != nil {
			return nil, err
		}
		return dm.NewLeaf(d.Name, dm.Leaf{Dev: dev, Text: d.Backend, Fallback: s.fallback, Engine: keyslot.New(emul.New(d.Name, e.Options))}, dm.Options{})
	}
	t, err := dm.Parse(ctx, d.Table, s, dm.ParseOptions{})
	if err != nil {
		return nil, err
	}
	m := dm.New(d.Name, dm.Options{})
	return m, m.Reload(ctx, t, dm.SuspendOptions{})
}

// Open is dm.Env's: for tables.
func (s *stack) Open(ctx context.Context, name string, _ bool) (block.Device, error) {
	return s.open(ctx, name)
}

// Key is dm.Env's.
func (s *stack) Key(_ context.Context, ref dm.KeyRef, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	return s.keys.Use(ref.Name, ref.Size, c, weak)
}

// Fallback is dm.Env's.
func (s *stack) Fallback() *keyslot.Manager { return s.fallback }

// close takes the devices away, the highest first, and wipes the keys.
func (s *stack) close(ctx context.Context) (err error) {
	for i := len(s.up) - 1; i >= 0; i-- {
		err = errors.Join(err, s.up[i].Remove(ctx, dm.RemoveOptions{}))
	}
	err = errors.Join(err, s.keys.Close(ctx))
	s.hardware.Close()
	return err
}
