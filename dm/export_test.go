package dm

import (
	"iter"

	"keyway/blkcrypto"
)

// EnteredKeys is the keys that m remembers.
func EnteredKeys(m *Mapped) iter.Seq[*blkcrypto.Key] {
	return func(yield func(*blkcrypto.Key) bool) {
		m.entered.keys.Range(func(k, _ any) bool { return yield(k.(*blkcrypto.Key)) })
	}
}
