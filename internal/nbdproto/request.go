package nbdproto

import "encoding/binary"

// Sizes of request headers, in bytes.
const (
	RequestSize    = 28
	ExtRequestSize = 32
)

// A Request is the header of a command.
type Request struct {
	Flags, Type    uint16
	Cookie, Offset uint64
	Length         uint64 // of the payload if HasPayload, else of the range
}

// HasPayload reports whether Length bytes follow the header. extended says
// which headers are in use: in compact ones only a write has a payload, in
// extended ones a flag says so.
func (r *Request) HasPayload(extended bool) bool {
	if extended {
		return r.Flags&CmdFlagPayloadLen != 0
	}
	return r.Type == CmdWrite
}

// ParseRequest decodes a compact header from the first RequestSize bytes of
// b. It reports false if the magic is wrong: the stream is then lost.
func ParseRequest(b []byte) (r Request, ok bool) {
	_ = b[RequestSize-1]
	if binary.BigEndian.Uint32(b) != RequestMagic {
		return r, false
	}
	r.Flags = binary.BigEndian.Uint16(b[4:])
	r.Type = binary.BigEndian.Uint16(b[6:])
	r.Cookie = binary.BigEndian.Uint64(b[8:])
	r.Offset = binary.BigEndian.Uint64(b[16:])
	r.Length = uint64(binary.BigEndian.Uint32(b[24:]))
	return r, true
}

// ParseExtRequest decodes an extended header from the first ExtRequestSize
// bytes of b, as ParseRequest does a compact one.
func ParseExtRequest(b []byte) (r Request, ok bool) {
	_ = b[ExtRequestSize-1]
	if binary.BigEndian.Uint32(b) != ExtRequestMagic {
		return r, false
	}
	r.Flags = binary.BigEndian.Uint16(b[4:])
	r.Type = binary.BigEndian.Uint16(b[6:])
	r.Cookie = binary.BigEndian.Uint64(b[8:])
	r.Offset = binary.BigEndian.Uint64(b[16:])
	r.Length = binary.BigEndian.Uint64(b[24:])
	return r, true
}

// Append appends the header in compact form; Length must fit 32 bits.
func (r *Request) Append(b []byte) []byte {
	b = r.appendCommon(b, RequestMagic)
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// AppendExt appends the header in extended form.
func (r *Request) AppendExt(b []byte) []byte {
	b = r.appendCommon(b, ExtRequestMagic)
	return binary.BigEndian.AppendUint64(b, r.Length)
}

func (r *Request) appendCommon(b []byte, magic uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, r.Type)
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	return binary.BigEndian.AppendUint64(b, r.Offset)
}
