package daemon

import (
	"context"
	"fmt"
)

// naming keeps renames and the building of tables apart: a table refers to devices by
// name from the moment when its text is read until it is recorded, and only then would
// a rename find it. Guarded by Daemon.mu.
type naming struct {
	builders int
	renaming bool
	changed  chan struct{} // closed when somebody who waits should look again; nil: nobody waits
}

// beginTable is called before the text of a table is read, with no token held; done when
// the table is recorded.
func (d *Daemon) beginTable(ctx context.Context) (done func(), err error) {
	return d.enterNaming(ctx, func(n *naming) bool {
		if n.renaming {
			return false
		}
		n.builders++
		return true
	}, func(n *naming) { n.builders-- })
}

// beginRename is called before a name changes. It waits for tables that are being built,
// and keeps none from beginning meanwhile.
func (d *Daemon) beginRename(ctx context.Context) (done func(), err error) {
	return d.enterNaming(ctx, func(n *naming) bool {
		if n.renaming || n.builders > 0 {
			return false
		}
		n.renaming = true
		return true
	}, func(n *naming) { n.renaming = false })
}

func (d *Daemon) enterNaming(ctx context.Context, enter func(*naming) bool, leave func(*naming)) (done func(), err error) {
	n := &d.naming
	for {
		d.mu.Lock()
		if enter(n) {
			d.mu.Unlock()
			return func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				leave(n)
				if n.changed != nil {
					close(n.changed)
					n.changed = nil
				}
			}, nil
		}
		if n.changed == nil {
			n.changed = make(chan struct{})
		}
		changed := n.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for tables that are being built, or for a device to get its new name: %w", context.Cause(ctx))
		}
	}
}
