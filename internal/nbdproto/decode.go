package nbdproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A ReplyHead is the header of a simple reply or of a chunk.
type ReplyHead struct {
	Simple         bool
	Errno          Errno  // simple
	Flags, Type    uint16 // chunk
	Cookie, Offset uint64 // Offset: extended headers only
	Length         uint64 // of the payload; 0 for a simple reply, whose data only the request tells
}

// Done reports whether the reply ends here.
func (h *ReplyHead) Done() bool { return h.Simple || h.Flags&ReplyFlagDone != 0 }

// ParseReply decodes the header at the start of b and returns its size, or 0
// if b is too short for it. An error means that the stream is lost.
func ParseReply(b []byte, s Style) (h ReplyHead, size int, err error) {
	if len(b) < 4 {
		return h, 0, nil
	}
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == SimpleMagic && s != Extended:
		if len(b) < SimpleSize {
			return h, 0, nil
		}
		h.Simple = true
		h.Errno = Errno(binary.BigEndian.Uint32(b[4:]))
		h.Cookie = binary.BigEndian.Uint64(b[8:])
		return h, SimpleSize, nil
	case magic == ChunkMagic && s == Structured:
		if len(b) < ChunkSize {
			return h, 0, nil
		}
		h.Length = uint64(binary.BigEndian.Uint32(b[16:]))
		size = ChunkSize
	case magic == ExtReplyMagic && s == Extended:
		if len(b) < ExtReplySize {
			return h, 0, nil
		}
		h.Offset = binary.BigEndian.Uint64(b[16:])
		h.Length = binary.BigEndian.Uint64(b[24:])
		size = ExtReplySize
	default:
		return h, 0, fmt.Errorf("nbd: no reply begins with %#08x where %v replies are in use", magic, s)
	}
	h.Flags = binary.BigEndian.Uint16(b[4:])
	h.Type = binary.BigEndian.Uint16(b[6:])
	h.Cookie = binary.BigEndian.Uint64(b[8:])
	return h, size, nil
}

// A Chunk is the payload of a chunk, taken apart. The fields that its type
// does not have are zero.
type Chunk struct {
	Offset  uint64
	Data    []byte // OFFSET_DATA; part of the payload
	Hole    uint64 // OFFSET_HOLE: bytes
	Context uint32 // block status
	Extents []StatusExtent
	Errno   Errno
	Message string
}

var errChunk = errors.New("nbd: malformed reply chunk")

// Chunk takes the payload of h apart; len(p) is h.Length. An error type that
// is not known is an error all the same; any other unknown type means that
// the stream is lost.
func (h *ReplyHead) Chunk(p []byte) (c Chunk, err error) {
	if uint64(len(p)) != h.Length {
		return c, errChunk
	}
	switch t := h.Type; {
	case t == ReplyNone:
		if len(p) != 0 || !h.Done() {
			return c, errChunk
		}
	case t == ReplyOffsetData:
		if len(p) < 9 {
			return c, errChunk
		}
		c.Offset, c.Data = binary.BigEndian.Uint64(p), p[8:]
	case t == ReplyOffsetHole:
		if len(p) != 12 {
			return c, errChunk
		}
		c.Offset, c.Hole = binary.BigEndian.Uint64(p), uint64(binary.BigEndian.Uint32(p[8:]))
		if c.Hole == 0 {
			return c, errChunk
		}
	case t == ReplyBlockStatus:
		if len(p) < 12 || (len(p)-4)%8 != 0 {
			return c, errChunk
		}
		c.Context = binary.BigEndian.Uint32(p)
		for p = p[4:]; len(p) > 0; p = p[8:] {
			e := StatusExtent{uint64(binary.BigEndian.Uint32(p)), binary.BigEndian.Uint32(p[4:])}
			if e.Len == 0 {
				return c, errChunk
			}
			c.Extents = append(c.Extents, e)
		}
	case t == ReplyBlockStatusExt:
		if len(p) < 24 || (len(p)-8)%16 != 0 {
			return c, errChunk
		}
		c.Context = binary.BigEndian.Uint32(p)
		n := uint64(binary.BigEndian.Uint32(p[4:]))
		if p = p[8:]; n != 0 && n != uint64(len(p)/16) {
			return c, errChunk
		}
		for ; len(p) > 0; p = p[16:] {
			flags := binary.BigEndian.Uint64(p[8:])
			e := StatusExtent{binary.BigEndian.Uint64(p), uint32(flags)}
			if e.Len == 0 || flags > math.MaxUint32 { // base:allocation has two flags
				return c, errChunk
			}
			c.Extents = append(c.Extents, e)
		}
	case t&ReplyIsError != 0:
		if len(p) < 6 {
			return c, errChunk
		}
		c.Errno = Errno(binary.BigEndian.Uint32(p))
		n := int(binary.BigEndian.Uint16(p[4:]))
		if c.Errno == OK || n > MaxString || n > len(p)-6 {
			return c, errChunk
		}
		c.Message = string(p[6 : 6+n])
		if p = p[6+n:]; t == ReplyErrorOffset {
			if len(p) < 8 {
				return c, errChunk
			}
			c.Offset = binary.BigEndian.Uint64(p)
		}
	default:
		return c, errChunk
	}
	return c, nil
}
