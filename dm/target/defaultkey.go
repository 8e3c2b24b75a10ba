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
		Usage: "<cipher> <key> <iv_offset> <device> <start sector> [<#options> allow_discards | sector_size:N | iv_large_sectors]",
		New:   newDefaultKey,
	})
}

// defaultKey is Android's metadata encryption: everything gets the default
// key but what a layer above has encrypted, or asks to be encrypted, with a
// key of its own and marked SkipDefaultKey. So each block is encrypted with
// exactly one key.
type defaultKey struct{ *encrypt }

func newDefaultKey(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	e, err := encryptArgs(b, a, map[int]blkcrypto.Mode{64: blkcrypto.AES256XTS}, 4, false, nil)
	if err == nil {
		err = e.needLarge()
	}
	if err != nil {
		return nil, err
	}
	return defaultKey{e}, e.open(b, false)
}

// Do passes marked requests on as they are. One with a context and without
// the mark is refused, as Android does (dm-fscrypt.md, invariant 68); the
// table never sends one.
//
// Hot: no allocation.
func (d defaultKey) Do(ctx context.Context, r block.Request) error {
	if r.Flags&block.SkipDefaultKey != 0 && r.Op.HasData() {
		r.Off += d.start
		return d.Device.Do(ctx, r)
	}
	return d.encrypt.Do(ctx, r)
}
