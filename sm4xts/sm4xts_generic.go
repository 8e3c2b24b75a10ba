package sm4xts

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/dataunit"
	"keyway/internal/secret"
)

// generic is the portable implementation: bitsliced SM4, sixteen blocks at once,
// across the borders of data units. Slow, but in constant time, with all round
// keys in locked memory, for every data unit size.
type generic struct {
	mem  *secret.Buffer
	keys *genericKeys // in mem
	unit int
}

type genericKeys struct {
	data, tweak    slicedKeys
	words, twWords schedule // wiped once sliced
}

func newGeneric(key []byte, unit int) (engine, error) {
	mem, err := secret.New(int(unsafe.Sizeof(genericKeys{})))
	if err != nil {
		return nil, err
	}
	k := (*genericKeys)(unsafe.Pointer(&mem.Bytes()[0]))
	expand(&k.words, &k.twWords, key)
	k.data.slice(&k.words)
	k.tweak.slice(&k.twWords)
	wipe(&k.words)
	wipe(&k.twWords)
	return &generic{mem, k, unit}, nil
}

func (g *generic) wipe() {
	g.mem.Wipe()
	g.keys = nil
}

// tweaks yields the tweaks of a run of data units, block by block.
type tweaks struct {
	keys    *slicedKeys
	dun     [2]uint64 // of the next number to be encrypted
	step    int       // to the one after
	units   int       // numbers not yet encrypted
	blocks  int       // in a data unit
	left    int       // in the present one
	lo, hi  uint64    // of the next block, unless left is 0
	started [slicedSize]byte
	at, end int // in started
	s       state
}

// fill writes the next tweaks to tw, up to a whole one for each block of it, and
// returns how many bytes.
//
// Hot: no allocation.
func (t *tweaks) fill(tw *[slicedSize]byte) int {
	for i := 0; i < len(tw); i += blockLen {
		if t.left == 0 {
			if t.at == t.end && !t.start() {
				return i
			}
			t.lo = binary.LittleEndian.Uint64(t.started[t.at:])
			t.hi = binary.LittleEndian.Uint64(t.started[t.at+8:])
			t.at += blockLen
			t.left = t.blocks
		}
		binary.LittleEndian.PutUint64(tw[i:], t.lo)
		binary.LittleEndian.PutUint64(tw[i+8:], t.hi)
		t.lo, t.hi = t.lo<<1^t.hi>>63*0x87, t.hi<<1|t.lo>>63
		t.left--
	}
	return len(tw)
}

// start encrypts the numbers of the next data units, up to sixteen.
func (t *tweaks) start() bool {
	n := min(t.units, lanes)
	if n == 0 {
		return false
	}
	for i := range n {
		binary.LittleEndian.PutUint64(t.started[blockLen*i:], t.dun[0])
		binary.LittleEndian.PutUint64(t.started[blockLen*i+8:], t.dun[1])
		t.dun = dataunit.Add128(t.dun, t.step)
	}
	t.s.slice(&t.started)
	t.s.encrypt(t.keys)
	t.s.unslice(&t.started)
	t.units -= n
	t.at, t.end = 0, n*blockLen
	return true
}

// Hot: no allocation.
func (g *generic) crypt(dst, src []byte, units int, dun [2]uint64, step uint64, decrypt bool) {
	t := tweaks{keys: &g.keys.tweak, dun: dun, step: int(step), units: units, blocks: g.unit / blockLen}
	var s state
	var buf, tw [slicedSize]byte
	for {
		n := t.fill(&tw)
		if n == 0 {
			break
		}
		xor(buf[:n], src, tw[:])
		s.slice(&buf)
		if decrypt {
			s.decrypt(&g.keys.data)
		} else {
			s.encrypt(&g.keys.data)
		}
		s.unslice(&buf)
		xor(dst[:n], buf[:], tw[:])
		src, dst = src[n:], dst[n:]
	}
	wipe(&buf)
	wipe(&tw)
	wipe(&s)
	wipe(&t)
}

// xor sets dst to a ^ b; len(dst) is a multiple of 8.
func xor(dst, a, b []byte) {
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:],
			binary.LittleEndian.Uint64(a[i:])^binary.LittleEndian.Uint64(b[i:]))
	}
}
