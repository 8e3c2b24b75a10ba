package block

import (
	"fmt"

	"keyway/blkcrypto"
)

// An Op is the kind of a request.
type Op uint8

const (
	OpRead Op = iota
	OpWrite
	OpFlush       // makes durable every write whose Do had returned before
	OpDiscard     // the content of the range becomes undefined
	OpWriteZeroes // the range reads as zeroes afterwards

	numOps = iota
)

func (o Op) String() string {
	names := [numOps]string{"read", "write", "flush", "discard", "write-zeroes"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// HasData reports whether requests of this kind carry data.
func (o Op) HasData() bool { return o <= OpWrite }

// Changes reports whether o changes the medium.
func (o Op) Changes() bool { return o == OpWrite || o == OpDiscard || o == OpWriteZeroes }

// Flags change how a request is carried out.
type Flags uint8

const (
	FUA            Flags = 1 << iota // the write is durable when Do returns
	NoWait                           // return ErrWouldBlock instead of blocking
	NoUnmap                          // write zeroes: keep the space allocated
	FastZero                         // write zeroes: ErrNotSupported unless faster than writing them
	Scratch                          // write: the callee may overwrite Data
	Shared                           // Data may change under us (guest memory): read it once, never decrypt in place
	SkipDefaultKey                   // the data is encrypted by a layer above: default-key leaves it alone
	KeyHeld                          // the sender has entered the context's key and will leave it when Do has returned
)

// A Request is one block operation. It is passed by value: whoever receives
// one may change it freely and pass it on.
type Request struct {
	Op    Op
	Flags Flags
	Lane  uint16            // worker that carries it; shards counters and pools, no other meaning
	Off   int64             // bytes from the start of the device it is given to
	Len   int64             // bytes; equals Data.Len() for reads and writes
	Data  Segments          // owned by the caller, lent until Do returns
	Crypt blkcrypto.Context // zero: no inline crypto
}

// Sub returns the n bytes of r that begin off bytes into it, DUN included:
// with a context off is a multiple of the data unit size.
func (r Request) Sub(off, n int64) Request {
	r.Off += off
	r.Len = n
	if r.Op.HasData() {
		r.Data = r.Data.Slice(int(off), int(n))
	}
	if off != 0 {
		r.Crypt = r.Crypt.Advance(off)
	}
	return r
}

// NoWait reports whether r must not block.
func (r Request) NoWait() bool { return r.Flags&NoWait != 0 }
