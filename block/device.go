package block

import (
	"context"
	"iter"

	"keyway/blkcrypto"
)

// A Device performs requests. All methods may be called concurrently.
type Device interface {
	// Do performs r and returns when it is complete. Once Do has returned,
	// nothing below refers to r.Data. There are no short transfers.
	//
	// With NoWait, Do returns ErrWouldBlock instead of blocking, and leaves
	// the data of a write as it was (with Scratch too): the caller issues the
	// request again. ctx bounds waiting, not a transfer that the medium has
	// begun. A request whose context cannot be honoured fails with
	// ErrNoCrypto and never reaches the medium as plaintext.
	Do(ctx context.Context, r Request) error

	// Info describes the device. It may differ after a table reload.
	Info() Info

	// Close waits for requests in progress and releases the device.
	Close() error
}

// Support says how a device performs something.
type Support uint8

const (
	None     Support = iota
	Emulated         // by other requests, at their cost
	Native
)

func (s Support) String() string { return [...]string{"none", "emulated", "native"}[s] }

// Info describes a device.
type Info struct {
	Size                 int64 // bytes
	LogicalBlock         int   // bytes, a power of two; Off and Len are multiples of it
	PhysicalBlock        int   // bytes
	MinIO, OptIO         int   // bytes; preferred least and best size of a request, 0 for no preference
	FUA, Discard, Zeroes Support
	VolatileCache        bool // completed writes need OpFlush or FUA to be durable
	ReadOnly             bool
	NeverBlocks          bool              // Do with NoWait returns ErrWouldBlock only if something in the way is suspended, or a key is in no keyslot yet
	WritesBlock          bool              // Do with NoWait returns ErrWouldBlock for all but reads: not worth a try
	Crypto               blkcrypto.Profile // contexts that an engine beneath serves
}

// A Span is a part of a device.
type Span struct {
	Dev      Device
	Off, Len int64 // bytes
}

// An Extent is a run of bytes of one kind.
type Extent struct {
	Off, Len int64 // bytes
	Hole     bool  // takes no space on the medium
	Zero     bool  // reads as zeroes
}

// Optional upgrades of a Device, found by type assertion.
type (
	// Stacked tells what is beneath: device-mapper's iterate_devices.
	Stacked interface{ Under() []Span }

	// Memory is a medium in memory that lends its bytes, so that an engine in
	// front of it transforms straight from and to the medium. Lend returns
	// the n bytes from off on, to be read, or with write to be overwritten,
	// all of them, until Return is called with the same arguments. It does
	// not wait for anything but other lenders of the moment, and returns
	// ErrNotSupported where the bytes are not there as such: Do serves that.
	Memory interface {
		Lend(lane uint16, off, n int64, write bool) ([]byte, error)
		Return(lane uint16, off, n int64, write bool)
	}

	// Sparse knows its holes. Extents yields adjoining extents that cover the
	// n bytes from off on, in order, and stops after an error.
	Sparse interface {
		Extents(ctx context.Context, off, n int64) iter.Seq2[Extent, error]
	}
)

// Extents returns the extents of any device: one of plain data where the
// device does not know its holes.
func Extents(ctx context.Context, dev Device, off, n int64) iter.Seq2[Extent, error] {
	if s, ok := dev.(Sparse); ok {
		return s.Extents(ctx, off, n)
	}
	return func(yield func(Extent, error) bool) {
		if err := CheckAt(&Request{Op: OpDiscard, Off: off, Len: n}, dev.Info().Size, 1, false); err != nil {
			yield(Extent{}, err)
		} else if n > 0 {
			yield(Extent{Off: off, Len: n}, nil)
		}
	}
}
