package target

import (
	"context"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "default-key", Features: dm.PassesCrypto | dm.MarkedOnly, KeyArg: 2,
		Usage: "<cipher> <key> <iv_offset> <device> <start sector> [<#options> allow_discards | sector_size:N | iv_large_sectors | wrappedkey_v0]",
		New:   newDefaultKey,
	})
}

// defaultKey is Android's metadata encryption: everything gets the default
// key but what a layer above has encrypted, or asks to be encrypted, with a
// key of its own and marked SkipDefaultKey. So each block is encrypted with
// exactly one key.
type defaultKey struct{ *encrypt }

func newDefaultKey(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	e, err := encryptArgs(b, a, "default-key", 5, false, wrappedKey)
	if err == nil {
		err = e.needLarge()
	}
	if err != nil {
		return nil, err
	}
	return defaultKey{e}, e.open(b, false)
}

// wrappedKey takes Android's option for hardware-wrapped keys.
func wrappedKey(e *encrypt, name, _ string) (known bool, err error) {
	if name != "wrappedkey_v0" {
		return false, nil
	}
	e.config.KeyType = blkcrypto.HWWrapped
	e.options = append(e.options, name)
	return true, nil
}

// Do encrypts what is not marked.
//
// Hot: no allocation.
func (d defaultKey) Do(ctx context.Context, r block.Request) error {
	dev, err := d.Map(&r)
	if err != nil {
		return err
	}
	return dev.Do(ctx, r)
}

// Map leaves marked requests as they are. One with a context and without the
// mark is refused, as Android does (dm-fscrypt.md, invariant 68); the table
// never sends one.
func (d defaultKey) Map(r *block.Request) (block.Device, error) {
	if r.Flags&block.SkipDefaultKey != 0 && r.Op.HasData() {
		r.Off += d.start
		return d.Device, nil
	}
	return d.encrypt.Map(r)
}
