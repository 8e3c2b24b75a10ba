// Package keystore holds named keys in locked memory and gives tables what
// they ask for: one blkcrypto.Key for each config under which a name is used,
// shared by all who use it, evicted from every engine when the last gives it
// back.
//
// Lock order: Store.mu; nothing is called with it held but the making of keys.
package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"keyway/blkcrypto"
	"keyway/internal/invariant"
	"keyway/internal/plural"
	"keyway/internal/point"
	"keyway/internal/secret"
)

// Errors of the store, compared with errors.Is.
var (
	ErrNotFound = errors.New("is not in the key store")
	ErrMissing  = errors.New("has no bytes")
	ErrExists   = errors.New("is in the key store already")
	ErrEvicting = errors.New("is being evicted")
)

// A Desc describes a key without a byte of it.
type Desc struct {
	Name   string
	Config blkcrypto.Config // under which requests that name only the key use it
	Source string           // where the bytes come from, for people: a path, "stdin"
	File   string           // absolute path to read the bytes from again; "" if there is none
	From   string           // another source to read them from again, as the command line writes it
	Auto   bool             // made from table text: forgotten when its last user gives it back
	Weak   bool             // an XTS key with equal halves is taken, for tables of dm-crypt
}

// A Status is a key's description with its state.
type Status struct {
	Desc
	Missing string // why there are no bytes; "" if there are
	Pending bool   // an eviction began and some place has not confirmed it
	Users   int    // tables that use it
	InUse   int64  // requests that use it now
	blkcrypto.Counts
}

// Store is a set of named keys. The zero value is empty and ready.
type Store struct {
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	desc    Desc
	bytes   *secret.Buffer // nil: missing or evicted
	missing string
	derived map[variant]*derived
	// Keys that were given back or are being evicted, and whose eviction has
	// not succeeded everywhere: they stay on the receipt until it has.
	left     []*blkcrypto.Key
	evicting bool
	users    int
	past     blkcrypto.Counts // of keys that are gone
}

// A variant is a way to use the same bytes.
type variant struct {
	config blkcrypto.Config
	weak   bool
}

type derived struct {
	key   *blkcrypto.Key
	users int
}

// CheckName refuses names that a key reference in a table could not carry or
// that would not print on one line.
func CheckName(name string) error {
	if name == "" || len(name) > 127 {
		return fmt.Errorf("key name %q: has %d bytes, not 1 to 127", name, len(name))
	}
	if i := strings.IndexFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '\\' || c == 0xfffd }); i >= 0 {
		return fmt.Errorf("key name %q: byte %d is a blank, a backslash or not printable", name, i+1)
	}
	return nil
}

