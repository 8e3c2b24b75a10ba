package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/dmcrypt"
	"keyway/keyslot"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "crypt", KeyArg: 2,
		Usage: "<cipher> <key> <iv_offset> <device> <start sector> [<#options> allow_discards | sector_size:N | iv_large_sectors | ...]",
		New:   newCrypt,
	})
}

// cryptOptions steer threads of the kernel: taken, printed again, and without
// effect. In the order in which dm-crypt prints them.
var cryptOptions = []string{
	"same_cpu_crypt", "high_priority", "submit_from_crypt_cpus", "no_read_workqueue", "no_write_workqueue",
}

// crypt is dm-crypt's target. It passes no contexts: it would have to encrypt what
// is already encrypted. What is a mode of blk-crypto it leaves to engines and
// fallbacks; for any other cipher it has one of its own.
type crypt struct {
	*encrypt
	b    *dm.Builder
	spec dmcrypt.Spec

	own     *keyslot.Manager // of the cipher; nil for a mode of blk-crypto, and without a key
	through block.Device     // the device behind own

	paused atomic.Bool // the device is suspended, or about to be
}

var errNoKey = errors.New(`the key has been wiped: "key set" with a key reference gives it one`)

// newCrypt makes the target. Like dm-crypt it takes XTS keys with equal halves, and
// counts sectors of 512 bytes unless iv_large_sectors is given.
func newCrypt(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	var given []string
	e, err := encryptArgs(b, a, "crypt", 9, true, func(_ *encrypt, name, _ string) (bool, error) {
		if !slices.Contains(cryptOptions, name) {
			return false, nil
		}
		given = append(given, name)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	at := 0
	if e.discards {
		at = 1
	}
	for _, name := range cryptOptions {
		if slices.Contains(given, name) {
			e.options = slices.Insert(e.options, at, name)
			at++
		}
	}
	c := &crypt{encrypt: e, b: b}
	if c.spec, err = dmcrypt.Parse(e.cipher); err != nil {
		return nil, err
	}
	if err := c.spec.CheckSector(e.config.DataUnitSize); err != nil {
		return nil, err
	}
	if e.config.Mode != blkcrypto.DMCrypt {
		return c, e.open(b, true)
	}
	return c, c.openOwn()
}

// openOwn is open with a cipher of the row's own, which is in front of the device.
func (c *crypt) openOwn() error {
	var err error
	if c.Device, err = c.b.OpenSpan(c.name, c.start, c.length); err != nil {
		return err
	}
	c.through = c.Device
	if c.spec.Keyless() {
		return nil
	}
	c.own = keyslot.New(&rowCipher{spec: c.spec, config: c.config})
	c.through = keyslot.Fallback(c.Device, c.own)
	return c.take(c.b.Context(), c.b, c.ref, true)
}

// take is encrypt's, but that a cipher of the row's own serves the key at once.
func (c *crypt) take(ctx context.Context, b *dm.Builder, ref dm.KeyRef, weak bool) error {
	if c.own == nil {
		return c.encrypt.take(ctx, b, ref, weak)
	}
	k, err := b.TakeKey(ctx, ref, c.config, weak)
	if err != nil {
		return err
	}
	c.held.Store(&heldKey{ref, k})
	return nil
}

// Do encrypts what has data.
//
// Hot: no allocation.
func (c *crypt) Do(ctx context.Context, r block.Request) error {
	if c.through == nil {
		return c.encrypt.Do(ctx, r)
	}
	if _, err := c.Map(&r); err != nil {
		return err
	}
	if r.Op.HasData() && c.own != nil {
		var err error
		if r.Crypt, err = c.context(r.Off - c.start); err != nil {
			return err
		}
	}
	return c.through.Do(ctx, r)
}

// Map is encrypt's for a mode of blk-crypto; what the row's own cipher encrypts
// goes to the device without a context.
func (c *crypt) Map(r *block.Request) (block.Device, error) {
	if c.through == nil {
		return c.encrypt.Map(r)
	}
	if err := c.admits(r); err != nil {
		return nil, err
	}
	r.Flags &^= block.SkipDefaultKey | block.KeyHeld
	r.Off += c.start
	return c.Device, nil
}

// Explain says who encrypts, if it is nobody beneath.
func (c *crypt) Explain(off int64) string {
	if c.through == nil {
		return ""
	}
	return fmt.Sprintf("encrypted here by %v, which no engine has, in software; sector %d", c.spec, c.ivOffset+uint64(off>>9))
}

// Close wipes the cipher: others may go on with the same key.
func (c *crypt) Close() error {
	err := c.forget(context.Background())
	return errors.Join(err, c.Device.Close())
}

// forget takes the key out of the row's own cipher. No request uses it.
func (c *crypt) forget(ctx context.Context) error {
	h := c.held.Load()
	if c.own == nil || h == nil || h.key == nil {
		return nil
	}
	if p := c.own.EvictKey(ctx, h.key); p.Err != nil {
		return fmt.Errorf("key %q: %s: %w", h.key.Name(), p.Holder, p.Err)
	}
	h.key.Release(c.own)
	return nil
}

// Pause and Unpause tell whether requests are kept away: keys change only then.
func (c *crypt) Pause()   { c.paused.Store(true) }
func (c *crypt) Unpause() { c.paused.Store(false) }

// Ready refuses to go on without a key.
func (c *crypt) Ready() error {
	if h := c.held.Load(); h != nil && h.key == nil {
		return errNoKey
	}
	return nil
}

// Message takes "key set <reference>" and "key wipe", while the device is suspended.
// A key is set in the place of the one that is there, and has its size. What waited
// meanwhile is encrypted with the new key.
func (c *crypt) Message(ctx context.Context, words []string) (string, error) {
	if len(words) < 2 || !strings.EqualFold(words[0], "key") {
		return "", errors.New("no such message (there are: key set <key reference>, key wipe)")
	}
	if !c.paused.Load() {
		return "", errors.New("keys change only while the device is suspended: suspend it first")
	}
	switch verb := strings.ToLower(words[1]); {
	case c.spec.Keyless():
		return "", fmt.Errorf("cipher %v has no key", c.spec)
	case verb == "wipe" && len(words) == 2:
		return "", c.wipeKey(ctx)
	case verb == "set" && len(words) == 3:
		return "", c.setKey(ctx, words[2])
	}
	return "", errors.New("not one of: key set <key reference>, key wipe")
}

func (c *crypt) setKey(ctx context.Context, word string) error {
	ref, err := dm.ParseKeyRef(word)
	if err != nil {
		return fmt.Errorf("key set: %w: add the key to the key store and name it", err)
	}
	was := c.held.Load()
	if ref.Size != was.ref.Size {
		return fmt.Errorf("key set: a key of %d bytes in place of one of %d", ref.Size, was.ref.Size)
	}
	if err := c.wipeKey(ctx); err != nil {
		return fmt.Errorf("key set: the old key: %w", err)
	}
	if err := c.take(ctx, c.b, ref, true); err != nil {
		return fmt.Errorf("key set: %w; there is no key now", err)
	}
	return nil
}

// wipeKey gives the key back; when it returns nil it is in no place for this row.
func (c *crypt) wipeKey(ctx context.Context) error {
	h := c.held.Load()
	if h.key == nil {
		return nil
	}
	if err := c.forget(ctx); err != nil {
		return err
	}
	c.held.Store(&heldKey{ref: h.ref})
	return c.b.GiveBack(ctx, h.key)
}
