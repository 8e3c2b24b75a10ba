package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/measure"
)

// A way is how a request is transformed: on one core, or on several.
type way struct {
	name string
	// open returns the way's function, and what ends its goroutines.
	open func(parts int) (crypt func(t *task), end func())
}

// A task is one request.
type task struct {
	c        cipher.Cipher
	dst, src []byte
	unit     int
	dun      blkcrypto.DUN
}

// part transforms the bytes from at to end, whole data units.
func (t *task) part(at, end int) {
	dun, _ := t.dun.Add(uint64(at / t.unit))
	t.c.Encrypt(t.dst[at:end], t.src[at:end], dun)
}

// cut is where part i of n begins.
func (t *task) cut(i, n int) int { return len(t.src) / t.unit * i / n * t.unit }

// ways are the cheapest that Go has. The first is what the others are compared
// with.
var ways = []way{
	{"one", func(int) (func(*task), func()) {
		return func(t *task) { t.part(0, len(t.src)) }, func() {}
	}},
	{"goroutine", openGoroutines},
	{"worker", openWorkers},
	{"chunks", openChunks},
	{"helper", openHelpers},
}

// openGoroutines starts a goroutine for each part but one, as block.Parallel does.
func openGoroutines(parts int) (func(*task), func()) {
	return func(t *task) {
		var wg sync.WaitGroup
		for i := 1; i < parts; i++ {
			wg.Go(func() { t.part(t.cut(i, parts), t.cut(i+1, parts)) })
		}
		t.part(0, t.cut(1, parts))
		wg.Wait()
	}, func() {}
}

// openWorkers has goroutines that wait for parts.
func openWorkers(parts int) (func(*task), func()) {
	type piece struct {
		t       *task
		at, end int
		done    *sync.WaitGroup
	}
	c := make(chan piece, parts)
	for range parts - 1 {
		go func() {
			for p := range c {
				p.t.part(p.at, p.end)
				p.done.Done()
			}
		}()
	}
	var wg sync.WaitGroup // of the one caller
	return func(t *task) {
		wg.Add(parts - 1)
		for i := 1; i < parts; i++ {
			c <- piece{t, t.cut(i, parts), t.cut(i+1, parts), &wg}
		}
		t.part(0, t.cut(1, parts))
		wg.Wait()
	}, func() { close(c) }
}

// leastChunk is what is taken at a time at least: long beside the taking.
const leastChunk = 32 << 10

// chunksEach is how many chunks there are for each core: enough that one that
// comes late finds some, few enough that a cipher sees long runs.
const chunksEach = 4

// shared is a request that several goroutines work on, each taking the next chunk.
type shared struct {
	task
	chunk      int          // bytes
	chunks     int64        // in all
	next, left atomic.Int64 // chunks to be taken, chunks to be done
	done       chan struct{}
}

// share makes t a request for several, or does it at once if it is one chunk.
func share(t *task, parts int) *shared {
	chunk := max(leastChunk, len(t.src)/(chunksEach*parts))
	chunk = (chunk + t.unit - 1) / t.unit * t.unit
	if chunk >= len(t.src) {
		t.part(0, len(t.src))
		return nil
	}
	s := &shared{task: *t, chunk: chunk, chunks: int64((len(t.src) + chunk - 1) / chunk), done: make(chan struct{})}
	s.left.Store(s.chunks)
	return s
}

// work takes chunks until there are none.
func (s *shared) work() {
	for {
		i := s.next.Add(1) - 1
		if i >= s.chunks {
			return
		}
		at := int(i) * s.chunk
		s.part(at, min(at+s.chunk, len(s.src)))
		if s.left.Add(-1) == 0 {
			close(s.done)
		}
	}
}

// openChunks starts goroutines that take chunks. The request does not wait for one
// that comes too late to find any.
func openChunks(parts int) (func(*task), func()) {
	return func(t *task) {
		if s := share(t, parts); s != nil {
			for range parts - 1 {
				go s.work()
			}
			s.work()
			<-s.done
		}
	}, func() {}
}

// openHelpers is the same with goroutines that are there already.
func openHelpers(parts int) (func(*task), func()) {
	c := make(chan *shared, parts)
	for range parts - 1 {
		go func() {
			for s := range c {
				s.work()
			}
		}()
	}
	return func(t *task) {
		s := share(t, parts)
		if s == nil {
			return
		}
		for range parts - 1 {
			select {
			case c <- s:
			default: // they have enough to do
			}
		}
		s.work()
		<-s.done
	}, func() { close(c) }
}

// A condition is what the machine does besides.
type condition struct {
	name  string
	pause time.Duration // before each request
	busy  bool          // all cores, with requests of the same kind
}

var conditions = []condition{
	{"idle, one after the other", 0, false},
	{"idle, after a pause", 200 * time.Microsecond, false},
	{"busy", 0, true},
}

// busyRequest is the size of the requests that keep the cores busy.
const busyRequest = 64 << 10

