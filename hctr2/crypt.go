package hctr2

import (
	"encoding/binary"
	"unsafe"

	"keyway/internal/aes"
	"keyway/internal/arena"
	"keyway/internal/dataunit"
)

const (
	maxBatch = 16       // data units whose first blocks pass AES together
	maxText  = 32 << 10 // their bytes, unless one is longer
	maxCall  = 64 << 10 // bytes in a call of the assembly, which cannot be preempted: some 20 µs
)

// work is the memory of a call, before the private copy of the data units.
type work struct {
	header [blockLen + TweakSize]byte // what is hashed before the text
	heads  [maxBatch]element          // its hash
	sums   [maxBatch]element          // and that of the text behind it
	first  [maxBatch][blockLen]byte   // the first block, before AES
	middle [maxBatch][blockLen]byte   // and after it
	start  element                    // of the stream
	last   [blockLen]byte             // a block that is not whole, filled up
	blocks [aes.WideSize]byte         // of the stream, in portable Go
}

const workSize = int(unsafe.Sizeof(work{}))

// crypt passes batches of data units through the steps of the paper's figure 1. With
// T the number, M the first block and N the rest, on encryption
//
//	M' = M + H(T, N)
//	U' = AES(M')
//	V  = N xor the stream that starts with M' + U' + L
//	U  = U' + H(T, V)
//
// and on decryption the same with AES inverted.
//
// Hot: no allocation.
func (c *Cipher) crypt(dst, src []byte, units int, dun [4]uint64, step uint64, decrypt bool) {
	most := min(units, c.batch)
	buf := arena.Get(workSize + most*c.unit)
	b := buf.Bytes()
	w, text := (*work)(unsafe.Pointer(&b[0])), b[workSize:]
	putLength(w, false)
	for units > 0 {
		n := min(units, c.batch)
		for u := range n {
			for i, limb := range dun {
				binary.LittleEndian.PutUint64(w.header[blockLen+8*i:], limb)
			}
			dun = dataunit.Plus256(dun, step)
			c.enter(w, u, text[u*c.unit:][:c.unit], src[u*c.unit:][:c.unit])
		}
		c.turn(w, n, decrypt)
		for u := range n {
			c.leave(w, u, dst[u*c.unit:][:c.unit], text[u*c.unit:][:c.unit])
		}
		size := n * c.unit
		dst, src, units = dst[size:], src[size:], units-n
	}
	w.wipe(most)
	buf.Put()
}

// text is crypt for one text of any length.
func (c *Cipher) text(dst, src []byte, tweak *[TweakSize]byte, decrypt bool) {
	n := len(src)
	if n < MinLen || n > MaxUnit {
		panic("hctr2: a text must have 16 bytes to 256 KiB")
	}
	if c.keys == nil {
		panic("hctr2: cipher used after Wipe")
	}
	dataunit.Check("hctr2", n, dst, src)
	buf := arena.Get(workSize + n)
	b := buf.Bytes()
	w, text := (*work)(unsafe.Pointer(&b[0])), b[workSize:][:n]
	putLength(w, n%blockLen != 0)
	copy(w.header[blockLen:], tweak[:])
	c.enter(w, 0, text, src)
	c.turn(w, 1, decrypt)
	c.leave(w, 0, dst[:n], text)
	w.wipe(1)
	buf.Put()
}

// putLength writes the first block of a hash: twice the length of the tweak in bits,
// plus 2, or plus 3 for a text that is no whole number of blocks.
func putLength(w *work, partial bool) {
	length := uint64(2*8*TweakSize + 2)
	if partial {
		length++
	}
	binary.LittleEndian.PutUint64(w.header[:], length)
	binary.LittleEndian.PutUint64(w.header[8:], 0)
}

// enter copies a data unit to text, reading it once, and sets its first block to M'.
func (c *Cipher) enter(w *work, u int, text, src []byte) {
	head, sum, first := &w.heads[u], &w.sums[u], &w.first[u]
	*head = element{}
	c.hash(head, w.header[:])
	*sum = *head
	copy(first[:], src)
	text, src = text[blockLen:], src[blockLen:]
	for len(src) >= blockLen {
		n := min(len(src)&^(blockLen-1), maxCall)
		c.hashIn(sum, text[:n], src[:n])
		text, src = text[n:], src[n:]
	}
	if len(src) > 0 {
		w.fill(src)
		copy(text, w.last[:len(src)])
		c.hash(sum, w.last[:])
	}
	add(first, sum)
}

