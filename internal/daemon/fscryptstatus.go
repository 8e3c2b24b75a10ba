package daemon

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/dm"
	"keyway/fscrypt"
	"keyway/fscrypt/volume"
)

// Status describes the file system with all policies that are in use, or, with a path,
// one file.
func (x *files) Status(ctx context.Context, r control.Fscrypt) (st control.FscryptStatus, err error) {
	i := x.v.Info()
	st = control.FscryptStatus{
		Device: x.on.Name(), FileSystem: i.Kind, UUID: uuidText(i.UUID), Label: strings.ToValidUTF8(i.Label, "\uFFFD"),
		BlockSize: i.BlockSize, Size: i.Size, Features: i.Features, Warnings: i.Warnings,
		Policies: []control.FscryptPolicy{}, Keys: []control.FscryptGiven{},
	}
	c := census{x: x, of: map[fscrypt.Policy]*counted{}}
	if len(r.Paths) > 0 {
		path, err := onePath(r)
		if err != nil {
			return st, err
		}
		f, err := x.at(path, false)
		if err != nil {
			return st, err
		}
		e := x.entry(path, f)
		st.Path = &e
		if err := c.file(ctx, path, f); err != nil {
			return st, err
		}
	} else if err := c.walk(ctx, &st); err != nil {
		return st, err
	}
	st.Plain = c.plain
	for p, n := range c.of {
		st.Policies = append(st.Policies, x.policy(p, n))
	}
	slices.SortFunc(st.Policies, func(a, b control.FscryptPolicy) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Contents, b.Contents), cmp.Compare(a.Names, b.Names),
			slices.Compare(a.Flags, b.Flags), cmp.Compare(a.DataUnit, b.DataUnit), cmp.Compare(a.Padding, b.Padding))
	})
	for _, k := range x.keys {
		g := control.FscryptGiven{Source: k.Source, Identifier: k.Spec().String(), Wrapped: k.FscryptKey.Wrapped}
		if d, ok := k.DescriptorSpec(); ok {
			g.Descriptor = d.String()
		}
		for p := range c.of {
			if k.Is(p.Key) {
				g.Policies++
			}
		}
		st.Keys = append(st.Keys, g)
	}
	return st, nil
}