// Add puts a key under a new name, or gives its bytes to one that is missing.
// It owns b from then on, also when it fails. b is exactly as long as the
// config's mode takes, or a wrapped key prepared for this boot.
func (s *Store) Add(d Desc, b *secret.Buffer) error {
	if err := check(d, b); err != nil {
		b.Wipe()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[d.Name]; e != nil && (e.bytes != nil || e.evicting || len(e.left) > 0) {
		b.Wipe()
		if e.bytes != nil && !e.evicting {
			return fmt.Errorf("key %q %w", d.Name, ErrExists)
		}
		return fmt.Errorf("key %q %w: some place has not confirmed that the old one is gone", d.Name, ErrEvicting)
	}
	s.put(&entry{desc: d, bytes: b})
	return nil
}

func check(d Desc, b *secret.Buffer) error {
	if err := CheckName(d.Name); err != nil {
		return err
	}
	if err := d.Config.Check(); err != nil {
		return fmt.Errorf("key %q: %w", d.Name, err)
	}
	if n, want := b.Len(), d.Config.Mode.KeySize(); n != want && want != 0 && d.Config.KeyType == blkcrypto.Raw {
		return fmt.Errorf("key %q: %s has %d bytes, and %v takes exactly %d", d.Name, d.Source, n, d.Config.Mode, want)
	}
	if d.Weak {
		return nil
	}
	// What the making of a key would refuse later is refused now.
	probe, err := (&entry{desc: d, bytes: b}).derive(variant{config: d.Config})
	if err != nil {
		return err
	}
	_, err = probe.Evict(context.Background()) // nobody has it
	return err
}

// AddMissing lists a key whose bytes are not there, and why.
func (s *Store) AddMissing(d Desc, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[d.Name] == nil {
		s.put(&entry{desc: d, missing: why})
	}
}

func (s *Store) put(e *entry) {
	if s.entries == nil {
		s.entries = map[string]*entry{}
	}
	e.derived = map[variant]*derived{}
	s.entries[e.desc.Name] = e
}

// Use returns the key called name under config c, and what gives it back.
// size is the length in bytes that the caller's reference states. All users
// of one name and config share one key; when the last has called release, the
// key is evicted wherever it was programmed, and release returns when that is
// done. A weak XTS key is taken only if weak is set.
func (s *Store) Use(name string, size int, c blkcrypto.Config, weak bool) (*blkcrypto.Key, func(context.Context) error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	switch {
	case e == nil:
		return nil, nil, fmt.Errorf("key %q %w", name, ErrNotFound)
	case e.evicting:
		return nil, nil, fmt.Errorf("key %q %w", name, ErrEvicting)
	case e.bytes == nil:
		return nil, nil, fmt.Errorf("key %q %w: %s", name, ErrMissing, e.missing)
	case e.desc.Config.KeyType != c.KeyType:
		return nil, nil, fmt.Errorf("key %q is %v, and it is used here as %v", name, e.desc.Config.KeyType, c.KeyType)
	case e.bytes.Len() != size:
		return nil, nil, fmt.Errorf("key %q has %d bytes, and the reference says %d", name, e.bytes.Len(), size)
	}
	v := variant{c, weak}
	d := e.derived[v]
	if d != nil && d.key.Evicted() {
		// By a reload that revokes: that key is dead to the tables that have it,
		// and not what it was made of to others.
		e.left = append(e.left, d.key)
		d = nil
	}
	if d == nil {
		k, err := e.derive(v)
		if err != nil {
			return nil, nil, err
		}
		d = &derived{key: k}
		e.derived[v] = d
	}
	d.users++
	e.users++
	var once sync.Once
	release := func(ctx context.Context) (err error) {
		once.Do(func() { err = s.release(ctx, e, v, d) })
		return err
	}
	return d.key, release, nil
}

func (e *entry) derive(v variant) (*blkcrypto.Key, error) {
	b, err := secret.New(e.bytes.Len())
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", e.desc.Name, err)
	}
	secret.Move(b.Bytes(), e.bytes.Bytes())
	if v.weak {
		return blkcrypto.NewDMCryptKey(e.desc.Name, v.config, b)
	}
	return blkcrypto.NewKey(e.desc.Name, v.config, b)
}

// release gives back one use.
func (s *Store) release(ctx context.Context, e *entry, v variant, d *derived) error {
	s.mu.Lock()
	d.users--
	e.users--
	last := d.users == 0 && (e.derived[v] == d || !e.evicting && slices.Contains(e.left, d.key))
	if last && e.derived[v] == d {
		delete(e.derived, v)
		e.left = append(e.left, d.key)
	}
	forget := e.desc.Auto && e.users == 0 && !e.evicting
	e.evicting = e.evicting || forget // whoever comes now is refused, and not given a key that is about to go
	s.mu.Unlock()
	if forget {
		point.At("keystore: forgetting")
		_, err := s.evict(ctx, e, EvictOptions{})
		return err
	}
	if !last {
		return nil
	}
	point.At("keystore: given back")
	_, err := d.key.Evict(ctx)
	if err == nil {
		s.mu.Lock()
		e.drop(d.key)
		s.mu.Unlock()
	}
	return err
}

// EvictOptions change how a key is evicted.
type EvictOptions struct {
	IfIdle bool // refuse with blkcrypto.ErrKeyBusy while a table or a request uses it
	Force  bool // requests that wait fail, and the key is forgotten even if some place does not confirm
}

