package xts

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"keyway/internal/secret"
)

// generic is the portable implementation: bitsliced AES, four blocks at once.
// Slow (about 50 MB/s, vaes 10 GB/s) but in constant time, with all round keys in
// locked memory, for every data unit size.
type generic struct {
	mem         *secret.Buffer
	data, tweak []state // bitsliced round keys, in mem
	unit        int
}

func newGeneric(key []byte, unit int) (engine, error) {
	half := len(key) / 2
	n := rounds(half) + 1
	const size = int(unsafe.Sizeof(state{}))
	mem, err := secret.New(2*n*size + n*blockLen)
	if err != nil {
		return nil, err
	}
	b := mem.Bytes()
	rk := b[2*n*size:]
	g := &generic{
		mem:   mem,
		data:  unsafe.Slice((*state)(unsafe.Pointer(&b[0])), n),
		tweak: unsafe.Slice((*state)(unsafe.Pointer(&b[n*size])), n),
		unit:  unit,
	}
	for i, sched := range [][]state{g.data, g.tweak} {
		expandKey(rk, key[i*half:(i+1)*half])
		var four [stateBytes]byte
		for r := range sched {
			for k := range lanes {
				copy(four[blockLen*k:], rk[blockLen*r:][:blockLen])
			}
			sched[r].slice(&four)
		}
		secret.Wipe(four[:])
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
	var q state
	var buf, tw [stateBytes]byte
	for ; units > 0; units-- {
		clear(buf[:])
		binary.LittleEndian.PutUint64(buf[0:], dun[0])
		binary.LittleEndian.PutUint64(buf[8:], dun[1])
		q.slice(&buf)
		q.encrypt(g.tweak)
		q.unslice(&buf)
		lo := binary.LittleEndian.Uint64(buf[0:])
		hi := binary.LittleEndian.Uint64(buf[8:])

		for off := 0; off < g.unit; off += stateBytes {
			n := min(stateBytes, g.unit-off)
			for i := 0; i < n; i += blockLen {
				binary.LittleEndian.PutUint64(tw[i:], lo)
				binary.LittleEndian.PutUint64(tw[i+8:], hi)
				lo, hi = lo<<1^hi>>63*0x87, hi<<1|lo>>63
			}
			xor(buf[:n], src[off:], tw[:n])
			q.slice(&buf)
			if decrypt {
				q.decrypt(g.data)
			} else {
				q.encrypt(g.data)
			}
			q.unslice(&buf)
			xor(dst[off:off+n], buf[:], tw[:])
		}
		src, dst = src[g.unit:], dst[g.unit:]
		dun = next(dun)
	}
	secret.Wipe(buf[:])
	secret.Wipe(tw[:])
	q.wipe()
}

// xor sets dst to a ^ b; len(dst) is a multiple of 8.
func xor(dst, a, b []byte) {
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:],
			binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))
	}
}

func next(dun [2]uint64) [2]uint64 { return advance(dun, 1) }

// advance returns dun + n modulo 2^128.
func advance(dun [2]uint64, n int) [2]uint64 {
	lo, carry := bits.Add64(dun[0], uint64(n), 0)
	return [2]uint64{lo, dun[1] + carry}
}
