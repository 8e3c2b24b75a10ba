package dmcrypt

import (
	"crypto/subtle"
	"encoding/binary"

	"keyway/adiantum"
	"keyway/essiv"
	"keyway/hctr2"
	"keyway/sm4xts"
	"keyway/xts"
)

// A bulk is a mode of operation under one key, over one sector at a time. iv has
// the bytes that chains says, the rest is zero. Whatever it encrypts, nothing but
// ciphertext gets into dst.
type bulk interface {
	encrypt(dst, src []byte, s *scratch)
	decrypt(dst, src []byte, s *scratch)
	wipe()
}

// A runner is a bulk over many sectors at once, where the IV is a number of 64 bits
// that grows by step from sector to sector and does not overflow.
type runner interface {
	run(dst, src []byte, number, step uint64, decrypt bool)
}

// wide is how many bytes a generic mode has in work at once: enough for the AES
// instructions to be busy.
const wide = 512

// scratch is what the work on a sector needs: on no stack, since the block ciphers
// are behind an interface.
type scratch struct {
	iv     [32]byte // in, of one sector
	chain  [blockSize]byte
	masks  [wide]byte
	blocks [wide]byte
	number [blockSize]byte
	lanes  [lanes * blockSize]byte
}

func newBulk(p Spec, sector int, key []byte) (bulk, error) {
	switch {
	case p.chain == "adiantum":
		open := adiantum.New
		if p.stream == 20 {
			open = adiantum.New20
		}
		c, err := open(key, sector)
		if err != nil {
			return nil, err
		}
		return wideBlock{c}, nil
	case p.chain == "hctr2":
		c, err := hctr2.New(key, sector)
		if err != nil {
			return nil, err
		}
		return wideBlock{c}, nil
	case p.fastESSIV():
		c, err := essiv.New(key, sector)
		if err != nil {
			return nil, err
		}
		return fast{c}, nil
	case p.chain == "lrw":
		return newLRW(p.block, key)
	case p.chain == "xts" && p.block == "aes":
		c, err := xts.NewAllowWeak(key, sector)
		if err != nil {
			return nil, err
		}
		return fast{c}, nil
	case p.chain == "xts" && p.block == "sm4":
		c, err := sm4xts.NewAllowWeak(key, sector)
		if err != nil {
			return nil, err
		}
		return fast{c}, nil
	case p.chain == "xts":
		return newSlowXTS(p.block, key)
	}
	b, err := newBlock(p.block, key)
	if err != nil {
		return nil, err
	}
	if p.chain == "ecb" {
		return ecb{b}, nil
	}
	return &cbc{b}, nil
}

// ecb is every block on its own.
type ecb struct{ b block }

func (e ecb) encrypt(dst, src []byte, _ *scratch) { e.b.Encrypt(dst, src) }
func (e ecb) decrypt(dst, src []byte, _ *scratch) { e.b.Decrypt(dst, src) }
func (e ecb) wipe()                               { e.b.Wipe() }

// cbc is cipher block chaining (NIST SP 800-38A, section 6.2).
type cbc struct{ b block }

func (c *cbc) encrypt(dst, src []byte, s *scratch) {
	copy(s.chain[:], s.iv[:blockSize])
	for ; len(src) > 0; dst, src = dst[blockSize:], src[blockSize:] {
		subtle.XORBytes(s.chain[:], s.chain[:], src[:blockSize])
		c.b.Encrypt(s.chain[:], s.chain[:])
		copy(dst, s.chain[:])
	}
}

func (c *cbc) decrypt(dst, src []byte, s *scratch) {
	copy(s.chain[:], s.iv[:blockSize])
	for len(src) > 0 {
		n := min(wide, len(src))
		// dst may be src: the ciphertext is needed after it has been decrypted.
		copy(s.masks[:], s.chain[:])
		copy(s.masks[blockSize:n], src)
		copy(s.chain[:], src[n-blockSize:n])
		c.b.Decrypt(dst[:n], src[:n])
		subtle.XORBytes(dst[:n], dst[:n], s.masks[:n])
		dst, src = dst[n:], src[n:]
	}
}

func (c *cbc) wipe() { c.b.Wipe() }

// slowXTS is XTS (IEEE 1619-2018) over any block cipher, the kernel's way: the key
// for the data is the first half.
type slowXTS struct{ data, tweak block }

