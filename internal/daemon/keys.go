package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/internal/point"
	"keyway/internal/secret"
	"keyway/keystore"
)

// restoreKeys reads every key from its file. One of the state that cannot be
// read is listed as missing; one of the configuration must be there.
func (d *Daemon) restoreKeys(saved []keySpec) error {
	var errs []error
	for _, k := range d.cfg.Keys {
		d.configKey[k.Name] = true
		desc := keystore.Desc{Name: k.Name, Config: k.Config, Source: k.File, File: k.File, Weak: k.Weak}
		b, err := d.readOrGenerate(k)
		if err == nil {
			b, err = d.prepared(k.Config, b)
		}
		if err == nil {
			err = d.keys.Add(desc, b)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("configuration: key %q: %w", k.Name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, k := range saved {
		if d.configKey[k.Name] {
			d.log.Warn("key is declared by the configuration, which wins over the state", "key", k.Name)
			continue
		}
		c, _, err := keyConfig(k.Mode, k.Type, k.DataUnit, k.DUNBytes)
		if err == nil {
			err = keystore.CheckName(k.Name)
		}
		if err != nil {
			d.log.Error("key of the state is malformed", "key", k.Name, "err", err)
			continue
		}
		desc := keystore.Desc{Name: k.Name, Config: c, Source: k.Source, File: k.File, Auto: k.Auto, Weak: k.Weak}
		if k.File == "" {
			d.putKey(desc, nil, fmt.Errorf("it came from %s, which does not outlive the daemon", k.Source))
			continue
		}
		b, err := keystore.ReadFile(k.File)
		d.putKey(desc, b, err)
	}
	return nil
}

func (d *Daemon) putKey(desc keystore.Desc, b *secret.Buffer, err error) {
	if err == nil {
		b, err = d.prepared(desc.Config, b)
	}
	if err == nil {
		err = d.keys.Add(desc, b)
	}
	if err != nil {
		d.log.Error("key is missing", "key", desc.Name, "err", err)
		d.keys.AddMissing(desc, err.Error())
	}
}

func (d *Daemon) readOrGenerate(k KeyConfig) (*secret.Buffer, error) {
	if k.Generate && k.Config.KeyType == blkcrypto.HWWrapped {
		b, err := d.generateWrapped(k.File)
		if !errors.Is(err, fs.ErrExist) {
			return b, err
		}
	} else if k.Generate {
		b, err := keystore.Generate(k.File, k.Config.Mode.KeySize())
		if !errors.Is(err, fs.ErrExist) {
			return b, err
		}
	}
	return keystore.ReadFile(k.File)
}

// addKey takes a key whose bytes come from f, which it does not close.
func (d *Daemon) addKey(ctx context.Context, r control.AddKey, f *os.File) (ch control.Changed, err error) {
	c, field, err := keyConfig(r.Mode, r.Type, r.DataUnit, r.DUNBytes)
	if err != nil {
		return ch, fmt.Errorf("key %q: %s: %w", r.Name, field, err)
	}
	if f == nil {
		return ch, fmt.Errorf("key %q: no descriptor came with the request to read the key from", r.Name)
	}
	desc := keystore.Desc{Name: r.Name, Config: c, Source: r.Source, File: r.File, Auto: r.Auto, Weak: r.Weak}
	b, err := keystore.Read(f, r.Source)
	if err != nil {
		return ch, fmt.Errorf("key %q: %w", r.Name, err)
	}
	if b, err = d.prepared(c, b); err != nil {
		return ch, fmt.Errorf("key %q: %w", r.Name, err)
	}
	if err := d.keys.Add(desc, b); err != nil {
		switch {
		case errors.Is(err, keystore.ErrExists):
			err = hint(err, fmt.Sprintf("\"keyway key evict %s\" takes the old one away", r.Name))
		case errors.Is(err, blkcrypto.ErrWeakKey):
			err = hint(err, "use a key from a random source; for a dm-crypt disk that was written with this one, --allow-weak takes it")
		}
		return ch, err
	}
	if err := d.save(); err != nil {
		_, undo := d.keys.Evict(ctx, r.Name, keystore.EvictOptions{Force: true})
		return ch, errors.Join(err, undo)
	}
	d.events.publish(control.Event{Kind: control.EventKeyAdded, Key: r.Name, Detail: c.String()})
	if r.File == "" && !r.Auto {
		d.log.Info("key added; after a restart it has to be added again", "key", r.Name, "source", r.Source)
	}
	d.wake(ctx)
	ch.Warnings = append(ch.Warnings, ordinaryWarning()...)
	return ch, nil
}

// keyFile makes f, which a client passed, readable without blocking the
// daemon: a pipe whose writers stay gets a deadline.
func keyFile(fd int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return os.NewFile(uintptr(fd), "key"), nil
	case unix.S_IFIFO:
		if err := unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
			return nil, err
		}
		f := os.NewFile(uintptr(fd), "key")
		return f, f.SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	unix.Close(fd)
	return nil, errors.New("the descriptor of a key is neither a file nor a pipe")
}

// evictKey evicts a key and tells where it was.
func (d *Daemon) evictKey(ctx context.Context, name string, r control.EvictKey) (control.Eviction, error) {
	receipt, err := d.keys.Evict(ctx, name, keystore.EvictOptions{IfIdle: r.IfIdle, Force: r.Force})
	point.At("daemon: key evicted")
	if errors.Is(err, blkcrypto.ErrKeyBusy) && r.IfIdle {
		return control.Eviction{}, hint(err, "without --if-idle the eviction waits for requests, and the devices that use the key can do nothing without it")
	}
	if errors.Is(err, keystore.ErrNotFound) {
		return control.Eviction{}, d.noKey(name, err)
	}
	out := control.Eviction{Key: name, Places: []control.Place{}}
	for _, p := range receipt.Places {
		place := control.Place{Holder: p.Holder, Detail: p.Detail, Gone: p.Err == nil}
		if p.Err != nil {
			place.Error = p.Err.Error()
		}
		out.Places = append(out.Places, place)
	}
	out.Devices = d.without(name)
	if d.hasKey(name) {
		d.wake(ctx) // somebody has added it again, and found no device that lacked it
	}
	if err != nil {
		out.Error = err.Error()
		out.Hint = fmt.Sprintf("no request can use the key any more; \"keyway key evict %s\" tries again to clear the rest", name)
	}
	if d.configKey[name] {
		out.Warnings = append(out.Warnings, configWarning("key", name))
	}
	d.keyEvicted(out)
	d.log.Info("key evicted", "key", name, "places", len(out.Places), "complete", err == nil)
	if err := d.save(); err != nil && out.Error == "" {
		out.Error = fmt.Sprintf("the key is gone, but after a restart it will be back: %v", err)
	}
	return out, nil
}
