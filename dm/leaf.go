package dm

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"keyway/block"
	"keyway/keyslot"
)

// A Leaf is what a leaf device stands on.
type Leaf struct {
	Dev      block.Device // owned by the device from then on
	Text     string       // what status shows: the backend's URI
	Engine   *keyslot.Manager
	Fallback *keyslot.Manager
	Closing  func() // called once before the engine gives its keys back; may be nil
}

// NewLeaf returns a device over a backend, with an inline engine in front if
// l.Engine is not nil. It is a mapped device whose one row cannot be replaced:
// it suspends, resumes, counts and falls back as all others do. If it fails,
// l.Dev is closed.
func NewLeaf(name string, l Leaf, o Options) (*Mapped, error) {
	i := l.Dev.Info()
	size := i.Size &^ int64(max(i.LogicalBlock, 1<<sectorShift)-1)
	if size <= 0 {
		if l.Closing != nil {
			l.Closing()
		}
		return nil, errors.Join(fmt.Errorf("device %q: %s has %d bytes, not one block", name, l.Text, i.Size), l.Dev.Close())
	}
	dev := l.Dev
	if l.Engine != nil {
		dev = keyslot.Over(dev, l.Engine)
	}
	t := &Table{readOnly: i.ReadOnly}
	typ := TargetType{Name: "leaf", Features: PassesCrypto}
	t.rows = append(t.rows, newRow(0, size, typ, &leaf{Device: dev, text: l.Text, engine: l.Engine, size: size, closing: l.Closing}, &Builder{}))
	if err := t.complete(l.Fallback); err != nil {
		return nil, errors.Join(err, t.Close(context.Background()))
	}
	m := New(name, o)
	m.leaf = true
	if l.Engine != nil {
		l.Engine.Observe(m.events.engineEvent)
	}
	if err := m.Reload(context.Background(), t, SuspendOptions{}); err != nil {
		return nil, err
	}
	return m, nil
}

// leaf is the one row of a leaf device.
type leaf struct {
	block.Device
	text   string
	engine *keyslot.Manager
	size   int64

	closing func()
}

func (l *leaf) Under() []block.Span { return []block.Span{{Dev: l.Device, Len: l.size}} }

func (l *leaf) Status(StatusKind) string { return l.text }

// Message goes to the engine.
func (l *leaf) Message(ctx context.Context, words []string) (string, error) {
	if l.engine == nil {
		return "", errors.New("takes no messages: it has no engine")
	}
	return l.engine.Message(ctx, words)
}

// Extents are those of the backend.
func (l *leaf) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return block.Extents(ctx, l.Device, off, n)
}

// Close takes all keys out of the engine, then closes the backend.
func (l *leaf) Close() error {
	if l.closing != nil {
		l.closing()
	}
	var err error
	if l.engine != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = l.engine.Close(ctx)
	}
	return errors.Join(err, l.Device.Close())
}

// Engine returns the inline engine of a leaf device, nil if there is none.
func (m *Mapped) Engine() *keyslot.Manager {
	if t := m.live.Load(); t != nil && len(t.rows) == 1 {
		if l, ok := t.rows[0].target.(*leaf); ok {
			return l.engine
		}
	}
	return nil
}
