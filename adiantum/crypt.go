package adiantum

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"keyway/internal/arena"
	"keyway/internal/dataunit"
)

const (
	maxBatch = 16       // data units that pass through together, one in each lane of a vector
	maxText  = 32 << 10 // their bytes, unless one is longer: eight of 4096 fill the lanes of 256 bits
)

// work is the memory of a call, before the private copy of the data units.
type work struct {
	middle [maxBatch][blockLen]byte // the right block after the first hash
	sums   [maxBatch][2]uint64      // hash of the left part
	header [maxBatch][2]uint64      // hash of length and number
	sub    [maxBatch][8]uint32      // key of the stream

	// The hash of length and number of the next data unit, before reduction, and what
	// it grows by: here, since what a function has on the stack stays there.
	next, step element
	_          [2]uint64 // the private copy is aligned
}

const workSize = int(unsafe.Sizeof(work{}))

// crypt passes batches of data units through the steps of the paper's figure 1.
// With T the number, L the left part of the unit (all but its last block) and R
// the last block, on encryption
//
//	M  = AES(R + H(T, L))
//	L' = L xor XChaCha(nonce M)
//	R' = M - H(T, L')
//
// and on decryption the same with AES inverted and after the stream.
//
// Hot: no allocation.
func (c *Cipher) crypt(dst, src []byte, units int, dun [4]uint64, step uint64, decrypt bool) {
	most := min(units, c.batch)
	buf := arena.Get(workSize + most*c.unit)
	b := buf.Bytes()
	w, text := (*work)(unsafe.Pointer(&b[0])), b[workSize:]
	w.begin(&c.keys.t, dun)
	w.advance(&c.keys.t, step)
	for units > 0 {
		n := untilCarry(dun, step, min(units, c.batch))
		size := n * c.unit
		w.headers(n)
		c.pass(w, text[:size], dst[:size], src[:size], n, decrypt)
		dst, src, units = dst[size:], src[size:], units-n
		dun = dataunit.Add256(dun, n*int(step))
		if dun[1] == 0 && dun[0] < step { // it did
			w.begin(&c.keys.t, dun)
		}
	}
	w.wipe(most, lanes(c.im))
	buf.Put()
}

// begin sets next for the number dun, advance sets step. The race detector's calls
// would put the values on the stack, where they would stay.
//
//go:norace
func (w *work) begin(k *headerKey, dun [4]uint64) { w.next = k.value(dun) }

//go:norace
func (w *work) advance(k *headerKey, step uint64) { w.step = k.square.scaled(step) }

// untilCarry returns n, or fewer, if the low half of the number would overflow
// among n data units.
func untilCarry(dun [4]uint64, step uint64, n int) int {
	if left := -dun[0]; dun[1] == math.MaxUint64 && left != 0 && left < uint64(n)*step {
		return int((left + step - 1) / step)
	}
	return n
}

func (c *Cipher) pass(w *work, text, dst, src []byte, n int, decrypt bool) {
	c.hashIn(w, text, src, n)
	w.enter(text, n, c.unit)
	middle := unsafe.Slice(&w.middle[0][0], n*blockLen)
	if !decrypt {
		c.block.Encrypt(middle, middle)
	}
	c.subkeys(w, n)
	if decrypt {
		c.block.Decrypt(middle, middle)
	}
	c.stream(w, dst, text, n)
	c.hashOut(w, text, n)
	w.exit(dst, n, c.unit)
}

// headers sets the hashes of length and number for n data units, whose differences
// are maxStep squares at most.
func (w *work) headers(n int) {
	for u := range w.header[:n] {
		w.header[u][0], w.header[u][1] = w.next.low()
		w.next = w.next.plus(w.step)
	}
	w.next = w.next.fold()
}

// enter sets M to the right block plus the hash.
func (w *work) enter(text []byte, n, unit int) {
	for u := range w.middle[:n] {
		right := text[(u+1)*unit-blockLen:][:blockLen]
		lo, hi := w.hash(u)
		lo, carry := bits.Add64(lo, binary.LittleEndian.Uint64(right), 0)
		hi, _ = bits.Add64(hi, binary.LittleEndian.Uint64(right[8:]), carry)
		binary.LittleEndian.PutUint64(w.middle[u][:], lo)
		binary.LittleEndian.PutUint64(w.middle[u][8:], hi)
	}
}

// exit sets the right block to M minus the hash.
func (w *work) exit(dst []byte, n, unit int) {
	for u := range w.middle[:n] {
		right := dst[(u+1)*unit-blockLen:][:blockLen]
		lo, hi := w.hash(u)
		lo, borrow := bits.Sub64(binary.LittleEndian.Uint64(w.middle[u][:]), lo, 0)
		hi, _ = bits.Sub64(binary.LittleEndian.Uint64(w.middle[u][8:]), hi, borrow)
		binary.LittleEndian.PutUint64(right, lo)
		binary.LittleEndian.PutUint64(right[8:], hi)
	}
}

// hash is H(T, L) of data unit u of the batch.
func (w *work) hash(u int) (lo, hi uint64) {
	lo, carry := bits.Add64(w.sums[u][0], w.header[u][0], 0)
	return lo, w.sums[u][1] + w.header[u][1] + carry
}

// wipe erases what n data units left. Vectors make keys for all lanes, of whatever
// lies there.
//
//go:noinline
func (w *work) wipe(n, lanes int) {
	clear(w.middle[:n])
	clear(w.sums[:n])
	clear(w.header[:n])
	clear(w.sub[:max(n, lanes)])
	w.next, w.step = element{}, element{}
}

// The steps in portable Go, which the hooks of each architecture end with.

// hashInGeneric copies src to text and hashes the left part of each data unit.
func (c *Cipher) hashInGeneric(w *work, text, src []byte, n int) {
	copy(text, src)
	c.sumGeneric(w, text, n)
}

// hashOutGeneric hashes the left part of each data unit of text and erases text.
func (c *Cipher) hashOutGeneric(w *work, text []byte, n int) {
	c.sumGeneric(w, text, n)
	clear(text)
}

func (c *Cipher) sumGeneric(w *work, text []byte, n int) {
	for u := range n {
		w.sums[u][0], w.sums[u][1] = c.keys.nhPoly1305(text[u*c.unit:][:c.unit-blockLen])
	}
}

// subkeysGeneric makes the key of the stream of each data unit.
func (c *Cipher) subkeysGeneric(w *work, n int) {
	for u := range n {
		hchacha(&w.sub[u], &c.keys.stream, &w.middle[u], c.rounds)
	}
}

// streamGeneric writes the left part of each data unit of text, xor its stream, to
// text and dst.
func (c *Cipher) streamGeneric(w *work, dst, text []byte, n int) {
	for u := range n {
		left := text[u*c.unit:][:c.unit-blockLen]
		to := dst[u*c.unit:]
		for i := 0; i < len(left); i += chachaBlock {
			b := left[i:min(i+chachaBlock, len(left))]
			// The 24 bytes of a nonce are M, a one and seven zeroes.
			chachaXOR(b, b, &w.sub[u], uint32(i/chachaBlock), 1, c.rounds)
			copy(to[i:], b)
		}
	}
}
