package nbdproto

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// TLSMode says what a server makes of TLS.
type TLSMode uint8

const (
	TLSOff     TLSMode = iota // refused
	TLSAllow                  // if the client wants it
	TLSRequire                // before anything else
)

// An Export is what negotiation tells about one.
type Export struct {
	Name        string // canonical
	Description string
	Size        uint64 // bytes
	Flags       uint16 // transmission flags, without SendDF

	// Block sizes in bytes, as NBD_INFO_BLOCK_SIZE has them.
	MinBlock, PreferredBlock, MaxBlock uint32

	Ref any // the caller's own, handed back in Result
}

// Exports is where the handshake finds them.
type Exports interface {
	// Find returns the export that name stands for ("" is the default one)
	// and 0, or the RepErr value that tells why not.
	Find(name string) (Export, uint32)

	// List returns names and descriptions of all.
	List() []Export
}

// An Action is what the caller must do after a step, once it has sent the
// bytes that came with it.
type Action uint8

const (
	More     Action = iota // read more and call Step again
	StartTLS               // do the TLS handshake, then call TLSDone
	Transmit               // go on to transmission, with Result
	Close                  // close the connection
)

// A Result is what was agreed on.
type Result struct {
	Export     Export
	Style      Style
	Allocation bool // base:allocation was selected
	BlockSizes bool // the client asked for the block sizes: it keeps to them
}

// A Handshake is the server's side of the negotiation on one connection:
// fixed newstyle, every option of the protocol document. It keeps no more than
// one option of input.
type Handshake struct {
	exports Exports
	mode    TLSMode

	buf      []byte // input that is not yet a whole message
	skip     int    // bytes of an option's data still to be thrown away
	skipOpt  uint32 // that option
	started  bool   // client flags have been read
	noZeroes bool
	tls      bool // TLS is up
	options  int
	shutdown bool

	style   Style
	metaFor string // canonical name that the context was selected for
	meta    bool
	result  Result
	out     []byte
}

// NewHandshake returns a handshake that has not begun. secure says that the
// connection is under TLS already.
func NewHandshake(e Exports, mode TLSMode, secure bool) *Handshake {
	return &Handshake{exports: e, mode: mode, tls: secure}
}

// Greeting is what the server sends first.
func (h *Handshake) Greeting() []byte {
	b := binary.BigEndian.AppendUint64(nil, InitMagic)
	b = binary.BigEndian.AppendUint64(b, OptionMagic)
	return binary.BigEndian.AppendUint16(b, FlagFixedNewstyle|FlagNoZeroes)
}

// Shutdown makes every later option but ABORT fail with RepErrShutdown.
func (h *Handshake) Shutdown() { h.shutdown = true }

// Result returns what was agreed on, after Transmit.
func (h *Handshake) Result() Result { return h.result }

// TLSDone tells that TLS is up; everything negotiated before is forgotten, as
// the protocol wants.
func (h *Handshake) TLSDone() {
	h.tls = true
	h.style, h.meta, h.metaFor = Simple, false, ""
}

// errors that end a connection without a reply: the client broke a rule that
// leaves no place for one.
var (
	errFlags   = errors.New("nbd: client flags that were not offered")
	errMagic   = errors.New("nbd: an option does not begin with its magic number")
	errHuge    = fmt.Errorf("nbd: an option announces more than %d bytes of data", MaxSkip)
	errMany    = fmt.Errorf("nbd: more than %d options", MaxOptions)
	errInject  = errors.New("nbd: bytes follow STARTTLS before TLS is up")
	errOldName = errors.New("nbd: EXPORT_NAME where it cannot be answered")
)

const optionHead = 16

// Step takes the next input, in pieces of any size, and returns what to send
// and what to do then. used is how much of in belongs to the handshake: less
// than len(in) only with Transmit, when the rest is the first requests. out is
// valid until the next call. err, which comes with Close, says what the client
// did wrong.
func (h *Handshake) Step(in []byte) (used int, out []byte, act Action, err error) {
	h.out = h.out[:0]
	for {
		if h.skip > 0 {
			n := min(h.skip, len(in)-used)
			used += n
			if h.skip -= n; h.skip > 0 {
				return used, h.out, More, nil
			}
			h.fail(h.skipOpt, RepErrTooBig, "the option's data is too long")
		}
		want := h.want()
		if n := min(want-len(h.buf), len(in)-used); n > 0 {
			h.buf = append(h.buf, in[used:used+n]...)
			used += n
		}
		if len(h.buf) < want {
			return used, h.out, More, nil
		}
		act, err = h.message()
		switch {
		case err != nil:
			return used, h.out, Close, err
		case act == StartTLS && used < len(in):
			// Plain text must never be taken for what came under TLS.
			return used, nil, Close, errInject
		case act != More:
			return used, h.out, act, nil
		}
	}
}