func newSlowXTS(name string, key []byte) (bulk, error) {
	data, err := newBlock(name, key[:len(key)/2])
	if err != nil {
		return nil, err
	}
	tweak, err := newBlock(name, key[len(key)/2:])
	if err != nil {
		data.Wipe()
		return nil, err
	}
	return &slowXTS{data, tweak}, nil
}

func (x *slowXTS) encrypt(dst, src []byte, s *scratch) { x.each(dst, src, s, x.data.Encrypt) }
func (x *slowXTS) decrypt(dst, src []byte, s *scratch) { x.each(dst, src, s, x.data.Decrypt) }

func (x *slowXTS) each(dst, src []byte, s *scratch, crypt func(dst, src []byte)) {
	x.tweak.Encrypt(s.chain[:], s.iv[:blockSize])
	low, high := binary.LittleEndian.Uint64(s.chain[:]), binary.LittleEndian.Uint64(s.chain[8:])
	for len(src) > 0 {
		n := min(wide, len(src))
		for at := 0; at < n; at += blockSize {
			binary.LittleEndian.PutUint64(s.masks[at:], low)
			binary.LittleEndian.PutUint64(s.masks[at+8:], high)
			carry := high >> 63 * 0x87 // x^128 = x^7 + x^2 + x + 1
			high, low = high<<1|low>>63, low<<1^carry
		}
		// Not in dst: it may be the medium, and this is not ciphertext yet.
		subtle.XORBytes(s.blocks[:n], src[:n], s.masks[:n])
		crypt(s.blocks[:n], s.blocks[:n])
		subtle.XORBytes(dst[:n], s.blocks[:n], s.masks[:n])
		dst, src = dst[n:], src[n:]
	}
}

func (x *slowXTS) wipe() {
	x.data.Wipe()
	x.tweak.Wipe()
}

// fast is a mode by a package of our own that takes the IV as a number: XTS of AES
// and of SM4, and AES-CBC-ESSIV with SHA-256, which makes the IV of it.
type fast struct {
	c interface {
		Encrypt(dst, src []byte, number [2]uint64)
		Decrypt(dst, src []byte, number [2]uint64)
		EncryptStep(dst, src []byte, number [2]uint64, step uint64)
		DecryptStep(dst, src []byte, number [2]uint64, step uint64)
		Wipe()
	}
}

func (f fast) encrypt(dst, src []byte, s *scratch) { f.c.Encrypt(dst, src, s.halves()) }
func (f fast) decrypt(dst, src []byte, s *scratch) { f.c.Decrypt(dst, src, s.halves()) }
func (f fast) wipe()                               { f.c.Wipe() }

func (f fast) run(dst, src []byte, number, step uint64, decrypt bool) {
	if decrypt {
		f.c.DecryptStep(dst, src, [2]uint64{number}, step)
	} else {
		f.c.EncryptStep(dst, src, [2]uint64{number}, step)
	}
}

func (s *scratch) halves() [2]uint64 {
	return [2]uint64{binary.LittleEndian.Uint64(s.iv[:]), binary.LittleEndian.Uint64(s.iv[8:])}
}

// wideBlock is Adiantum or HCTR2.
type wideBlock struct {
	c interface {
		Encrypt(dst, src []byte, number [4]uint64)
		Decrypt(dst, src []byte, number [4]uint64)
		EncryptStep(dst, src []byte, number [4]uint64, step uint64)
		DecryptStep(dst, src []byte, number [4]uint64, step uint64)
		Wipe()
	}
}

func (w wideBlock) encrypt(dst, src []byte, s *scratch) { w.c.Encrypt(dst, src, s.quarters()) }
func (w wideBlock) decrypt(dst, src []byte, s *scratch) { w.c.Decrypt(dst, src, s.quarters()) }
func (w wideBlock) wipe()                               { w.c.Wipe() }

func (w wideBlock) run(dst, src []byte, number, step uint64, decrypt bool) {
	if decrypt {
		w.c.DecryptStep(dst, src, [4]uint64{number}, step)
	} else {
		w.c.EncryptStep(dst, src, [4]uint64{number}, step)
	}
}

func (s *scratch) quarters() (q [4]uint64) {
	for i := range q {
		q[i] = binary.LittleEndian.Uint64(s.iv[8*i:])
	}
	return q
}
