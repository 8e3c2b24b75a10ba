package dmcrypt

import (
	"fmt"
	"math/bits"
	"sync"

	"keyway/internal/arena"
	"keyway/internal/secret"
)

// A Cipher is a Spec with a key. Encrypt and Decrypt may be called from many
// goroutines at once; none may be running when Wipe is called, or follow it.
type Cipher struct {
	spec   Spec
	sector int // bytes
	shift  uint
	large  bool
	ivSize int
	iv     ivMode // nil: the chain takes none
	plain  uint   // bits of the number that are the IV; 0 if it is made otherwise

	bulks   []bulk
	number  []block        // essiv: one for each of bulks
	diffuse block          // elephant's second key
	secrets *secret.Buffer // lmk's state after the seed; tcw's seed and whitening
	wiped   bool
}

// Options say how sectors are cut and counted.
type Options struct {
	SectorSize int  // bytes: 512, 1024, 2048 or 4096
	LargeIV    bool // iv_large_sectors: IVs count sectors of SectorSize, and not of 512 bytes
}

// New expands key, which stays the caller's, into locked memory. A cipher without
// key takes an empty one. XTS keys with equal halves are taken, as dm-crypt does.
func New(p Spec, o Options, key []byte) (*Cipher, error) {
	if err := p.CheckSector(o.SectorSize); err != nil {
		return nil, fmt.Errorf("dmcrypt: %w", err)
	}
	l, err := p.layout(len(key))
	if err != nil {
		return nil, fmt.Errorf("dmcrypt: %w", err)
	}
	c := &Cipher{
		spec: p, sector: o.SectorSize, shift: uint(bits.TrailingZeros(uint(o.SectorSize))) - 9, large: o.LargeIV,
		ivSize: chains[p.chain], iv: ivs[p.iv],
	}
	switch {
	case p.fastESSIV(): // package essiv has the rest of it
		c.iv, c.plain = ivs["plain64"], 64
	case p.iv == "plain64":
		c.plain = 64
	case p.iv == "plain":
		c.plain = 32
	}
	if err := c.expand(l, key); err != nil {
		c.Wipe()
		return nil, fmt.Errorf("dmcrypt: %v: %w", p, err)
	}
	return c, nil
}

func (c *Cipher) expand(l layout, key []byte) error {
	for i := range c.spec.keys {
		part := key[i*l.each:][:l.each]
		b, err := newBulk(c.spec, c.sector, part)
		if err != nil {
			return err
		}
		c.bulks = append(c.bulks, b)
		if c.spec.iv == "essiv" && !c.spec.fastESSIV() {
			n, err := newNumber(c.spec, part)
			if err != nil {
				return err
			}
			c.number = append(c.number, n)
		}
	}
	extra := key[c.spec.keys*l.each:]
	var err error
	switch c.spec.iv {
	case "elephant":
		c.diffuse, err = newBlock("aes", extra)
	case "tcw":
		if c.secrets, err = secret.New(len(extra)); err == nil {
			secret.Move(c.secrets.Bytes(), extra)
		}
	case "lmk":
		c.secrets, err = newLMK(extra)
	}
	return err
}

// Spec is what the cipher was made of.
func (c *Cipher) Spec() Spec { return c.spec }

// SectorSize is the size of the sectors, in bytes.
func (c *Cipher) SectorSize() int { return c.sector }

// LargeIV reports whether IVs count sectors of SectorSize.
func (c *Cipher) LargeIV() bool { return c.large }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Encrypt encrypts src, whole sectors, into dst, at least as long. They are the
// same memory or do not overlap. first is the number of the first sector in units
// of 512 bytes whatever the size of the sectors, iv_offset included. Breaking these
// rules, or using a wiped cipher, panics: going on would lose data. dst gets
// nothing but ciphertext, not even for a moment.
//
// Hot: no allocation.
func (c *Cipher) Encrypt(dst, src []byte, first uint64) { c.run(dst, src, first, false) }

// Decrypt is the inverse of Encrypt, under the same rules.
//
// Hot: no allocation.
func (c *Cipher) Decrypt(dst, src []byte, first uint64) { c.run(dst, src, first, true) }

