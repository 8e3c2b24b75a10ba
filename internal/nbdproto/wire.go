// Package nbdproto is the wire format of the Network Block Device protocol
// and the server's side of its negotiation, as doc/proto.md of the NBD project
// defines them. It does no I/O and starts no goroutine: the handshake is a
// step function from bytes to bytes, the rest encodes and decodes headers.
//
// All integers on the wire are big endian.
package nbdproto

// Magic numbers.
const (
	InitMagic       uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	OptionMagic     uint64 = 0x49484156454f5054 // "IHAVEOPT"
	OptReplyMagic   uint64 = 0x0003e889045565a9
	RequestMagic    uint32 = 0x25609513
	ExtRequestMagic uint32 = 0x21e41c71
	SimpleMagic     uint32 = 0x67446698
	ChunkMagic      uint32 = 0x668e33ef
	ExtReplyMagic   uint32 = 0x6e8a278c
)

// Handshake flags, sent by the server, and client flags, the answer.
const (
	FlagFixedNewstyle uint16 = 1 << 0
	FlagNoZeroes      uint16 = 1 << 1

	ClientFixedNewstyle uint32 = 1 << 0
	ClientNoZeroes      uint32 = 1 << 1
)

// Options.
const (
	OptExportName      uint32 = 1
	OptAbort           uint32 = 2
	OptList            uint32 = 3
	OptStartTLS        uint32 = 5
	OptInfo            uint32 = 6
	OptGo              uint32 = 7
	OptStructuredReply uint32 = 8
	OptListMetaContext uint32 = 9
	OptSetMetaContext  uint32 = 10
	OptExtendedHeaders uint32 = 11
)

// Replies to options. Those with RepErr set end an option without success.
const (
	RepAck         uint32 = 1
	RepServer      uint32 = 2
	RepInfo        uint32 = 3
	RepMetaContext uint32 = 4

	RepErr              uint32 = 1 << 31
	RepErrUnsup                = RepErr | 1
	RepErrPolicy               = RepErr | 2
	RepErrInvalid              = RepErr | 3
	RepErrPlatform             = RepErr | 4
	RepErrTLSReqd              = RepErr | 5
	RepErrUnknown              = RepErr | 6
	RepErrShutdown             = RepErr | 7
	RepErrBlockSizeReqd        = RepErr | 8
	RepErrTooBig               = RepErr | 9
	RepErrExtHeaderReqd        = RepErr | 10
)

// Information items of OptInfo and OptGo.
const (
	InfoExport      uint16 = 0
	InfoName        uint16 = 1
	InfoDescription uint16 = 2
	InfoBlockSize   uint16 = 3
)

// Transmission flags of an export.
const (
	HasFlags        uint16 = 1 << 0
	ReadOnly        uint16 = 1 << 1
	SendFlush       uint16 = 1 << 2
	SendFUA         uint16 = 1 << 3
	Rotational      uint16 = 1 << 4
	SendTrim        uint16 = 1 << 5
	SendWriteZeroes uint16 = 1 << 6
	SendDF          uint16 = 1 << 7
	CanMultiConn    uint16 = 1 << 8
	SendResize      uint16 = 1 << 9
	SendCache       uint16 = 1 << 10
	SendFastZero    uint16 = 1 << 11
)

// Commands.
const (
	CmdRead        uint16 = 0
	CmdWrite       uint16 = 1
	CmdDisc        uint16 = 2
	CmdFlush       uint16 = 3
	CmdTrim        uint16 = 4
	CmdCache       uint16 = 5
	CmdWriteZeroes uint16 = 6
	CmdBlockStatus uint16 = 7
)

// Command flags.
const (
	CmdFlagFUA        uint16 = 1 << 0
	CmdFlagNoHole     uint16 = 1 << 1
	CmdFlagDF         uint16 = 1 << 2
	CmdFlagReqOne     uint16 = 1 << 3
	CmdFlagFastZero   uint16 = 1 << 4
	CmdFlagPayloadLen uint16 = 1 << 5 // extended headers: Length bytes of payload follow
)

// Types and flags of the chunks of structured and extended replies.
const (
	ReplyNone           uint16 = 0
	ReplyOffsetData     uint16 = 1
	ReplyOffsetHole     uint16 = 2
	ReplyBlockStatus    uint16 = 5
	ReplyBlockStatusExt uint16 = 6
	ReplyIsError        uint16 = 1 << 15
	ReplyError                 = ReplyIsError | 1
	ReplyErrorOffset           = ReplyIsError | 2

	ReplyFlagDone uint16 = 1 << 0
)

// Extent flags of the base:allocation context.
const (
	StateHole uint32 = 1 << 0
	StateZero uint32 = 1 << 1
)

// An Errno is the error value of a reply. The values are the protocol's own,
// whatever they are on the system.
type Errno uint32

const (
	OK        Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

const (
	// MaxString is the protocol's limit for names, descriptions, queries and
	// error messages, in bytes.
	MaxString = 4096

	// MaxMessage is how much of an error message is sent: it is for people.
	MaxMessage = 256

	// MaxOption is the largest option data that is looked at. A full export
	// name and a dozen longest queries fit.
	MaxOption = 64 << 10

	// MaxSkip is the largest option data that is read to refuse it politely;
	// a client that announces more is dropped.
	MaxSkip = 16 << 20

	// MaxOptions is the number of options that a connection may send. nbdinfo
	// --list needs four for each export it finds.
	MaxOptions = 8192

	// MaxQueries is the number of metadata queries in one option.
	MaxQueries = 64
)

// ContextAllocation is the one metadata context that there is.
const ContextAllocation = "base:allocation"

// AllocationID is its number in block status replies.
const AllocationID uint32 = 1
