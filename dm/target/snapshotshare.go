package target

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"keyway/block"
	"keyway/dm"
)

// Rows of many tables meet at the devices beneath them: those of snapshot-origin
// and snapshot at the origin, those of snapshot that share a COW device, such as
// a table and the one that replaces it, at that.
//
// Lock order:
//
//	shares.mu
//	origin.mu
//	  cow.mu
//	cow.committing, over requests to the COW device
//	  cow.mu
var shares = struct {
	mu      sync.Mutex // guards what follows
	origins map[any]*origin
	cows    map[any]*cow // by the identity of the COW device
}{origins: map[any]*origin{}, cows: map[any]*cow{}}

// An origin is a device that has, or may get, snapshots.
type origin struct {
	id   any
	refs int // guarded by shares.mu

	mu     sync.Mutex // guards what follows
	writes flights    // changes of the device that are under way
	cows   []*cow     // that keep what changes overwrite; replaced, never changed
}

// originOf returns what rows over the device share. leave gives it back.
func originOf(dev block.Device) *origin {
	shares.mu.Lock()
	defer shares.mu.Unlock()
	return originLocked(dm.Identity(dev))
}

func originLocked(id any) *origin {
	o := shares.origins[id]
	if o == nil {
		o = &origin{id: id}
		shares.origins[id] = o
	}
	o.refs++
	return o
}

func (o *origin) leave() {
	shares.mu.Lock()
	defer shares.mu.Unlock()
	o.leaveLocked()
}

func (o *origin) leaveLocked() {
	if o.refs--; o.refs == 0 {
		delete(shares.origins, o.id)
	}
}

// begin records a change of these bytes, and returns who has to keep what it
// overwrites.
//
// Hot: no allocation in steady state.
func (o *origin) begin(off, end int64) (*flight, []*cow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writes.begin(off, end), o.cows
}

func (o *origin) end(f *flight) {
	o.mu.Lock()
	o.writes.end(f)
	o.mu.Unlock()
}

// beginAlone is begin for a change that only c is to know of; it fails if there
// are others.
func (o *origin) beginAlone(c *cow, off, end int64) (*flight, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.cows) != 1 || o.cows[0] != c {
		return nil, false
	}
	return o.writes.begin(off, end), true
}

// snapshots is how many keep what changes overwrite.
func (o *origin) snapshots() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.cows)
}

// activate makes c a snapshot of this moment: changes that begin from now on
// leave it alone, and it waits for those that are under way.
func (o *origin) activate(c *cow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Contains(o.cows, c) {
		return
	}
	c.mu.Lock()
	c.before = o.writes.over(0, 1<<63-1)
	c.mu.Unlock()
	o.cows = append(slices.Clone(o.cows), c)
}

func (o *origin) deactivate(c *cow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cows = slices.DeleteFunc(slices.Clone(o.cows), func(x *cow) bool { return x == c })
}

// A view is one row's share in a snapshot: the devices as that row has opened
// them.
type view struct {
	*cow
	from, to  block.Device // the origin, and the COW device
	overflows bool         // a write that finds no room leaves the rest readable
	raise     func(string) // an event of the device that has the row
	users     sync.WaitGroup
}

// attach gives v its share in the snapshot on v.to, which is read from there
// if nobody has one.
func (v *view) attach(ctx context.Context, name string, persistent bool, chunk int64) error {
	id, on := dm.Identity(v.to), dm.Identity(v.from)
	for {
		shares.mu.Lock()
		c := shares.cows[id]
		if c == nil {
			c = &cow{id: id, origin: originLocked(on), persistent: persistent, refs: 1, ready: make(chan struct{}), gone: make(chan struct{})}
			shares.cows[id] = c
			shares.mu.Unlock()
			if c.err = c.load(ctx, v, name, chunk); c.err != nil {
				c.forget()
			}
			close(c.ready)
			return c.err
		}
		wait := c.ready
		if c.refs > 0 {
			c.refs++
		} else {
			wait = c.gone
		}
		shares.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			if wait == c.ready {
				c.release()
			}
			return fmt.Errorf("COW device %q: waiting for another table: %w", name, context.Cause(ctx))
		}
		if wait == c.gone {
			continue
		}
		err := c.err
		switch {
		case err != nil:
		case c.origin.id != on:
			err = fmt.Errorf("COW device %q belongs to a snapshot of another origin", name)
		case c.persistent != persistent:
			err = fmt.Errorf("COW device %q is in use: change between P and N once no table has it", name)
		}
		if err != nil {
			c.release()
			return err
		}
		c.mu.Lock()
		v.cow = c
		c.views = append(c.views, v)
		c.mu.Unlock()
		return nil
	}
}

// release gives back a reference that has no view.
func (c *cow) release() {
	shares.mu.Lock()
	c.refs--
	last := c.refs == 0
	shares.mu.Unlock()
	if last {
		c.origin.deactivate(c)
		c.forget()
	}
}

// forget ends a snapshot that nobody has.
func (c *cow) forget() {
	shares.mu.Lock()
	defer shares.mu.Unlock()
	c.refs = 0
	delete(shares.cows, c.id)
	c.origin.leaveLocked()
	close(c.gone)
}

// detach gives the share back, and returns when nobody uses its devices. After
// the last, the origin no longer keeps anything for the snapshot.
func (v *view) detach() {
	c := v.cow
	shares.mu.Lock()
	c.refs--
	last := c.refs == 0
	shares.mu.Unlock()
	if last {
		c.origin.deactivate(c)
	}
	c.mu.Lock()
	c.views = slices.DeleteFunc(c.views, func(x *view) bool { return x == v })
	c.mu.Unlock()
	v.users.Wait()
	if last {
		c.forget()
	}
}

// acquire returns a view whose devices stay open until users.Done; nil if the
// snapshot is gone.
func (c *cow) acquire() *view {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.views) == 0 {
		return nil
	}
	v := c.views[0]
	v.users.Add(1)
	return v
}
