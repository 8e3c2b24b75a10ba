package measure

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/roofline"
)

// A Rig is the memory that is worked on: a source and a destination for each
// core, page-aligned like the buffers of the product.
type Rig struct {
	dst, src [][]byte
	widths   [][]roofline.Width // for each core
}

const page = 4096

// NewRig is for up to cores at once and up to size bytes for each.
func NewRig(size, cores int) *Rig {
	r := &Rig{}
	seed := rand.NewChaCha8([32]byte{1})
	for range cores {
		dst, src := aligned(size), aligned(size)
		seed.Read(src)
		copy(dst, src) // its pages must exist
		r.dst, r.src = append(r.dst, dst), append(r.src, src)
		r.widths = append(r.widths, roofline.Widths())
	}
	return r
}

func aligned(n int) []byte {
	b := make([]byte, n+page)
	at := int(-uintptr(unsafe.Pointer(&b[0])) & (page - 1))
	return b[at : at+n : at+n]
}

// Crypt measures a cipher on runs of size bytes by so many cores at once, each on
// memory of its own, for about d: bytes a second of them all, as Rate counts.
func (r *Rig) Crypt(ctx context.Context, c cipher.Cipher, decrypt bool, size, cores int, d time.Duration) float64 {
	op := c.Encrypt
	if decrypt {
		op = c.Decrypt
	}
	return float64(size) * Rate(ctx, cores, d, func(core int) func() {
		dst, src, dun := r.dst[core][:size], r.src[core][:size], blkcrypto.DUN64(uint64(core)<<32)
		return func() {
			op(dst, src, dun)
			dun[0] += uint64(size) >> 9 // another number each time, whatever the unit
		}
	})
}

// Copy measures Go's copy on size bytes, as Crypt does a cipher.
func (r *Rig) Copy(ctx context.Context, size, cores int, d time.Duration) float64 {
	return float64(size) * Rate(ctx, cores, d, func(core int) func() {
		dst, src := r.dst[core][:size], r.src[core][:size]
		return func() { copy(dst, src) }
	})
}

// Widths are the vector widths of AES rounds, the narrowest first.
func (r *Rig) Widths() (bits []int) {
	for _, w := range r.widths[0] {
		bits = append(bits, w.Bits)
	}
	return bits
}

// Rounds measures AES rounds in vectors of that many bits: rounds of one 16-byte
// block a second, of all cores.
func (r *Rig) Rounds(ctx context.Context, bits, cores int, d time.Duration) float64 {
	for i, w := range r.widths[0] {
		if w.Bits == bits {
			return float64(w.Run()) * Rate(ctx, cores, d, func(core int) func() {
				w := r.widths[core][i]
				return func() { w.Run() }
			})
		}
	}
	return 0
}

// Rate calls the functions that start makes, one for each core on a thread of its
// own, again and again for about d, once at least, and returns how many calls in a
// second of processor time they made together: what they would have done had each
// thread a core to itself. It ends early when ctx does.
//
// Processor time and not the clock on the wall, because other processes then cost
// the measurement little more than its caches.
func Rate(ctx context.Context, cores int, d time.Duration, start func(core int) func()) float64 {
	if cores == 1 {
		return repeat(ctx, d, ThreadCPU, start(0))
	}
	rates := make([]float64, cores)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for core := range cores {
		f := start(core)
		wg.Go(func() {
			<-begin
			rates[core] = repeat(ctx, d, ThreadCPU, f)
		})
	}
	close(begin)
	wg.Wait()
	sum := 0.0
	for _, v := range rates {
		sum += v
	}
	return sum
}

// look is how long calls go on between two looks at the clocks: these cost next to
// nothing then, and the end is not missed by much.
const look = 50 * time.Microsecond

// Pace is how many calls of f there are in a second on the clock on the wall: for
// what may wait, or let others work.
func Pace(ctx context.Context, d time.Duration, f func()) float64 {
	start := time.Now()
	return repeat(ctx, d, func() time.Duration { return time.Since(start) }, f)
}

func repeat(ctx context.Context, d time.Duration, clock func() time.Duration, f func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	end, begin := time.Now().Add(d), clock()
	f() // warms caches; not counted, unless it takes all the time there is
	if first := clock() - begin; !time.Now().Before(end) {
		return 1 / max(first, time.Nanosecond).Seconds()
	}
	begin = clock()
	for n, batch := 0, 1; ; {
		for range batch {
			f()
		}
		n += batch
		used := max(clock()-begin, time.Nanosecond)
		if !time.Now().Before(end) || ctx.Err() != nil {
			return float64(n) / used.Seconds()
		}
		each := max(used/time.Duration(n), time.Nanosecond)
		batch = max(1, min(int(look/each), 2*n))
	}
}

// ThreadCPU is the processor time of this thread, which the caller has locked.
func ThreadCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("measure: the clock of a thread: " + err.Error())
	}
	return time.Duration(t.Nano())
}