// A split is what one way costs for one size under one condition.
type split struct {
	Mode      string  `json:"mode"`
	Impl      string  `json:"implementation"`
	Default   bool    `json:"default"`
	Condition string  `json:"condition"`
	Size      int     `json:"size"`
	Way       string  `json:"way"`
	Parts     int     `json:"parts"`
	P50       float64 `json:"p50_us"`
	P99       float64 `json:"p99_us"`
	CPU       float64 `json:"cpu_us,omitempty"` // of the process, for a request; not when busy
	// All is how many bytes a second were transformed, by these requests and by
	// those that keep the cores busy.
	All float64 `json:"all_bytes_per_second,omitempty"`
}

var splitSizes = []int{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

func runParallel(ctx context.Context, o options) error {
	modes, err := o.chosenModes()
	if err != nil {
		return err
	}
	if runtime.GOMAXPROCS(0) < 2 {
		return fmt.Errorf("there is one processor: nothing to split over")
	}
	r := &splitReport{Machine: measure.Machine(), Cores: runtime.GOMAXPROCS(0), Unit: 4096}
	noise := measure.NewNoise()
	for _, m := range modes {
		for _, s := range measure.Subjects(m) {
			c, err := s.Open(r.Unit)
			if err != nil {
				return err
			}
			for _, cond := range conditions {
				for _, n := range splitSizes {
					o.say("%v %s, %s, %d KiB", m, s.Impl, cond.name, n>>10)
					if ctx.Err() != nil {
						c.Wipe()
						return context.Cause(ctx)
					}
					for _, x := range compare(c, r.Unit, n, cond, o) {
						x.Mode, x.Impl, x.Default = m.String(), s.Impl, s.Default
						r.Splits = append(r.Splits, x)
					}
				}
			}
			c.Wipe()
		}
	}
	r.Noise = noise.Processors()
	o.say("")
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	return r.markdown(os.Stdout)
}

// running is a way with its goroutines, and what it was seen to cost.
type running struct {
	way
	parts  int
	crypt  func(*task)
	took   []float64 // µs, of each request
	cpu    time.Duration
	wall   time.Duration
	others int64 // bytes
}

// slowest is how long a request may take on one core to be measured: what holds
// for it holds for longer ones.
const slowest = 20 * time.Millisecond

// compare measures every way by turns; nil if the request takes too long.
func compare(c cipher.Cipher, unit, size int, cond condition, o options) (out []split) {
	var all []*running
	for _, w := range ways {
		counts := []int{2}
		if n := runtime.GOMAXPROCS(0); n > 2 {
			counts = append(counts, n)
		}
		if w.name == ways[0].name {
			counts = []int{1}
		}
		for _, parts := range counts {
			crypt, end := w.open(parts)
			defer end()
			all = append(all, &running{way: w, parts: parts, crypt: crypt})
		}
	}
	var others atomic.Int64
	if cond.busy {
		defer keepBusy(c, unit, &others)()
	}
	t := &task{c: c, dst: make([]byte, size), src: make([]byte, size), unit: unit}
	for i := range t.src {
		t.dst[i], t.src[i] = byte(i), byte(i>>8)
	}
	const turn = time.Millisecond
	begin := time.Now()
	t.part(0, size)
	if once := time.Since(begin); once > slowest {
		return nil
	}
	for round := range 3 * o.rounds {
		for i := range all {
			w := all[(i+round)%len(all)]
			if round == 0 {
				w.crypt(t) // warms caches and wakes goroutines; not counted
				continue
			}
			before, begin, cpu := others.Load(), time.Now(), processCPU()
			for n := 0; n == 0 || time.Since(begin) < turn; n++ {
				if cond.pause > 0 {
					time.Sleep(cond.pause)
				}
				at := time.Now()
				w.crypt(t)
				w.took = append(w.took, float64(time.Since(at).Nanoseconds())/1e3)
				t.dun, _ = t.dun.Add(uint64(size / unit))
				if cond.busy {
					runtime.Gosched() // as a lane waits for its next request
				}
			}
			w.cpu += processCPU() - cpu
			w.wall += time.Since(begin)
			w.others += others.Load() - before
		}
	}
	for _, w := range all {
		slices.Sort(w.took)
		n := len(w.took)
		x := split{Condition: cond.name, Size: size, Way: w.name, Parts: w.parts, P50: w.took[n/2], P99: w.took[n*99/100]}
		if cond.busy {
			x.All = float64(w.others+int64(n)*int64(size)) / w.wall.Seconds()
		} else {
			x.CPU = float64(w.cpu.Nanoseconds()) / 1e3 / float64(n)
		}
		out = append(out, x)
	}
	return out
}

// keepBusy has every core work on requests, and returns what ends that.
func keepBusy(c cipher.Cipher, unit int, done *atomic.Int64) (end func()) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			t := &task{c: c, dst: make([]byte, busyRequest), src: make([]byte, busyRequest), unit: unit}
			for !stop.Load() {
				t.part(0, len(t.src))
				done.Add(busyRequest)
				runtime.Gosched()
			}
		})
	}
	return func() { stop.Store(true); wg.Wait() }
}

// processCPU is the processor time of all threads.
func processCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic("the clock of the process: " + err.Error())
	}
	return time.Duration(t.Nano())
}
