package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/internal/keysource"
	"keyway/internal/point"
	"keyway/internal/secret"
	"keyway/keystore"
)

// restoreKeys reads every key of the configuration and of the state from its source,
// side by side. One that cannot be read is listed as missing, with the reason: the
// devices that need it wait for it, and the others start.
func (d *Daemon) restoreKeys(ctx context.Context, saved []keySpec) {
	all := d.declaredKeys(saved)
	var sources []*keysource.Source
	var at []int
	for i, k := range all {
		if k.err == nil && !k.generate {
			sources, at = append(sources, k.source), append(at, i)
		}
	}
	keysource.ReadAll(ctx, d.sourceEnv(), sources, func(i int, b *secret.Buffer, err error) {
		all[at[i]].bytes, all[at[i]].err = b, err
	})
	for _, k := range all {
		if k.generate {
			k.bytes, k.err = d.generate(ctx, k)
		}
		d.putKey(k)
	}
}

// A declaredKey is a key that the configuration or the state names.
type declaredKey struct {
	desc     keystore.Desc
	source   *keysource.Source
	generate bool // make its file if it is absent

	bytes *secret.Buffer
	err   error // why there are none
}

func (d *Daemon) declaredKeys(saved []keySpec) (all []*declaredKey) {
	for _, k := range d.cfg.Keys {
		d.configKey[k.Name] = true
		all = append(all, declared(k))
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
		r := &declaredKey{desc: keystore.Desc{Name: k.Name, Config: c, Source: k.Source, File: k.File, From: k.From, Auto: k.Auto, Weak: k.Weak}}
		r.source, r.err = sourceOf(r.desc)
		all = append(all, r)
	}
	return all
}

// declared is a key of the configuration.
func declared(k KeyConfig) *declaredKey {
	desc := keystore.Desc{Name: k.Name, Config: k.Config, Source: k.File, File: k.File, Weak: k.Weak}
	r := &declaredKey{generate: k.Generate, source: k.Source}
	if k.Source != nil {
		desc.Source, desc.From = k.Source.Name(), k.Source.String()
	} else {
		r.source = keysource.File(k.File)
	}
	r.desc = desc
	return r
}

// sourceOf returns where the bytes of a key that came by the control socket are read
// again.
func sourceOf(desc keystore.Desc) (*keysource.Source, error) {
	switch {
	case desc.File != "":
		return keysource.File(desc.File), nil
	case desc.From != "":
		return keptSource(desc.From)
	}
	return nil, fmt.Errorf("it came from %s, which does not outlive the daemon", desc.Source)
}

// keptSource reads a source that came by the control socket. A program is none: who
// may control the daemon cannot have it run what the configuration does not name.
func keptSource(from string) (*keysource.Source, error) {
	s, err := keysource.Parse(from)
	if err == nil {
		err = lasting(s)
	}
	switch {
	case err != nil:
		return nil, err
	case s.Runs():
		return nil, hint(errors.New("the daemon runs programs of its configuration only"), "declare the key there, as [key.NAME] with source =")
	case s.Abs("/").String() != s.Abs("/x").String():
		return nil, errors.New("key source: a path is not absolute")
	}
	return s, nil
}

// sourceEnv is what the daemon reads sources with: nobody can be asked.
func (d *Daemon) sourceEnv() *keysource.Env {
	return keysource.Process(func(text string) { d.log.Warn("key source", "warning", text) })
}

// putKey gives the key store a key that has been read, or the reason why it has not.
func (d *Daemon) putKey(k *declaredKey) {
	if k.err == nil {
		k.bytes, k.err = d.prepared(k.desc.Config, k.bytes)
	}
	if k.err == nil {
		k.err = d.keys.Add(k.desc, k.bytes)
	}
	if k.err == nil {
		return
	}
	why := strings.TrimPrefix(k.err.Error(), fmt.Sprintf("key %q: ", k.desc.Name))
	if way := Hint(k.err); way != "" {
		why += "; " + way
	}
	if k.source != nil {
		why += fmt.Sprintf("; \"keyway key add %s --again\" tries again", k.desc.Name)
	}
	d.log.Error("key is missing", "key", k.desc.Name, "why", why)
	d.keys.AddMissing(k.desc, why)
}

