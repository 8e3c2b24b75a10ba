//go:build (!amd64 && !arm64) || purego

package adiantum

import "keyway/internal/dataunit"

func native() []dataunit.Impl[implementation] { return nil }

// lanes is how many data units im takes at once.
func lanes(implementation) int { return 1 }

// distance is that of the units that im wants in one register, 0 if none.
func distance(implementation) int { return 0 }

func (c *Cipher) hashIn(w *work, text, src []byte, n int) { c.hashInGeneric(w, text, src, n) }
func (c *Cipher) hashOut(w *work, text []byte, n int)     { c.hashOutGeneric(w, text, n) }
func (c *Cipher) subkeys(w *work, n int)                  { c.subkeysGeneric(w, n) }
func (c *Cipher) stream(w *work, dst, text []byte, n int) { c.streamGeneric(w, dst, text, n) }
