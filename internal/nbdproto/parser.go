package nbdproto

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// clip makes a client's bytes fit for a message.
func clip(b []byte) string {
	if len(b) > 64 {
		b = b[:64]
	}
	return strings.ToValidUTF8(string(b), "?")
}

func validName(b []byte) bool {
	return len(b) <= MaxString && utf8.Valid(b) && !strings.ContainsRune(string(b), 0)
}

// A parser takes an option's data apart; after any field that is not there,
// bad is set and everything reads as zero.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n uint32) []byte {
	if p.bad || uint64(n) > uint64(len(p.b)) {
		p.bad = true
		return nil
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string takes a length and that many bytes.
func (p *parser) string() []byte { return p.take(p.uint32()) }

// end reports whether everything was there and nothing is left.
func (p *parser) end() bool { return !p.bad && len(p.b) == 0 }