// generate makes the key of a file that is absent, or reads the file.
func (d *Daemon) generate(ctx context.Context, k *declaredKey) (b *secret.Buffer, err error) {
	if k.desc.Config.KeyType == blkcrypto.HWWrapped {
		b, err = d.generateWrapped(k.desc.File)
	} else {
		b, err = keystore.Generate(k.desc.File, k.desc.Config.Mode.KeySize())
	}
	if errors.Is(err, fs.ErrExist) {
		return k.source.Read(ctx, d.sourceEnv())
	}
	return b, err
}

// addKey takes a key whose bytes come from f, which it does not close.
func (d *Daemon) addKey(ctx context.Context, r control.AddKey, f *os.File) (ch control.Changed, err error) {
	if r.Again {
		return d.readAgain(ctx, r)
	}
	c, field, err := keyConfig(r.Mode, r.Type, r.DataUnit, r.DUNBytes)
	if err != nil {
		return ch, fmt.Errorf("key %q: %s: %w", r.Name, field, err)
	}
	if f == nil {
		return ch, fmt.Errorf("key %q: no descriptor came with the request to read the key from", r.Name)
	}
	desc := keystore.Desc{Name: r.Name, Config: c, Source: r.Source, File: r.File, From: r.From, Auto: r.Auto, Weak: r.Weak}
	if r.From != "" {
		if r.File != "" {
			return ch, badRequest{errors.New("either file or from")}
		}
		if _, err := keptSource(r.From); err != nil {
			return ch, fmt.Errorf("key %q: %w", r.Name, err)
		}
	}
	b, err := keystore.Read(f, r.Source)
	if err != nil {
		return ch, fmt.Errorf("key %q: %w", r.Name, err)
	}
	return d.takeKey(ctx, desc, b)
}

// readAgain reads a key that is missing from its own source.
func (d *Daemon) readAgain(ctx context.Context, r control.AddKey) (ch control.Changed, err error) {
	if r != (control.AddKey{Name: r.Name, Again: true}) {
		return ch, badRequest{errors.New("again goes with a name alone")}
	}
	var k *declaredKey
	st, found := d.keys.Get(r.Name)
	switch i := slices.IndexFunc(d.cfg.Keys, func(k KeyConfig) bool { return k.Name == r.Name }); {
	case found && st.Missing == "":
		return ch, hint(fmt.Errorf("key %q %w", r.Name, keystore.ErrExists), fmt.Sprintf("\"keyway key evict %s\" takes it away", r.Name))
	case i >= 0:
		k = declared(d.cfg.Keys[i])
	case !found:
		return ch, d.noKey(r.Name, fmt.Errorf("key %q %w", r.Name, keystore.ErrNotFound))
	default:
		k = &declaredKey{desc: st.Desc}
		if k.source, err = sourceOf(st.Desc); err != nil {
			return ch, hint(fmt.Errorf("key %q: %w", r.Name, err), fmt.Sprintf("\"keyway key add %s --mode %v\" with --from, --file, --fd or - gives it", r.Name, st.Config.Mode))
		}
	}
	var b *secret.Buffer
	if k.generate {
		b, err = d.generate(ctx, k)
	} else {
		b, err = k.source.Read(ctx, d.sourceEnv())
	}
	if err != nil {
		return ch, fmt.Errorf("key %q: %w", r.Name, err)
	}
	return d.takeKey(ctx, k.desc, b)
}

// takeKey adds a key, which it owns, records it, and brings to life what lacked it.
func (d *Daemon) takeKey(ctx context.Context, desc keystore.Desc, b *secret.Buffer) (ch control.Changed, err error) {
	if b, err = d.prepared(desc.Config, b); err != nil {
		return ch, fmt.Errorf("key %q: %w", desc.Name, err)
	}
	if err := d.keys.Add(desc, b); err != nil {
		switch {
		case errors.Is(err, keystore.ErrExists):
			err = hint(err, fmt.Sprintf("\"keyway key evict %s\" takes the old one away", desc.Name))
		case errors.Is(err, blkcrypto.ErrWeakKey):
			err = hint(err, "use a key from a random source; for a dm-crypt disk that was written with this one, --allow-weak takes it")
		}
		return ch, err
	}
	if err := d.save(); err != nil {
		_, undo := d.keys.Evict(ctx, desc.Name, keystore.EvictOptions{Force: true})
		return ch, errors.Join(err, undo)
	}
	d.events.publish(control.Event{Kind: control.EventKeyAdded, Key: desc.Name, Detail: desc.Config.String()})
	if desc.File == "" && desc.From == "" && !desc.Auto {
		d.log.Info("key added; after a restart it has to be added again", "key", desc.Name, "source", desc.Source)
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
