package memory

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
)

const (
	chunk = 8  // bytes of a needle: eight random ones turn up by chance in no memory
	digit = 16 // of one in digits, which hold fewer bits: it has a tail
)

// A Set is what a scan looks for. The zero value is empty.
type Set struct {
	needles []needle
	first   map[uint64]int32 // by their first eight bytes
	filter  []uint64         // a bit for the hash of each of those
	shift   uint             // of the hash
}

// A needle is eight bytes of a secret, or sixteen digits.
type needle struct {
	secret string // which
	form   string // how it was written, "" for as it is
	at     int    // where in the secret
	tail   string // behind the first eight bytes
	next   int32  // another with the same first eight bytes, -1: none
}

// Len is the number of needles.
func (s *Set) Len() int { return len(s.needles) }

// Add adds a secret of at least eight bytes by its name: the bytes as they are, and
// with those of each word in the other order, as ciphers keep them that read words in
// the order of a standard and not of the machine.
func (s *Set) Add(name string, b []byte) {
	if len(b) < chunk {
		panic(fmt.Sprintf("memory: %s has %d bytes, too few to be looked for", name, len(b)))
	}
	s.add(name, "", b)
	for _, word := range []int{4, 8} {
		whole := slices.Clone(b[:len(b)/word*word])
		for w := range slices.Chunk(whole, word) {
			slices.Reverse(w)
		}
		s.add(name, fmt.Sprintf("words of %d bytes reversed", word), whole)
	}
}

// AddBytes adds a secret as it is, and in no other form: for those of which there
// are many.
func (s *Set) AddBytes(name string, b []byte) { s.add(name, "", b) }

// AddText adds a secret as programs print it: in hex digits and in base64.
func (s *Set) AddText(name string, b []byte) {
	low := hex.EncodeToString(b)
	s.digits(name, "hex", low)
	s.digits(name, "hex", fmt.Sprintf("%X", b))
	for skip := range min(3, len(b)) { // how the groups of three fall
		s.digits(name, "base64", base64.StdEncoding.EncodeToString(b[skip:len(b)-(len(b)-skip)%3]))
	}
}

func (s *Set) digits(name, form, text string) {
	for at := 0; at+digit <= len(text); at += chunk {
		s.put([]byte(text[at:at+chunk]), needle{secret: name, form: form, at: at, tail: text[at+chunk : at+digit]})
	}
}

func (s *Set) add(name, form string, b []byte) {
	for at := 0; at+chunk <= len(b); at += chunk {
		s.put(b[at:], needle{secret: name, form: form, at: at})
	}
	if rest := len(b) % chunk; rest > 0 && len(b) >= chunk {
		s.put(b[len(b)-chunk:], needle{secret: name, form: form, at: len(b) - chunk})
	}
}

func (s *Set) put(b []byte, n needle) {
	if n.tail == "" && plain(b[:chunk]) {
		return
	}
	v := binary.LittleEndian.Uint64(b)
	if s.first == nil {
		s.first = map[uint64]int32{}
	}
	var taken bool
	if n.next, taken = s.first[v]; !taken {
		n.next = -1
	}
	for i := n.next; i >= 0; i = s.needles[i].next {
		if s.needles[i].tail == n.tail {
			return // the first round keys are the key: one name is enough
		}
	}
	s.first[v] = int32(len(s.needles))
	s.needles = append(s.needles, n)
	s.filter = nil
}

// has reports whether eight bytes are a needle.
func (s *Set) has(b []byte) bool {
	_, ok := s.first[binary.LittleEndian.Uint64(b)]
	return ok
}

// plain reports whether b has so few values in it that other memory may well hold it.
func plain(b []byte) bool {
	var seen [4]uint64
	n := 0
	for _, c := range b {
		if seen[c>>6]&(1<<(c&63)) == 0 {
			n++
		}
		seen[c>>6] |= 1 << (c & 63)
	}
	if string(b[:4]) == string(b[4:]) {
		return n < 4 // a word of a round key, broadcast, has no more
	}
	return n < 5
}

const golden = 0x9e3779b97f4a7c15

func (s *Set) prepare() {
	if s.filter != nil {
		return
	}
	n := max(10, bits.Len(uint(len(s.needles)))+6) // one bit of 64 is set, or fewer
	s.shift = 64 - uint(n)
	s.filter = make([]uint64, 1<<n/64)
	for v := range s.first {
		h := v * golden >> s.shift
		s.filter[h/64] |= 1 << (h % 64)
	}
}

// overlap is how many bytes two pieces of one run must share, so that scan of both
// sees all.
const overlap = digit - 1

// scan calls found for each needle in b, with its place. It looks at places from 0
// up to len(b)-8; digits that go on behind b are not found.
func (s *Set) scan(b []byte, found func(at int, n *needle)) {
	if len(b) < chunk || len(s.needles) == 0 {
		return
	}
	s.prepare()
	filter, shift := s.filter, s.shift
	v := binary.LittleEndian.Uint64(b) << 8
	for i, c := range b[chunk-1:] {
		v = v>>8 | uint64(c)<<56
		h := v * golden >> shift
		if filter[h/64]>>(h%64)&1 == 0 {
			continue
		}
		k, ok := s.first[v]
		if !ok {
			continue
		}
		for ; k >= 0; k = s.needles[k].next {
			if n := &s.needles[k]; len(b) >= i+chunk+len(n.tail) && string(b[i+chunk:][:len(n.tail)]) == n.tail {
				found(i, n)
			}
		}
	}
}