// turn passes the first blocks of n data units through AES.
func (c *Cipher) turn(w *work, n int, decrypt bool) {
	first, middle := unsafe.Slice(&w.first[0][0], n*blockLen), unsafe.Slice(&w.middle[0][0], n*blockLen)
	if decrypt {
		c.block.Decrypt(middle, first)
	} else {
		c.block.Encrypt(middle, first)
	}
}

// leave writes a data unit whose first block has passed AES to dst, and erases text,
// which would be one more copy of it.
func (c *Cipher) leave(w *work, u int, dst, text []byte) {
	sum, whole := &w.sums[u], text
	*sum = w.heads[u]
	w.seed(u, &c.keys.stream)
	to, counter := dst[blockLen:], uint64(1)
	text = text[blockLen:]
	for len(text) >= blockLen {
		n := min(len(text)&^(blockLen-1), maxCall)
		c.stream(w, sum, to[:n], text[:n], counter)
		to, text, counter = to[n:], text[n:], counter+uint64(n/blockLen)
	}
	if n := len(text); n > 0 {
		w.counters(w.last[:], counter)
		c.block.Encrypt(w.last[:], w.last[:])
		xor(w.last[:n], text)
		copy(to, w.last[:n])
		w.fill(w.last[:n])
		c.hash(sum, w.last[:])
	}
	add(&w.middle[u], sum)
	copy(dst, w.middle[u][:])
	clear(whole)
}

// fill sets last to what stands for b, less than a block, in a hash.
func (w *work) fill(b []byte) {
	n := copy(w.last[:], b)
	w.last[n] = 1
	clear(w.last[n+1:])
}

// seed sets start to that of the stream of data unit u.
//
//go:norace
func (w *work) seed(u int, stream *element) {
	for i := range w.start {
		w.start[i] = binary.LittleEndian.Uint64(w.first[u][8*i:]) ^ binary.LittleEndian.Uint64(w.middle[u][8*i:]) ^ stream[i]
	}
}

// counters fills b, whole blocks, with start plus counter, counter+1, ...
//
//go:norace
func (w *work) counters(b []byte, counter uint64) {
	for ; len(b) > 0; b = b[blockLen:] {
		binary.LittleEndian.PutUint64(b, w.start[0]^counter)
		binary.LittleEndian.PutUint64(b[8:], w.start[1])
		counter++
	}
}

// add adds a hash to a block.
//
//go:norace
func add(b *[blockLen]byte, e *element) {
	binary.LittleEndian.PutUint64(b[:], binary.LittleEndian.Uint64(b[:])^e[0])
	binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^e[1])
}

// xor adds b to dst, which is as long.
//
//go:norace
func xor(dst, b []byte) {
	for i := range dst {
		dst[i] ^= b[i]
	}
}

// wipe erases what n data units left.
//
//go:noinline
func (w *work) wipe(n int) {
	clear(w.header[:])
	clear(w.heads[:n])
	clear(w.sums[:n])
	clear(w.first[:n])
	clear(w.middle[:n])
	w.start = element{}
	clear(w.last[:])
	clear(w.blocks[:])
}

// The steps in portable Go, which the hooks of each architecture end with.

// hashGeneric goes on with the hash sum over b, whole blocks.
func (c *Cipher) hashGeneric(sum *element, b []byte) { polyval(sum, c.keys.h(), b) }

// hashInGeneric copies src to text and goes on with the hash over it.
func (c *Cipher) hashInGeneric(sum *element, text, src []byte) {
	copy(text, src)
	polyval(sum, c.keys.h(), text)
}

// streamGeneric writes text xor the stream from block counter on to dst, and goes on
// with the hash sum over that.
func (c *Cipher) streamGeneric(w *work, sum *element, dst, text []byte, counter uint64) {
	for len(text) > 0 {
		n := min(len(text), len(w.blocks))
		b := w.blocks[:n]
		w.counters(b, counter)
		if c.wide != nil {
			c.encryptWide(&w.blocks)
		} else {
			c.block.Encrypt(b, b)
		}
		xor(b, text)
		copy(dst, b)
		polyval(sum, c.keys.h(), b)
		dst, text, counter = dst[n:], text[n:], counter+uint64(n/blockLen)
	}
}

func (c *Cipher) encryptWide(b *[aes.WideSize]byte) {
	var q aes.Wide
	q.Slice(b)
	q.Encrypt(c.wide)
	q.Unslice(b)
	q.Wipe()
}
