package xts

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// generic is the portable implementation: bitsliced AES, four blocks at once.
// Slow (about 50 MB/s, vaes 10 GB/s) but in constant time, with all round keys in
// locked memory, for every data unit size.
type generic struct {
	mem         *secret.Buffer
	data, tweak []aes.State // bitsliced round keys, in mem
	unit        int
}

func newGeneric(key []byte, unit int) (engine, error) {
	half := len(key) / 2
	n := aes.Rounds(half) + 1
	const size = int(unsafe.Sizeof(aes.State{}))
	mem, err := secret.New(2*n*size + n*blockLen)
	if err != nil {
		return nil, err
	}
	b := mem.Bytes()
	rk := b[2*n*size:]
	g := &generic{
		mem:   mem,
		data:  unsafe.Slice((*aes.State)(unsafe.Pointer(&b[0])), n),
		tweak: unsafe.Slice((*aes.State)(unsafe.Pointer(&b[n*size])), n),
		unit:  unit,
	}
	for i, sched := range [][]aes.State{g.data, g.tweak} {
		aes.Expand(rk, key[i*half:(i+1)*half])
		aes.SliceKeys(sched, rk)
	}
	secret.Wipe(rk)
	return g, nil
}

func (g *generic) wipe() {
	g.mem.Wipe()
	g.data, g.tweak = nil, nil
}

// Hot: no allocation.
func (g *generic) crypt(dst, src []byte, units int, dun [2]uint64, decrypt bool) {
	var q aes.State
	var buf, tw [aes.StateSize]byte
	for ; units > 0; units-- {
		clear(buf[:])
		binary.LittleEndian.PutUint64(buf[0:], dun[0])
		binary.LittleEndian.PutUint64(buf[8:], dun[1])
		q.Slice(&buf)
		q.Encrypt(g.tweak)
		q.Unslice(&buf)
		lo := binary.LittleEndian.Uint64(buf[0:])
		hi := binary.LittleEndian.Uint64(buf[8:])

		for off := 0; off < g.unit; off += aes.StateSize {
			n := min(aes.StateSize, g.unit-off)
			for i := 0; i < n; i += blockLen {
				binary.LittleEndian.PutUint64(tw[i:], lo)
				binary.LittleEndian.PutUint64(tw[i+8:], hi)
				lo, hi = lo<<1^hi>>63*0x87, hi<<1|lo>>63
			}
			xor(buf[:n], src[off:], tw[:n])
			q.Slice(&buf)
			if decrypt {
				q.Decrypt(g.data)
			} else {
				q.Encrypt(g.data)
			}
			q.Unslice(&buf)
			xor(dst[off:off+n], buf[:], tw[:])
		}
		src, dst = src[g.unit:], dst[g.unit:]
		dun = dataunit.Add128(dun, 1)
	}
	secret.Wipe(buf[:])
	secret.Wipe(tw[:])
	q.Wipe()
}

// xor sets dst to a ^ b; len(dst) is a multiple of 8.
func xor(dst, a, b []byte) {
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:],
			binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))
	}
}