// want is the length that buf must have for the next look at it.
func (h *Handshake) want() int {
	switch {
	case !h.started:
		return 4
	case len(h.buf) < optionHead:
		return optionHead
	}
	return optionHead + int(binary.BigEndian.Uint32(h.buf[12:]))
}

// message handles buf, which is as long as want says: the client flags, an
// option's header, or a whole option.
func (h *Handshake) message() (Action, error) {
	if !h.started {
		f := binary.BigEndian.Uint32(h.buf)
		if f&^(ClientFixedNewstyle|ClientNoZeroes) != 0 {
			return Close, errFlags
		}
		h.started, h.noZeroes, h.buf = true, f&ClientNoZeroes != 0, h.buf[:0]
		return More, nil
	}
	opt, n := binary.BigEndian.Uint32(h.buf[8:]), int(binary.BigEndian.Uint32(h.buf[12:]))
	if len(h.buf) == optionHead {
		if binary.BigEndian.Uint64(h.buf) != OptionMagic {
			return Close, errMagic
		}
		if h.options++; h.options > MaxOptions {
			return Close, errMany
		}
		switch {
		case n > MaxSkip:
			return Close, errHuge
		case n > MaxOption && opt == OptExportName:
			return Close, errOldName
		case n > MaxOption:
			h.skip, h.skipOpt, h.buf = n, opt, h.buf[:0]
			return More, nil
		case n > 0:
			return More, nil // its data comes first
		}
	}
	data := h.buf[optionHead:]
	h.buf = h.buf[:0] // data stays valid: nothing is appended before the next turn
	return h.option(opt, data)
}

func (h *Handshake) option(opt uint32, data []byte) (Action, error) {
	if opt == OptAbort {
		h.reply(opt, RepAck, nil)
		return Close, nil
	}
	if opt == OptExportName {
		return h.exportName(data)
	}
	if h.shutdown {
		return h.fail(opt, RepErrShutdown, "the server is shutting down")
	}
	if h.mode == TLSRequire && !h.tls && opt != OptStartTLS {
		return h.fail(opt, RepErrTLSReqd, "this server requires TLS")
	}
	switch opt {
	case OptStartTLS, OptList, OptStructuredReply, OptExtendedHeaders:
		if len(data) != 0 {
			return h.fail(opt, RepErrInvalid, "the option takes no data")
		}
	}
	switch opt {
	case OptStartTLS:
		switch {
		case h.tls:
			return h.fail(opt, RepErrInvalid, "TLS is already in use")
		case h.mode == TLSOff:
			return h.fail(opt, RepErrPolicy, "TLS is not configured")
		}
		h.reply(opt, RepAck, nil)
		return StartTLS, nil
	case OptList:
		return h.list()
	case OptInfo, OptGo:
		return h.info(opt, data)
	case OptStructuredReply:
		switch h.style {
		case Extended:
			return h.fail(opt, RepErrExtHeaderReqd, "extended headers are already in use")
		case Structured:
			return h.fail(opt, RepErrInvalid, "structured replies are already in use")
		}
		h.style = Structured
		return h.reply(opt, RepAck, nil)
	case OptExtendedHeaders:
		if h.style == Extended {
			return h.fail(opt, RepErrInvalid, "extended headers are already in use")
		}
		h.style = Extended
		return h.reply(opt, RepAck, nil)
	case OptListMetaContext, OptSetMetaContext:
		return h.metaContext(opt, data)
	}
	return h.fail(opt, RepErrUnsup, "the option is not known here")
}

// exportName is the one way to transmission that has no error replies: where
// there is anything to refuse, the connection ends.
func (h *Handshake) exportName(data []byte) (Action, error) {
	if h.shutdown || h.mode == TLSRequire && !h.tls || len(data) > MaxString {
		return Close, errOldName
	}
	if h.style == Extended { // forbidden: its reply has no extended form
		return Close, errOldName
	}
	e, rep := h.exports.Find(string(data))
	if rep != 0 {
		return Close, fmt.Errorf("nbd: export %q: %s", clip(data), repText(rep))
	}
	h.agree(e, false)
	h.out = binary.BigEndian.AppendUint64(h.out, e.Size)
	h.out = binary.BigEndian.AppendUint16(h.out, h.result.Export.Flags)
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, 124)...)
	}
	return Transmit, nil
}

func (h *Handshake) list() (Action, error) {
	for _, e := range h.exports.List() {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		b = append(append(b, e.Name...), e.Description...)
		h.reply(OptList, RepServer, b)
	}
	return h.reply(OptList, RepAck, nil)
}

