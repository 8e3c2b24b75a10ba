package nbdproto

import "encoding/binary"

// Sizes of reply headers, in bytes.
const (
	SimpleSize   = 16
	ChunkSize    = 20
	ExtReplySize = 32

	// MaxChunkHead is the longest header that AppendData, AppendHole and
	// AppendDone make: an extended one and 12 bytes of payload.
	MaxChunkHead = ExtReplySize + 12
)

// A Style is which headers a connection uses for replies.
type Style uint8

const (
	Simple     Style = iota // compact requests, simple replies only
	Structured              // compact requests, structured replies where they have a payload
	Extended                // extended headers both ways
)

func (s Style) String() string { return [...]string{"simple", "structured", "extended"}[s] }

// AppendSimple appends a simple reply header; the data of a successful read
// follows it.
func AppendSimple(b []byte, e Errno, cookie uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, SimpleMagic)
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	return binary.BigEndian.AppendUint64(b, cookie)
}

// appendChunk appends the header of a chunk with n bytes of payload. off is
// the offset of the request, which extended headers repeat.
func (s Style) appendChunk(b []byte, flags, typ uint16, cookie, off uint64, n int) []byte {
	magic := ChunkMagic
	if s == Extended {
		magic = ExtReplyMagic
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint64(b, cookie)
	if s == Extended {
		b = binary.BigEndian.AppendUint64(b, off)
		return binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// AppendDone appends the whole reply to a request that succeeded and has no
// data.
//
// Hot: no allocation if b has room for MaxChunkHead bytes.
func (s Style) AppendDone(b []byte, r *Request) []byte {
	if s == Extended {
		return s.appendChunk(b, ReplyFlagDone, ReplyNone, r.Cookie, r.Offset, 0)
	}
	return AppendSimple(b, OK, r.Cookie)
}

// AppendNone is AppendDone for a read of no bytes, whose reply is structured
// where that was negotiated.
func (s Style) AppendNone(b []byte, r *Request) []byte {
	if s == Simple {
		return AppendSimple(b, OK, r.Cookie)
	}
	return s.appendChunk(b, ReplyFlagDone, ReplyNone, r.Cookie, r.Offset, 0)
}

// AppendData appends the header of n bytes of read data that begin at off of
// the export; the caller sends the data behind it. last ends the reply. With
// simple replies there can be only one, of the whole request.
//
// Hot: no allocation if b has room for MaxChunkHead bytes.
func (s Style) AppendData(b []byte, r *Request, off uint64, n int, last bool) []byte {
	if s == Simple {
		return AppendSimple(b, OK, r.Cookie)
	}
	b = s.appendChunk(b, doneFlag(last), ReplyOffsetData, r.Cookie, r.Offset, 8+n)
	return binary.BigEndian.AppendUint64(b, off)
}

// AppendHole appends a chunk that says that n bytes from off on read as
// zeroes. Not for simple replies.
func (s Style) AppendHole(b []byte, r *Request, off uint64, n uint32, last bool) []byte {
	b = s.appendChunk(b, doneFlag(last), ReplyOffsetHole, r.Cookie, r.Offset, 12)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, n)
}

// AppendError appends the reply that ends r with e. msg, for people, goes out
// where the style has a place for it, cut to MaxMessage bytes.
func (s Style) AppendError(b []byte, r *Request, e Errno, msg string) []byte {
	// A client that negotiated structured replies may still get simple ones,
	// except for a read; a message needs a chunk.
	if s == Simple {
		return AppendSimple(b, e, r.Cookie)
	}
	if len(msg) > MaxMessage {
		msg = msg[:MaxMessage]
	}
	b = s.appendChunk(b, ReplyFlagDone, ReplyError, r.Cookie, r.Offset, 6+len(msg))
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	b = binary.BigEndian.AppendUint16(b, uint16(len(msg)))
	return append(b, msg...)
}

// AppendErrorOffset appends the reply that ends r with e, which struck off
// bytes from the start of the export.
func (s Style) AppendErrorOffset(b []byte, r *Request, e Errno, off uint64, msg string) []byte {
	if s == Simple {
		return AppendSimple(b, e, r.Cookie)
	}
	if len(msg) > MaxMessage {
		msg = msg[:MaxMessage]
	}
	b = s.appendChunk(b, ReplyFlagDone, ReplyErrorOffset, r.Cookie, r.Offset, 14+len(msg))
	b = binary.BigEndian.AppendUint32(b, uint32(e))
	b = binary.BigEndian.AppendUint16(b, uint16(len(msg)))
	b = append(b, msg...)
	return binary.BigEndian.AppendUint64(b, off)
}

// A StatusExtent is a run of bytes in a block status reply.
type StatusExtent struct {
	Len   uint64
	Flags uint32
}

// MaxCompactExtent is the longest extent of a compact block status reply: the
// largest 32-bit length that is a multiple of the largest block size, 64 KiB.
const MaxCompactExtent = 1<<32 - 64<<10

// AppendStatus appends the whole reply to a block status request about
// base:allocation. Extents of a compact reply are at most MaxCompactExtent
// long. Not for simple replies.
func (s Style) AppendStatus(b []byte, r *Request, ext []StatusExtent) []byte {
	if s == Extended {
		b = s.appendChunk(b, ReplyFlagDone, ReplyBlockStatusExt, r.Cookie, r.Offset, 8+16*len(ext))
		b = binary.BigEndian.AppendUint32(b, AllocationID)
		b = binary.BigEndian.AppendUint32(b, uint32(len(ext)))
		for _, e := range ext {
			b = binary.BigEndian.AppendUint64(b, e.Len)
			b = binary.BigEndian.AppendUint64(b, uint64(e.Flags))
		}
		return b
	}
	b = s.appendChunk(b, ReplyFlagDone, ReplyBlockStatus, r.Cookie, r.Offset, 4+8*len(ext))
	b = binary.BigEndian.AppendUint32(b, AllocationID)
	for _, e := range ext {
		b = binary.BigEndian.AppendUint32(b, uint32(e.Len))
		b = binary.BigEndian.AppendUint32(b, e.Flags)
	}
	return b
}

func doneFlag(last bool) uint16 {
	if last {
		return ReplyFlagDone
	}
	return 0
}
