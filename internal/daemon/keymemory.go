package daemon

import (
	"fmt"

	"keyway/control"
	"keyway/internal/secret"
)

// keyMemory tells where the keys of this process are.
func keyMemory() control.KeyMemory {
	u := secret.Held()
	return control.KeyMemory{
		Policy: secret.Current().String(), HasHidden: secret.HasHidden(),
		Hidden: u.Hidden, Locked: u.Locked, Ordinary: u.Ordinary, Process: u.Process, Limit: u.Limit,
	}
}

// SetKeyMemory sets where keys go, before there are any: to the policy called name
// (best, locked or insecure), which a command line gave, else to that of the
// configuration, else to the best.
func SetKeyMemory(name string, c *Config) error {
	if name == "" && c != nil {
		name = c.KeyMemory
	}
	if name == "" {
		return nil
	}
	p, err := secret.ParsePolicy(name)
	if err == nil {
		secret.SetPolicy(p)
	}
	return err
}

// warnOfKeyMemory says aloud what is less than the best.
func (d *Daemon) warnOfKeyMemory() {
	u := secret.Held()
	switch {
	case secret.Current() == secret.Insecure:
		limit := "any amount is locked"
		if u.Limit >= 0 {
			limit = fmt.Sprintf("%d bytes are locked (RLIMIT_MEMLOCK)", u.Limit)
		}
		d.log.Warn("INSECURE key memory: keys that cannot be locked are kept in memory that may be written to swap, "+
			"and outlive the daemon there", "limit", limit, "way out", "raise LimitMEMLOCK= and drop key-memory insecure")
	case secret.Current() == secret.MlockOnly:
		d.log.Info("key memory is locked but not hidden, as told", "hibernation", "possible: its image holds the keys")
	case !secret.HasHidden():
		d.log.Info("key memory is locked but not hidden: the kernel has no memfd_secret, or a sandbox forbids it")
	}
}

// ordinaryWarning warns who adds a key that keys are in memory that may be
// swapped; nil if they are not.
func ordinaryWarning() []string {
	if n := secret.Held().Ordinary; n > 0 {
		return []string{fmt.Sprintf("insecure key memory: %d bytes of keys are in memory that may be written to swap", n)}
	}
	return nil
}

// noMemory is the way out of a lack of key memory.
const noMemory = "raise LimitMEMLOCK= (ulimit -l) of the daemon, or evict keys; with \"keyway serve --key-memory insecure\" " +
	"keys go to memory that may be swapped"
