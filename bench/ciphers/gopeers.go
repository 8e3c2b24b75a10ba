package main

import (
	"context"
	"crypto/aes"
	stdcipher "crypto/cipher"
	"crypto/sha256"
	"time"

	gmcipher "github.com/emmansun/gmsm/cipher"
	"github.com/emmansun/gmsm/sm4"
	"golang.org/x/crypto/xts"
	"lukechampine.com/adiantum"
	"lukechampine.com/adiantum/hbsh"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/measure"
)

type opener func(unit int, key []byte) (cipher.Cipher, error)

// goPeers are other people's Go packages, used as well as their interface allows.
var goPeers = []struct {
	name  string
	modes map[blkcrypto.Mode]opener
}{
	{"x/crypto/xts", map[blkcrypto.Mode]opener{blkcrypto.AES128XTS: newXCrypto, blkcrypto.AES256XTS: newXCrypto}},
	{"crypto/cipher", map[blkcrypto.Mode]opener{blkcrypto.AES128CBCESSIV: newStdESSIV}},
	{"lukechampine", map[blkcrypto.Mode]opener{blkcrypto.Adiantum: newLukechampine}},
	{"gmsm", map[blkcrypto.Mode]opener{blkcrypto.SM4XTS: newGMSM}},
}

// unitwise makes a Cipher of one that does a data unit in a call.
type unitwise struct {
	unit  int
	crypt func(dst, src []byte, iv *[32]byte, dun uint64, decrypt bool)
}

func (u unitwise) Encrypt(dst, src []byte, dun blkcrypto.DUN) { u.run(dst, src, dun, false) }
func (u unitwise) Decrypt(dst, src []byte, dun blkcrypto.DUN) { u.run(dst, src, dun, true) }
func (u unitwise) Wipe()                                      {}

func (u unitwise) run(dst, src []byte, dun blkcrypto.DUN, decrypt bool) {
	var iv [32]byte
	for at := 0; at < len(src); at += u.unit {
		dun.PutIV(iv[:])
		u.crypt(dst[at:at+u.unit], src[at:at+u.unit], &iv, dun[0], decrypt)
		dun[0]++
	}
}

// inPlacer is a Cipher that can only work in place: it is measured so, without
// the copy that it needs otherwise.
type inPlacer struct{ unitwise }

func (p inPlacer) rate(ctx context.Context, j job, d time.Duration) float64 {
	text, _ := pattern(j.size(), 0)
	op := p.Encrypt
	if j.decrypt {
		op = p.Decrypt
	}
	dun := blkcrypto.DUN64(1)
	return float64(len(text)) * measure.Rate(ctx, 1, d, func(int) func() {
		return func() { op(text, text, dun); dun[0] += uint64(j.units) }
	})
}

func newXCrypto(unit int, key []byte) (cipher.Cipher, error) {
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, err
	}
	return unitwise{unit, func(dst, src []byte, _ *[32]byte, dun uint64, decrypt bool) {
		if decrypt {
			c.Decrypt(dst, src, dun)
		} else {
			c.Encrypt(dst, src, dun)
		}
	}}, nil
}

func newLukechampine(unit int, key []byte) (cipher.Cipher, error) {
	var c *hbsh.HBSH = adiantum.New(key)
	return inPlacer{unitwise{unit, func(dst, src []byte, iv *[32]byte, _ uint64, decrypt bool) {
		if &dst[0] != &src[0] {
			copy(dst, src)
		}
		if decrypt {
			c.Decrypt(dst, iv[:])
		} else {
			c.Encrypt(dst, iv[:])
		}
	}}}, nil
}

// newGMSM makes a BlockMode for each data unit, as the package wants it, but
// expands the keys once.
func newGMSM(unit int, key []byte) (cipher.Cipher, error) {
	var blocks [2]stdcipher.Block
	for i := range blocks {
		var err error
		if blocks[i], err = sm4.NewCipher(key[16*i : 16*i+16]); err != nil {
			return nil, err
		}
	}
	expanded := func(which []byte) (stdcipher.Block, error) { return blocks[which[0]], nil }
	data, tweak := []byte{0}, []byte{1}
	return unitwise{unit, func(dst, src []byte, iv *[32]byte, _ uint64, decrypt bool) {
		open := gmcipher.NewXTSEncrypter
		if decrypt {
			open = gmcipher.NewXTSDecrypter
		}
		mode, err := open(expanded, data, tweak, iv[:16])
		if err != nil {
			panic(err)
		}
		mode.CryptBlocks(dst, src)
	}}, nil
}

// newStdESSIV is the standard library's CBC with the numbers encrypted under the
// hash of the key.
func newStdESSIV(unit int, key []byte) (cipher.Cipher, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	salt := sha256.Sum256(key)
	numbers, err := aes.NewCipher(salt[:])
	if err != nil {
		return nil, err
	}
	return unitwise{unit, func(dst, src []byte, iv *[32]byte, _ uint64, decrypt bool) {
		numbers.Encrypt(iv[:16], iv[:16])
		open := stdcipher.NewCBCEncrypter
		if decrypt {
			open = stdcipher.NewCBCDecrypter
		}
		open(block, iv[:16]).CryptBlocks(dst, src)
	}}, nil
}