func (c *Cipher) run(dst, src []byte, first uint64, decrypt bool) {
	if len(src)&(c.sector-1) != 0 || len(dst) < len(src) || first&(1<<c.shift-1) != 0 {
		panic("dmcrypt: input is not whole sectors, or output is shorter")
	}
	if c.wiped {
		panic("dmcrypt: cipher used after Wipe")
	}
	if r, step, ok := c.runner(first, len(src)); ok {
		r.run(dst, src, c.ivNumber(first), step, decrypt)
		return
	}
	s := scratches.Get().(*scratch)
	switch {
	case decrypt:
		for ; len(src) > 0; dst, src = dst[c.sector:], src[c.sector:] {
			c.decrypt(dst[:c.sector], src[:c.sector], first, s)
			first += 1 << c.shift
		}
	case c.sideBySide():
		c.encryptLanes(dst, src, first, s)
	default:
		for ; len(src) > 0; dst, src = dst[c.sector:], src[c.sector:] {
			c.encrypt(dst[:c.sector], src[:c.sector], first, s)
			first += 1 << c.shift
		}
	}
	wipe(s) // tweaks and masks are secret
	scratches.Put(s)
}

// runner is what takes n bytes from sector first on at once, and by how much its
// number grows from sector to sector; ok tells whether there is one.
func (c *Cipher) runner(first uint64, n int) (r runner, step uint64, ok bool) {
	if c.plain == 0 || len(c.bulks) != 1 || n == 0 {
		return nil, 0, false
	}
	if step = 1; !c.large {
		step <<= c.shift
	}
	last, carry := bits.Add64(first, uint64(n)>>9-1, 0)
	if carry != 0 || c.ivNumber(last)>>(c.plain-1)>>1 != 0 {
		return nil, 0, false // numbers that begin again, or that are cut
	}
	r, ok = c.bulks[0].(runner)
	return r, step, ok
}

// chosen is the index of the key for the sector with IV number n.
func (c *Cipher) chosen(n uint64) int {
	if c.large {
		n <<= c.shift
	}
	return int(n & uint64(len(c.bulks)-1))
}

// ivNumber is what the IV of sector at is made of.
func (c *Cipher) ivNumber(at uint64) uint64 {
	if c.large {
		return at >> c.shift
	}
	return at
}

func (c *Cipher) setIV(s *scratch, n uint64) {
	clear(s.iv[:])
	if c.iv != nil {
		c.iv(c, s, n)
	}
}

func (c *Cipher) encrypt(dst, src []byte, at uint64, s *scratch) {
	n := c.ivNumber(at)
	b := c.bulks[c.chosen(n)]
	c.setIV(s, n)
	switch c.spec.iv {
	case "lmk":
		c.lmk(s.iv[:blockSize], src, n)
	case "elephant":
		// Diffused plaintext is still plaintext to everybody, and dst may be the medium.
		buf := arena.Get(c.sector)
		defer buf.Put()
		copy(buf.Bytes(), src)
		c.diffuseEncrypt(buf.Bytes(), s, n)
		src = buf.Bytes()
	}
	b.encrypt(dst, src, s)
	if c.spec.iv == "tcw" {
		c.whiten(dst, dst, n, s)
	}
}

func (c *Cipher) decrypt(dst, src []byte, at uint64, s *scratch) {
	n := c.ivNumber(at)
	b := c.bulks[c.chosen(n)]
	c.setIV(s, n)
	if c.spec.iv == "tcw" {
		c.whiten(dst, src, n, s)
		src = dst
	}
	b.decrypt(dst, src, s)
	switch c.spec.iv {
	case "lmk":
		c.lmkFirst(dst, s, n)
	case "elephant":
		c.diffuseDecrypt(dst, s, n)
	}
}

// Wipe erases everything that was derived from the key. It may be called again.
func (c *Cipher) Wipe() {
	c.wiped = true
	for _, b := range c.bulks {
		b.wipe()
	}
	for _, b := range c.number {
		b.Wipe()
	}
	if c.diffuse != nil {
		c.diffuse.Wipe()
	}
	c.secrets.Wipe()
}
