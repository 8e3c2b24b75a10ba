package volume

import (
	"context"

	"keyway/block"
	"keyway/internal/arena"
)

// metadata reads bytes of the device by requests without a context, so that what
// encrypts all that fscrypt does not, default-key, decrypts them.
type metadata struct {
	ctx context.Context
	dev block.Device
}

// ReadAt reads whole blocks around p.
func (m *metadata) ReadAt(p []byte, off int64) (int, error) {
	i := m.dev.Info() // a reload may have changed it
	mask := int64(i.LogicalBlock) - 1
	first, end := off&^mask, (off+int64(len(p))+mask)&^mask
	if first == off && end-first == int64(len(p)) {
		return m.read(p, off)
	}
	n := 0
	for n < len(p) {
		part := min(end-first, arena.Max)
		b := arena.Get(int(part))
		if _, err := m.read(b.Bytes(), first); err != nil {
			b.Put()
			return n, err
		}
		n += copy(p[n:], b.Bytes()[off+int64(n)-first:])
		b.Put()
		first += part
	}
	return n, nil
}

func (m *metadata) read(p []byte, off int64) (int, error) {
	r := block.Request{Op: block.OpRead, Off: off, Len: int64(len(p)), Data: block.Bytes(p)}
	if err := m.dev.Do(m.ctx, r); err != nil {
		return 0, err
	}
	return len(p), nil
}
