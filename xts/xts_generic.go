package xts

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// generic is the portable implementation: bitsliced AES, sixteen blocks of data or
// the numbers of four data units at once, in constant time, with all round keys
// in locked memory, for every data unit size.
//
// What constant time costs, for AES-256 in ns a byte, encryption and decryption:
// 6.1 and 7.4, where the AES of crypto/aes without instructions, which looks up
// tables by secret bytes, takes 5.6 alone, and x/crypto/xts over it 7.8. Where
// there are AES instructions that package takes 3.2 and aesni 0.2.
type generic struct {
	mem   *secret.Buffer
	data  []aes.Wide // bitsliced round keys, in mem, like those of tweak
	tweak []aes.State
	unit  int
}

func newGeneric(key []byte, unit int) (engine, error) {
	half := len(key) / 2
	n := aes.Rounds(half) + 1
	const wide, state = int(unsafe.Sizeof(aes.Wide{})), int(unsafe.Sizeof(aes.State{}))
	mem, err := secret.New(n * (wide + state + blockLen))
	if err != nil {
		return nil, err
	}
	b := mem.Bytes()
	rk := b[n*(wide+state):]
	g := &generic{
		mem:   mem,
		data:  unsafe.Slice((*aes.Wide)(unsafe.Pointer(&b[0])), n),
		tweak: unsafe.Slice((*aes.State)(unsafe.Pointer(&b[n*wide])), n),
		unit:  unit,
	}
	aes.Expand(rk, key[:half])
	aes.SliceWideKeys(g.data, rk)
	aes.Expand(rk, key[half:])
	aes.SliceKeys(g.tweak, rk)
	secret.Wipe(rk)
	return g, nil
}

func (g *generic) wipe() {
	g.mem.Wipe()
	g.data, g.tweak = nil, nil
}

// Hot: no allocation.
func (g *generic) crypt(dst, src []byte, units int, lo, hi, step uint64, decrypt bool) {
	dun := [2]uint64{lo, hi}
	var q aes.State
	var numbers [aes.StateSize]byte
	for units > 0 {
		n := min(units, aes.Lanes)
		for k := range n {
			number := dataunit.Add128(dun, k*int(step))
			binary.LittleEndian.PutUint64(numbers[k*blockLen:], number[0])
			binary.LittleEndian.PutUint64(numbers[k*blockLen+8:], number[1])
		}
		q.Slice(&numbers)
		q.Encrypt(g.tweak)
		q.Unslice(&numbers)
		for k := range n {
			g.cryptUnit(dst[:g.unit], src[:g.unit], numbers[k*blockLen:], decrypt)
			dst, src = dst[g.unit:], src[g.unit:]
		}
		units, dun = units-n, dataunit.Add128(dun, n*int(step))
	}
	secret.Wipe(numbers[:])
	q.Wipe()
}

// cryptUnit is one data unit. tweak is its encrypted number, and used up.
func (g *generic) cryptUnit(dst, src, tweak []byte, decrypt bool) {
	var q aes.Wide
	var buf, tweaks [aes.WideSize]byte
	for off := 0; off < len(src); off += aes.WideSize {
		n := min(aes.WideSize, len(src)-off)
		double(tweaks[:n], tweak)
		xor(buf[:n], src[off:], tweaks[:])
		q.Slice(&buf)
		if decrypt {
			q.Decrypt(g.data)
		} else {
			q.Encrypt(g.data)
		}
		q.Unslice(&buf)
		xor(dst[off:off+n], buf[:], tweaks[:])
	}
	secret.Wipe(buf[:])
	secret.Wipe(tweaks[:])
	q.Wipe()
}

// double fills dst with the tweaks from t on, each the one before times x, and
// leaves in t the next one. It keeps them off the stack, where they would stay:
// the race detector's calls would put them there.
//
//go:noinline
//go:norace
func double(dst, t []byte) {
	lo, hi := binary.LittleEndian.Uint64(t), binary.LittleEndian.Uint64(t[8:])
	for i := 0; i < len(dst); i += blockLen {
		binary.LittleEndian.PutUint64(dst[i:], lo)
		binary.LittleEndian.PutUint64(dst[i+8:], hi)
		lo, hi = lo<<1^hi>>63*0x87, hi<<1|lo>>63
	}
	binary.LittleEndian.PutUint64(t, lo)
	binary.LittleEndian.PutUint64(t[8:], hi)
}

// xor sets dst to a ^ b; len(dst) is a multiple of 8.
//
//go:norace
func xor(dst, a, b []byte) {
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:],
			binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))
	}
}
