package cipher

import (
	"runtime"
	"sync/atomic"

	"keyway/adiantum"
	"keyway/blkcrypto"
	"keyway/essiv"
	"keyway/internal/dataunit"
	"keyway/sm4xts"
	"keyway/xts"
)

// splitFrom is the size in bytes from which on several cores take part in a run:
// where one core needs some 300 µs for it, so that the help is worth its wake-up
// (doc/ciphers.md). 0: never. AES by instructions needs that long for 4 MiB, which
// is more than the data path hands over at once.
func splitFrom(m blkcrypto.Mode) int {
	if runtime.GOMAXPROCS(0) == 1 {
		return 0
	}
	used := xts.Implementation
	switch m {
	case blkcrypto.AES128CBCESSIV:
		used = essiv.Implementation
	case blkcrypto.Adiantum:
		used = adiantum.Implementation
	case blkcrypto.SM4XTS:
		used = sm4xts.Implementation
	}
	switch generic := used() == "generic"; {
	case m == blkcrypto.Adiantum && generic:
		return 128 << 10
	case m == blkcrypto.Adiantum:
		return 1 << 20
	case generic:
		return 64 << 10
	case m == blkcrypto.SM4XTS:
		return 512 << 10
	}
	return 0
}

// splitting is held by the one run that is split at a time: where there are more,
// the cores have enough to do.
var splitting atomic.Bool

// A splitRun is transformed by all who come in time, each taking the next chunk. It
// waits for chunks that were taken and for nobody else.
type splitRun struct {
	u          *Units
	encrypt    bool
	dun        blkcrypto.DUN
	dst, src   []byte
	chunk      int // bytes
	chunks     int64
	next, left atomic.Int64 // chunks to be taken, chunks to be done
	done       chan struct{}
}

// split transforms a run with the help of other cores. It
// allocates, which is nothing beside its time.
func (u *Units) split(encrypt bool, dun blkcrypto.DUN, dst, src []byte) {
	const leastChunk, chunksEach = 32 << 10, 4
	cores, unit := runtime.GOMAXPROCS(0), u.Config.DataUnitSize
	dataunit.Check("cipher", unit, dst, src) // chunks alone would not show every overlap
	chunk := (max(leastChunk, len(src)/(chunksEach*cores)) + unit - 1) / unit * unit
	chunks := (len(src) + chunk - 1) / chunk
	s := &splitRun{u: u, encrypt: encrypt, dun: dun, dst: dst, src: src, chunk: chunk, chunks: int64(chunks), done: make(chan struct{})}
	s.left.Store(s.chunks)
	for range min(cores, chunks) - 1 {
		go s.work() // one that comes late finds no chunk, and touches nothing
	}
	s.work()
	<-s.done
}

func (s *splitRun) work() {
	for {
		i := s.next.Add(1) - 1
		if i >= s.chunks {
			return
		}
		at := int(i) * s.chunk
		end := min(at+s.chunk, len(s.src))
		dun := s.u.Config.DUN(s.dun, int64(at))
		s.u.one(s.encrypt, dun, s.dst[at:end], s.src[at:end])
		if s.left.Add(-1) == 0 {
			close(s.done)
		}
	}
}