// Evict makes every new request with the key called name fail, waits until
// ctx ends for those under way, takes the key out of every engine and cipher
// that ever had it, and wipes it. The receipt names every such place. If some
// place does not confirm, the key remains listed, unusable, and Evict may be
// called again. The error tells where it may still be, also with Force.
func (s *Store) Evict(ctx context.Context, name string, o EvictOptions) (blkcrypto.Eviction, error) {
	s.mu.Lock()
	e := s.entries[name]
	s.mu.Unlock()
	if e == nil {
		return blkcrypto.Eviction{Key: name}, fmt.Errorf("key %q %w", name, ErrNotFound)
	}
	return s.evict(ctx, e, o)
}

func (s *Store) evict(ctx context.Context, e *entry, o EvictOptions) (blkcrypto.Eviction, error) {
	sum := blkcrypto.Eviction{Key: e.desc.Name}
	keys, err := s.withdraw(e, o)
	if err != nil {
		return sum, err
	}
	evict := (*blkcrypto.Key).Evict
	if o.Force {
		evict = (*blkcrypto.Key).Revoke
	}
	point.At("keystore: withdrawn")
	// Side by side: each is closed to new requests from now on, whatever the others
	// wait for.
	receipts, errs := make([]blkcrypto.Eviction, len(keys)), make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { receipts[i], errs[i] = evict(k, ctx) })
	}
	wg.Wait()
	if !invariant.Enabled { // the tests of races take who waits in the kernel for one who runs
		secret.OverwriteRegisters() // no request uses the keys any more
	}

	point.At("keystore: evicted")
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range receipts {
		sum.Places = append(sum.Places, r.Places...)
		if sum.ID == 0 {
			sum.ID = r.ID
		}
		if errs[i] == nil {
			e.drop(keys[i])
		}
	}
	if e.bytes != nil {
		e.bytes.Wipe()
		e.bytes, e.missing = nil, "it has been evicted"
		sum.Places = append(sum.Places, blkcrypto.Place{Holder: "key store", Detail: "locked memory"})
	}
	if (len(e.left) == 0 || o.Force) && s.entries[e.desc.Name] == e {
		delete(s.entries, e.desc.Name)
	}
	return sum, errors.Join(errs...)
}

// drop forgets k, which is gone from everywhere, but not what was done with it.
// Called with mu held.
func (e *entry) drop(k *blkcrypto.Key) {
	if i := slices.Index(e.left, k); i >= 0 {
		e.left = slices.Delete(e.left, i, i+1)
		e.past.Add(k.Counts())
	}
}

// withdraw takes e's keys away from new users and returns those to be evicted.
func (s *Store) withdraw(e *entry, o EvictOptions) ([]*blkcrypto.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.Clone(e.left)
	for _, d := range e.derived {
		keys = append(keys, d.key)
	}
	if o.IfIdle && e.evicting { // by somebody who waits for requests, or gave up
		for _, k := range keys {
			if n := k.InUse(); n > 0 {
				return nil, fmt.Errorf("key %q: %w by %s", e.desc.Name, blkcrypto.ErrKeyBusy, plural.Of(n, "request"))
			}
		}
	}
	if o.IfIdle && !e.evicting {
		if e.users > 0 {
			return nil, fmt.Errorf("key %q: %w by %s", e.desc.Name, blkcrypto.ErrKeyBusy, plural.Of(e.users, "table row"))
		}
		if err := blkcrypto.Retire(keys...); err != nil {
			return nil, err
		}
	}
	e.evicting = true
	clear(e.derived)
	e.left = slices.Clone(keys)
	return keys, nil
}

// Close evicts every key.
func (s *Store) Close(ctx context.Context) error {
	var errs []error
	for _, st := range s.List() {
		if _, err := s.Evict(ctx, st.Name, EvictOptions{Force: true}); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// List returns all keys by name.
func (s *Store) List() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e.status())
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Get returns the state of one key.
func (s *Store) Get(name string) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[name]
	if e == nil {
		return Status{}, false
	}
	return e.status(), true
}

func (e *entry) status() Status {
	st := Status{Desc: e.desc, Pending: e.evicting, Users: e.users, Counts: e.past}
	for _, d := range e.derived {
		st.InUse += d.key.InUse()
		st.Add(d.key.Counts())
	}
	for _, k := range e.left {
		st.InUse += k.InUse()
		st.Add(k.Counts())
	}
	if e.bytes == nil {
		st.Missing = e.missing
	}
	return st
}
