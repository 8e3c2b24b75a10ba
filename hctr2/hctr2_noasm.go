//go:build !amd64 || purego

package hctr2

func (c *Cipher) hash(sum *element, b []byte)           { c.hashGeneric(sum, b) }
func (c *Cipher) hashIn(sum *element, text, src []byte) { c.hashInGeneric(sum, text, src) }
func (c *Cipher) stream(w *work, sum *element, dst, text []byte, counter uint64) {
	c.streamGeneric(w, sum, dst, text, counter)
}