// info serves INFO and GO.
func (h *Handshake) info(opt uint32, data []byte) (Action, error) {
	p := parser{b: data}
	name := p.string()
	items := int(p.uint16())
	var asked uint32 // bit set of the items that are known
	for range items {
		if i := p.uint16(); i <= InfoBlockSize {
			asked |= 1 << i
		}
	}
	if !p.end() {
		return h.fail(opt, RepErrInvalid, "the option's data is malformed")
	}
	if !validName(name) {
		return h.fail(opt, RepErrInvalid, "the export name is too long or not UTF-8")
	}
	e, rep := h.exports.Find(string(name))
	if rep != 0 {
		return h.fail(opt, rep, "export \""+clip(name)+"\": "+repText(rep))
	}
	has := func(i uint16) bool { return asked&(1<<i) != 0 }
	flags := e.Flags
	if h.style != Simple {
		flags |= SendDF
	}
	b := binary.BigEndian.AppendUint16(nil, InfoExport)
	b = binary.BigEndian.AppendUint64(b, e.Size)
	h.reply(opt, RepInfo, binary.BigEndian.AppendUint16(b, flags))
	if has(InfoName) {
		h.reply(opt, RepInfo, append(binary.BigEndian.AppendUint16(nil, InfoName), e.Name...))
	}
	if has(InfoDescription) && e.Description != "" {
		h.reply(opt, RepInfo, append(binary.BigEndian.AppendUint16(nil, InfoDescription), e.Description...))
	}
	// The maximum holds for everyone, so everyone is told; who did not ask is
	// not bound by the minimum and is told 1.
	least := uint32(1)
	if has(InfoBlockSize) {
		least = e.MinBlock
	}
	b = binary.BigEndian.AppendUint16(nil, InfoBlockSize)
	b = binary.BigEndian.AppendUint32(b, least)
	b = binary.BigEndian.AppendUint32(b, e.PreferredBlock)
	h.reply(opt, RepInfo, binary.BigEndian.AppendUint32(b, e.MaxBlock))
	h.reply(opt, RepAck, nil)
	if opt == OptInfo {
		return More, nil
	}
	h.agree(e, has(InfoBlockSize))
	return Transmit, nil
}

// metaContext serves LIST_META_CONTEXT and SET_META_CONTEXT.
func (h *Handshake) metaContext(opt uint32, data []byte) (Action, error) {
	set := opt == OptSetMetaContext
	if set {
		h.meta, h.metaFor = false, "" // also if this one fails
	}
	if h.style == Simple {
		return h.fail(opt, RepErrInvalid, "structured replies must be negotiated first")
	}
	p := parser{b: data}
	name := p.string()
	queries := p.uint32()
	if queries > MaxQueries && !p.bad {
		return h.fail(opt, RepErrTooBig, "too many queries")
	}
	match := !set && queries == 0
	for range queries {
		q := p.string()
		switch {
		case len(q) > MaxString:
			return h.fail(opt, RepErrInvalid, "a query is too long")
		case string(q) == ContextAllocation, !set && string(q) == "base:":
			match = true
		}
	}
	if !p.end() {
		return h.fail(opt, RepErrInvalid, "the option's data is malformed")
	}
	if !validName(name) {
		return h.fail(opt, RepErrInvalid, "the export name is too long or not UTF-8")
	}
	e, rep := h.exports.Find(string(name))
	if rep != 0 {
		return h.fail(opt, rep, "export \""+clip(name)+"\": "+repText(rep))
	}
	if match {
		id := uint32(0) // reserved in a list
		if set {
			id, h.meta, h.metaFor = AllocationID, true, e.Name
		}
		h.reply(opt, RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), ContextAllocation...))
	}
	return h.reply(opt, RepAck, nil)
}

// agree ends the negotiation with e.
func (h *Handshake) agree(e Export, blockSizes bool) {
	if h.style != Simple {
		e.Flags |= SendDF
	}
	h.result = Result{Export: e, Style: h.style, Allocation: h.meta && h.metaFor == e.Name, BlockSizes: blockSizes}
}

func (h *Handshake) reply(opt, typ uint32, data []byte) (Action, error) {
	h.out = binary.BigEndian.AppendUint64(h.out, OptReplyMagic)
	h.out = binary.BigEndian.AppendUint32(h.out, opt)
	h.out = binary.BigEndian.AppendUint32(h.out, typ)
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(len(data)))
	h.out = append(h.out, data...)
	return More, nil
}

func (h *Handshake) fail(opt, rep uint32, msg string) (Action, error) {
	return h.reply(opt, rep, []byte(msg))
}

func repText(rep uint32) string {
	switch rep {
	case RepErrUnknown:
		return "no such export"
	case RepErrShutdown:
		return "it is being removed"
	case RepErrTLSReqd:
		return "it requires TLS"
	case RepErrPolicy:
		return "it is not for this client"
	}
	return "refused"
}