func uuidText(u [16]byte) string {
	h := hex.EncodeToString(u[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// A census counts which policies files have.
type census struct {
	x     *files
	of    map[fscrypt.Policy]*counted
	plain int64
}

// counted is what was found of a policy.
type counted struct {
	files   int64
	first   string // path
	known   bool   // config and perFile: the key was given
	config  blkcrypto.Config
	perFile bool
	by      dm.By // who decrypts the first contents that were found; "": none were
	why     string
	bad     error // why the key does not serve the policy
}

func (c *census) walk(ctx context.Context, st *control.FscryptStatus) error {
	root, err := c.x.v.Root()
	if err != nil {
		return c.x.hint(err)
	}
	all, err := c.x.v.ReadDir(root)
	if err != nil {
		return c.x.hint(err)
	}
	sink := control.FscryptSink{Problem: func(p control.FscryptProblem) error {
		if len(st.Problems) < 100 {
			st.Problems = append(st.Problems, p.Error)
		}
		return nil
	}}
	w := walker{x: c.x, s: sink, open: true, seen: map[uint32]bool{root.Inode: true}}
	w.visit = func(path string, _ volume.Entry, f *volume.File, err error) (bool, error) {
		if err != nil {
			return false, c.x.problem(sink, path, err)
		}
		return true, c.file(ctx, path, f)
	}
	return w.entries(ctx, "", root, all)
}

// file counts one file.
func (c *census) file(ctx context.Context, path string, f *volume.File) error {
	p, encrypted := f.Policy()
	if !encrypted {
		c.plain++
		return nil
	}
	n := c.of[p]
	if n == nil {
		n = &counted{first: path}
		c.of[p] = n
		if k := c.x.key(p.Key); k != nil {
			n.open(c.x, k, f)
		}
	}
	n.files++
	if n.known && n.by == "" && f.Type == volume.Regular && f.Size > 0 && !f.Inline {
		return c.served(ctx, n, f)
	}
	return nil
}

// open asks fscrypt what the key means for a policy.
func (n *counted) open(x *files, k *filesKey, f *volume.File) {
	note, _ := f.Context()
	o, err := fscrypt.Open(k.MasterKey, x.v.FileSystem(), note, uint64(f.Inode))
	if err != nil {
		n.bad = err
		return
	}
	n.known, n.config, n.perFile = true, o.Config(), o.KeyID().PerFile()
}

// served asks the device who decrypts the first data of f.
func (c *census) served(ctx context.Context, n *counted, f *volume.File) error {
	for p, err := range f.Pieces(0, f.Size) {
		if err != nil {
			return nil // who reads it will be told
		}
		if p.Kind != volume.Data {
			continue
		}
		e, err := c.x.ask(ctx, f, p.Dev, p.Off)
		if err != nil {
			return err
		}
		for _, cipher := range e.Ciphers {
			if n.by == "" {
				n.by = cipher.By
			}
		}
		for _, s := range e.Steps {
			if s.Decision != nil && s.Decision.Why != "" {
				n.why = s.Decision.Why
			}
		}
		return nil
	}
	return nil
}

// service is who decrypts, in a word.
func (n *counted) service() string {
	switch n.by {
	case dm.ByEngine, dm.ByBeneath:
		return "engine"
	case dm.ByFallback:
		return "software"
	case dm.ByNobody:
		return "nobody"
	}
	return ""
}

// policy describes one in the words of the protocol.
func (x *files) policy(p fscrypt.Policy, n *counted) control.FscryptPolicy {
	c := control.FscryptPolicy{
		Version: p.Version, Contents: p.Contents.String(), Names: p.Names.String(), Flags: []string{}, Padding: p.Flags.Padding(),
		DataUnit: x.v.FileSystem().BlockSize, Key: p.Key.String(),
	}
	if p.Log2DataUnit != 0 {
		c.DataUnit = 1 << p.Log2DataUnit
	}
	if s := p.Flags.String(); s != "" {
		c.Flags = strings.Split(s, "|")
	}
	if k := x.key(p.Key); k != nil {
		c.Present, c.Source = true, k.Source
	}
	if n == nil {
		return c
	}
	c.Files, c.PerFile, c.Service, c.Why = n.files, n.perFile, n.service(), n.why
	c.First = strings.ToValidUTF8(n.first, "\uFFFD")
	if n.known {
		cfg := config(n.config)
		c.Config = &cfg
	}
	if n.bad != nil {
		c.Problem = n.bad.Error()
	}
	return c
}

// ask asks the device for the way of a read of a file's data at devOff, which is byte
// off of the file. Without the file's key it is asked as of a request that somebody else
// has encrypted.
func (x *files) ask(ctx context.Context, f *volume.File, devOff, off int64) (e dm.Explanation, err error) {
	q := dm.Question{Sector: devOff >> 9, Marked: f.Encrypted}
	p, _ := f.Policy()
	if k := x.key(p.Key); f.Encrypted && k != nil {
		note, _ := f.Context()
		o, err := fscrypt.Open(k.MasterKey, x.v.FileSystem(), note, uint64(f.Inode))
		if err != nil {
			return e, err
		}
		unit := int64(o.Config().DataUnitSize)
		dun, err := o.DUN(off &^ (unit - 1))
		if err != nil {
			return e, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
		}
		// Nobody sends requests with it: it wipes itself without a trace.
		if q.Key, err = o.NewKey(keyTitle(p, o, f)); err != nil {
			return e, err
		}
		defer q.Key.Evict(context.WithoutCancel(ctx))
		q.DUN = &dun
	}
	return x.on.Explain(q)
}

// keyTitle names a key of contents.
func keyTitle(p fscrypt.Policy, o *fscrypt.File, f *volume.File) string {
	if o.KeyID().PerFile() {
		return fmt.Sprintf("fscrypt %.8s inode %d", p.Key, f.Inode)
	}
	return fmt.Sprintf("fscrypt %.8s %v %v", p.Key, p.Flags, p.Contents)
}
