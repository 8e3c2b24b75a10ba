// Package trace writes down what the keyslots of engines are used for, and reads it
// back: each request with a context, by number of key and never by its bytes, and each
// eviction, with the times when it came and when it was done.
//
// A trace is text, so that one can be made by other means, cut with head and counted
// with awk. Lines end with a newline, words are separated by one space, numbers are
// decimal, times are nanoseconds since the trace began:
//
//	keyway trace 1
//	began 2026-11-21T20:00:00Z
//	engine 1 32 "engine cpu of device \"disk0\""     number, keyslots (0: none), name
//	key 17 AES-256-XTS 4096 "userdata"               number, mode, data unit size, name
//	read 1 17 8 32768 4096 1000 91000                engine, key, DUN, offset, length, start, end
//	write 1 17 9 36864 4096 2000 92000 failed        the same; failed if it did
//	evict 1 17 95000 99000                           engine, key, start, end
//	end 3                                            how many requests and evictions
//
// The first line is as it stands here; began comes second or not at all; engines and
// keys come before what uses them, and again only as they were. Requests and evictions
// are in the order of their ends, or nearly: two at a time may come the wrong way
// round. A DUN of more than 64 bits is hexadecimal after 0x; one of a request without a
// context is "-", and so is its key. Names are quoted as in Go. Lines that begin with #
// say nothing. Without its last line a trace was cut off: what comes before is good.
package trace

import (
	"time"

	"keyway/blkcrypto"
	"keyway/block"
)

const (
	version = 1
	magic   = "keyway trace "

	// legend is for people who look into a file.
	legend = "# read|write ENGINE KEY DUN OFFSET LENGTH START END [failed]    bytes, and nanoseconds since the trace began\n" +
		"# evict ENGINE KEY START END\n"
)

// Bounds of what a reader takes.
const (
	MaxLine    = 4096 // bytes, with the newline
	MaxName    = 200  // bytes; a writer cuts longer ones off
	MaxEngines = 1 << 16
	MaxKeys    = 1 << 24
)

// An Engine is one whose keyslots are used.
type Engine struct {
	Number int64 // in the file
	Slots  int   // 0: it has none
	Name   string
}

// A Key is one that requests use.
type Key struct {
	Number   int64 // in the file
	Mode     string
	UnitSize int // bytes of a data unit
	Name     string
}

// An Event is a request or an eviction.
type Event struct {
	Evict      bool // Op, DUN, Off and Len say nothing then
	Failed     bool
	Op         block.Op // OpRead or OpWrite
	Engine     int      // index among the engines
	Key        int      // index among the keys; -1: a request without a context
	DUN        blkcrypto.DUN
	Off, Len   int64 // bytes on the device in front of which the engine is
	Start, End int64 // nanoseconds since the trace began
}

// Info is what a trace says beside its events.
type Info struct {
	Began     time.Time // zero: not known
	Engines   []Engine
	Keys      []Key
	Events    int
	Truncated bool // its end is missing
}
