package target

import (
	"context"
	"errors"
	"fmt"

	"keyway/blkcrypto"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "inlinecrypt", KeyArg: 2,
		Usage: "<cipher> <key> <iv_offset> <device> <start sector> [<#options> allow_discards | sector_size:N | iv_large_sectors | keytype:raw|hw-wrapped]",
		New:   newInlineCrypt,
	})
}

// newInlineCrypt makes the target of Linux 7.2: the bytes of dm-crypt with
// iv_large_sectors, the work meant for the engine beneath. Unlike the kernel's
// it prints a line that can be loaded again, and takes a row of one data unit.
func newInlineCrypt(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	e, err := encryptArgs(b, a, "inlinecrypt", 4, false, keyType)
	if err == nil {
		err = e.needLarge()
	}
	if err != nil {
		return nil, err
	}
	return e, e.open(b, false)
}

// keyType takes the keytype option.
func keyType(e *encrypt, name, value string) (known bool, err error) {
	switch {
	case name != "keytype":
		return false, nil
	case value == "raw":
		return true, nil
	case value == "hw-wrapped":
		e.config.KeyType = blkcrypto.HWWrapped
		e.options = append(e.options, "keytype:hw-wrapped")
		return true, nil
	}
	return true, fmt.Errorf("keytype %q is not raw or hw-wrapped", value)
}

// needLarge refuses the numbering that only dm-crypt has.
func (e *encrypt) needLarge() error {
	if e.config.Numbering == blkcrypto.BySector {
		return errors.New("sector_size above 512 needs the option iv_large_sectors")
	}
	return nil
}
