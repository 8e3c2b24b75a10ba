package target

import (
	"context"
	"slices"

	"keyway/dm"
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

// newCrypt makes dm-crypt's target. Like dm-crypt it takes the ciphers
// whose modes software has, XTS keys with equal halves too, and counts sectors of 512 bytes unless
// iv_large_sectors is given. It passes no contexts: it would have to encrypt
// what is already encrypted.
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
	return e, e.open(b, true)
}
