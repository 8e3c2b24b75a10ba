package dmcrypt

import "crypto/subtle"

// lanes is how many sectors CBC encrypts side by side: the blocks of one are a chain,
// in which AES instructions would wait for each other.
const lanes = 16

// sideBySide reports whether the sectors of a run can be: they have one key, and
// nothing of their IV or text depends on other data than the number.
func (c *Cipher) sideBySide() bool {
	_, ok := c.bulks[0].(*cbc)
	return ok && len(c.bulks) == 1 && c.spec.iv != "lmk" && c.spec.iv != "elephant"
}

// encryptLanes encrypts whole sectors, the first at at.
func (c *Cipher) encryptLanes(dst, src []byte, at uint64, s *scratch) {
	b := c.bulks[0].(*cbc).b
	for len(src) > 0 {
		n := min(lanes, len(src)/c.sector)
		chains := s.lanes[:n*blockSize]
		for k := range n {
			c.setIV(s, c.ivNumber(at+uint64(k)<<c.shift))
			copy(chains[k*blockSize:], s.iv[:blockSize])
		}
		for off := 0; off < c.sector; off += blockSize {
			for k := range n {
				chain := chains[k*blockSize:][:blockSize]
				subtle.XORBytes(chain, chain, src[k*c.sector+off:][:blockSize])
			}
			b.Encrypt(chains, chains)
			for k := range n {
				copy(dst[k*c.sector+off:], chains[k*blockSize:][:blockSize])
			}
		}
		if c.spec.iv == "tcw" {
			for k := range n {
				sector := dst[k*c.sector:][:c.sector]
				c.whiten(sector, sector, c.ivNumber(at+uint64(k)<<c.shift), s)
			}
		}
		dst, src, at = dst[n*c.sector:], src[n*c.sector:], at+uint64(n)<<c.shift
	}
}
