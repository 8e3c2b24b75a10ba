package essiv

import (
	"crypto/subtle"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// generic is the portable implementation: bitsliced AES on four blocks at once,
// one of each of four data units when encrypting, four of one when decrypting.
// Slow, one or two hundredths of what vaes256 does, and a quarter of that when
// a single data unit is encrypted, but in constant time, with all round keys in
// locked memory.
type generic struct {
	mem  *secret.Buffer
	keys []aes.State // bitsliced round keys, in mem
	numbers
	unit int
}

func newGeneric(key []byte, unit int) (engine, error) {
	n := aes.Rounds(len(key)) + 1
	const size = int(unsafe.Sizeof(aes.State{}))
	mem, err := secret.New(n*size + n*blockLen)
	if err != nil {
		return nil, err
	}
	keys := unsafe.Slice((*aes.State)(unsafe.Pointer(&mem.Bytes()[0])), n)
	rk := mem.Bytes()[n*size:]
	aes.Expand(rk, key)
	aes.SliceKeys(keys, rk)
	secret.Wipe(rk)
	iv, err := newNumbers(key)
	if err != nil {
		mem.Wipe()
		return nil, err
	}
	return &generic{mem, keys, iv, unit}, nil
}

func (g *generic) wipe() {
	g.mem.Wipe()
	g.keys = nil
	g.numbers.wipe()
}

// Hot: no allocation.
func (g *generic) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	var ivs [aes.StateSize]byte
	for units > 0 {
		n := min(units, aes.Lanes)
		g.fill(ivs[:n*blockLen], dun, step, n)
		if decrypt {
			for k := range n {
				g.decrypt(dst[k*g.unit:][:g.unit], src[k*g.unit:][:g.unit], ivs[k*blockLen:][:blockLen])
			}
		} else {
			g.encrypt(dst, src, n, &ivs)
		}
		dst, src = dst[n*g.unit:], src[n*g.unit:]
		units, dun = units-n, dataunit.Add128(dun, n*int(step))
	}
	secret.Wipe(ivs[:])
}

// encrypt encrypts units data units, four at most. chain holds their
// initialisation vectors, then always their last blocks of ciphertext.
func (g *generic) encrypt(dst, src []byte, units int, chain *[aes.StateSize]byte) {
	var q aes.State
	for off := 0; off < g.unit; off += blockLen {
		for k := range units {
			c := chain[k*blockLen:][:blockLen]
			subtle.XORBytes(c, c, src[k*g.unit+off:])
		}
		q.Slice(chain)
		q.Encrypt(g.keys)
		q.Unslice(chain)
		for k := range units {
			copy(dst[k*g.unit+off:], chain[k*blockLen:][:blockLen])
		}
	}
	q.Wipe()
}

// decrypt decrypts one data unit.
func (g *generic) decrypt(dst, src, iv []byte) {
	var q aes.State
	var buf, before [aes.StateSize]byte // before: the ciphertext one block earlier
	copy(before[:], iv)
	for off := 0; off < len(src); off += aes.StateSize {
		n := copy(buf[:], src[off:])
		copy(before[blockLen:], buf[:n])
		last := [blockLen]byte(buf[n-blockLen:]) // in place, src has it no more
		q.Slice(&buf)
		q.Decrypt(g.keys)
		q.Unslice(&buf)
		subtle.XORBytes(dst[off:off+n], buf[:n], before[:n])
		copy(before[:], last[:])
	}
	secret.Wipe(buf[:])
	q.Wipe()
	secret.Wipe(before[:])
}
