package dm

import "keyway/blkcrypto"

// ServedNow is what m's live table and those beneath add up to, whatever has been
// published.
func ServedNow(m *Mapped) blkcrypto.Profile { return m.live.Load().ability(nil).profile }
