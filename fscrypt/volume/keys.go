package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"keyway/blkcrypto"
	"keyway/fscrypt"
)

// AddKey adds a master key. The volume owns m from now on, also after an error, and
// wipes it in Close. What is encrypted under it is open from then on, files that are
// open included.
func (v *Volume) AddKey(m *fscrypt.MasterKey) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		m.Wipe()
		return fmt.Errorf("volume: %w", ErrClosed)
	}
	v.masters = append(v.masters, m)
	return nil
}

// master returns the key that a policy names, nil if it was not added.
func (v *Volume) master(s fscrypt.KeySpec) *fscrypt.MasterKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.masters {
		if m.Is(s) {
			return m
		}
	}
	return nil
}

// contents is a key of contents that was started on the device.
type contents struct {
	id    fscrypt.KeyID
	key   *blkcrypto.Key
	stop  func()
	users int // open files that read with it
}

// acquire returns the key of a file's contents, for one user more.
func (v *Volume) acquire(f *File, c *fscrypt.File) (*contents, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, ErrClosed
	}
	id := c.KeyID()
	if k := v.keys[id]; k != nil {
		k.users++
		return k, nil
	}
	key, err := c.NewKey(f.keyName(id))
	if err != nil {
		return nil, err
	}
	stop, err := v.dev.StartKey(key, v.o.By)
	if err != nil {
		_, gone := key.Evict(v.ctx) // no device was told it: this wipes it
		return nil, errors.Join(err, gone)
	}
	k := &contents{id: id, key: key, stop: stop, users: 1}
	v.keys[id] = k
	return k, nil
}

// keyName is what people see of a key, in the list of keyslots too. It does not show
// decrypted names.
func (f *File) keyName(id fscrypt.KeyID) string {
	master := f.context.Policy.Key.String()
	if id.PerFile() {
		return fmt.Sprintf("%s %.8s inode %d", f.v.o.By, master, f.Inode)
	}
	return fmt.Sprintf("%s %.8s %v %v", f.v.o.By, master, f.context.Policy.Flags, f.context.Policy.Contents)
}

// release ends one use of k; the last evicts it. If that fails, Close of the volume
// tries again.
func (v *Volume) release(ctx context.Context, k *contents) error {
	v.mu.Lock()
	k.users--
	last := k.users == 0 && v.keys[k.id] == k
	if last {
		delete(v.keys, k.id)
		v.going = append(v.going, k)
	}
	v.mu.Unlock()
	if !last {
		return nil
	}
	_, err := v.evict(ctx, k)
	return err
}

// evict takes a key that is going out of all places.
func (v *Volume) evict(ctx context.Context, k *contents) (blkcrypto.Eviction, error) {
	receipt, err := k.key.Evict(ctx)
	if v.o.Evicted != nil {
		v.o.Evicted(receipt)
	}
	if err != nil {
		return receipt, err
	}
	k.stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.going = slices.DeleteFunc(v.going, func(g *contents) bool { return g == k })
	return receipt, nil
}

// Close evicts every key of contents from all places that were told it, and wipes the
// master keys; the device stays open. The receipts are those of the keys that were
// still there: the others went with their last file. Files cannot be read any more.
// After an error, which tells what was not evicted, Close may be called again.
func (v *Volume) Close(ctx context.Context) ([]blkcrypto.Eviction, error) {
	v.mu.Lock()
	v.closed = true
	for _, k := range v.keys {
		v.going = append(v.going, k)
	}
	clear(v.keys)
	for _, m := range v.masters {
		m.Wipe()
	}
	v.masters = nil
	going := slices.Clone(v.going)
	v.mu.Unlock()
	slices.SortFunc(going, func(a, b *contents) int { return int(a.key.ID()) - int(b.key.ID()) })
	var receipts []blkcrypto.Eviction
	var errs []error
	for _, k := range going {
		r, err := v.evict(ctx, k)
		receipts = append(receipts, r)
		errs = append(errs, err)
	}
	return receipts, errors.Join(errs...)
}

// Close ends the use of the file. The last of those that share its key evicts it from
// wherever it came to; reads that are under way then fail. If that does not succeed
// before ctx ends, the error says where it is left, and Close of the volume tries again.
func (f *File) Close(ctx context.Context) error {
	f.mu.Lock()
	k := f.key
	f.key, f.closed = nil, true
	f.mu.Unlock()
	if k == nil {
		return nil
	}
	return f.wrap(f.v.release(ctx, k))
}
