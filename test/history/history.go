package history

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing/synctest"

	"keyway/blkcrypto"
	"keyway/dm"
)

// A variant is how the stack of a twin differs; nothing of it may be noticed.
type variant string

const (
	asItIs    variant = ""
	noEngines variant = "no engines"
	oneSlot   variant = "one slot each"
	restless  variant = "more reloads and suspensions"
	taller    variant = "a linear level over each leaf"
)

// A history is one that is being run.
type history struct {
	*world
	seed    uint64
	kind    Kind
	variant variant
	stats   *Stats

	granule int64 // bytes: tables have no finer boundaries
	slots   int   // of the fallback
	leaves  []*device
	mapped  []*device // that have not been removed
	keys    []*keyUse // of the upper layer
	starts  []*started
	stores  []*material
	born    int // devices so far

	ctx           context.Context // of everything that waits
	cancel        context.CancelFunc
	step          int
	begun         int            // requests so far
	lastWait      int            // the last step before which all that had begun was blocked or done
	stopped       bool           // a StartKey has been stopped since the last look
	excused       map[stray]bool // keys that it alone had kept where they are
	lastChange    int            // the last step in which tables changed
	lastFault     int            // the last step in which an engine failed on purpose
	lastUse       int            // the step in which a key was last started or stopped
	fallbackFault int            // or the fallback
	calls         []*call
	finishing     []*call   // that are done, and not yet compared
	owed          []*ioCall // writes of which it was not known where they went
	extra         *rand.Rand

	trace   []string // what happened, for people
	results []string // what twins have in common
}

// A started key was declared to a device.
type started struct {
	dev  *device
	key  *keyUse
	stop func()
}

// A call is a step that may take until later steps.
type call struct {
	what    string
	from    int // step
	dev     *device
	control bool // it changes dev
	io      *ioCall
	revokes bool    // it may make wrapped keys useless
	closes  *keyUse // it begins by making this key useless
	idles   *keyUse // it does so, unless requests use it
	done    atomic.Bool
	panic   any
	finish  func() error // on the history's goroutine, once it is done
}

// start begins c. A sequential history waits for its end.
func (h *history) start(c *call, run func()) error {
	c.from = h.step
	if c.control {
		c.dev.changes++
	}
	guarded := func() {
		defer func() {
			if p := recover(); p != nil {
				c.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
			c.done.Store(true)
		}()
		run()
	}
	h.calls = append(h.calls, c)
	if h.kind != Concurrent {
		guarded()
		return h.collect()
	}
	go guarded()
	return nil
}

// collect finishes the calls that are done: changes of tables first, since the
// requests beside them may have gone by either table.
func (h *history) collect() error {
	var done []*call
	h.calls = slices.DeleteFunc(h.calls, func(c *call) bool {
		if c.done.Load() {
			done = append(done, c)
			return true
		}
		return false
	})
	h.finishing = done
	defer func() { h.finishing = nil }()
	var failed error
	finish := func(c *call) {
		if c.panic != nil && failed == nil {
			failed = fmt.Errorf("%s: panic: %v", c.what, c.panic)
		}
		if err := c.finish(); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", c.what, err)
		}
	}
	changed := false
	for _, c := range done {
		if c.control {
			changed = true
			c.dev.changes--
			finish(c)
			h.uncircle()
		}
	}
	if changed {
		if err := h.reap(); err != nil && failed == nil {
			failed = err
		}
		for _, d := range h.mapped {
			if d.circles() {
				return fmt.Errorf("%s stands on itself (dm-fscrypt.md, invariant 35)", d.name)
			}
		}
		h.lastChange = h.step
	}
	if changed || h.busy() {
		h.refresh()
	}
	for _, c := range done {
		if !c.control {
			finish(c)
		}
	}
	return failed
}

// uncircle lets a device have the table that is on its way to it, where by the one
// before it would stand on itself: that must have been replaced already, and what is
// still under way is the end of the change.
func (h *history) uncircle() {
	for _, d := range h.mapped {
		if d.coming != nil && d.circles() {
			d.become(d.coming.table, window{d.coming.from, h.step})
		}
	}
}

// exact reports whether no table changed during w, but by the call itself.
func (h *history) exact(w window, itself ...*call) bool {
	for _, c := range append(slices.Clone(h.calls), h.finishing...) {
		if c.control && !slices.Contains(itself, c) {
			return false
		}
	}
	return h.lastChange < w.from
}

// busy reports whether some change of a table is under way.
func (h *history) busy() bool {
	return slices.ContainsFunc(h.calls, func(c *call) bool { return c.control })
}

// now is the window of a step that takes no time.
func (h *history) nowWindow() window { return window{h.step, h.step} }

// logf adds to what is printed of a history that fails.
func (h *history) logf(format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf("%3d ", h.step)+indent(fmt.Sprintf(format, args...)))
}

// tick begins a step.
func (h *history) tick() {
	h.step++
	h.mu.Lock()
	h.world.now = h.step
	h.mu.Unlock()
	h.noteFaults()
}

func (h *history) noteFaults() {
	if slices.ContainsFunc(h.engines(), (*engine).failing) {
		h.lastFault = h.step
	}
	if h.fallback.failing() {
		h.fallbackFault = h.step
	}
}

// engines are those of all leaves, and the fallback.
func (h *history) engines() []*engine {
	all := []*engine{h.fallback}
	for _, d := range h.leaves {
		if d.leaf.engine != nil {
			all = append(all, d.leaf.engine)
		}
	}
	return all
}

// setup makes leaves, engines and the key store.
func (h *history) setup() error {
	r := rand.New(rand.NewPCG(h.seed, 3))
	h.extra = rand.New(rand.NewPCG(h.seed, 4))
	h.granule = sector
	if oneIn(r, 2) {
		h.granule = 8 * sector
	}
	h.slots = 1 + r.IntN(4)
	if h.variant == oneSlot {
		h.slots = 1
	}
	h.excused = map[stray]bool{}
	h.ctx, h.cancel = context.WithCancel(background)
	var err error
	if h.world, err = newWorld(h.slots); err != nil {
		return err
	}
	for i := range 1 + r.IntN(4) {
		l := &leaf{name: string(rune('a' + i)), size: (64 + 8*r.Int64N(9)) * sector, block: sector, fua: oneIn(r, 2)}
		if h.granule > sector && oneIn(r, 3) {
			l.block = 4096
		}
		if oneIn(r, 4) {
			l.lends, l.fua = true, false
		}
		l.spec = randomSpec(r)
		l.medium = newMedium(l.size)
		h.leaves = append(h.leaves, &device{name: l.name, born: l.name, leaf: l})
		if err := h.raise(l, nil); err != nil {
			return err
		}
		h.logf("%s: %d sectors, blocks of %d, engine %q, FUA %v, lends %v", l.name, l.size/sector, l.block, l.spec.text, l.fua, l.lends)
	}
	h.logf("fallback: %s", h.fallback.text)
	for _, n := range []int{64, 64, 48, 32, 32, 16} {
		m, err := h.addMaterial(r, fmt.Sprintf("k%d", len(h.stores)), n, false)
		if err != nil {
			return err
		}
		h.stores = append(h.stores, m)
	}
	if h.kind != Twins {
		m, err := h.addMaterial(r, "wrapped", 32, true)
		if err != nil {
			return err
		}
		h.stores = append(h.stores, m)
	}
	return nil
}

// specs are engines as phones have them, and odder ones.
var specs = []string{
	"", "soft", "soft", "ufs", "ufs?slots=2", "ufs?slots=1&keys=wrapped", "ufs?slots=3&keys=raw&units=512,1024,4096&dun-bytes=4",
	"cqhci", "cqhci?slots=1&units=512", "cqhci?slots=2&units=4096&dun-bytes=8", "fmp", "fmp?units=512,4096",
	"ufs?slots=2&modes=AES-256-XTS,Adiantum,AES-128-CBC-ESSIV&dun-bytes=16", "ufs?slots=2&modes=SM4-XTS,Adiantum&units=512,2048,4096",
	"fmp?modes=AES-256-XTS,AES-128-CBC-ESSIV&units=1024,4096", "ufs?slots=4&dun-bytes=1",
}

func randomSpec(r *rand.Rand) spec { return spec{pick(r, specs), 1 + r.IntN(4)} }

// raise puts a leaf device on a disk with the given content.
func (h *history) raise(l *leaf, content []byte) error {
	s, slots := l.spec, 0
	switch h.variant {
	case noEngines:
		s.text = ""
	case oneSlot:
		slots = 1
	}
	var err error
	if l.engine, err = s.build(l.name+"'s engine", h.hardware, slots); err != nil {
		return err
	}
	l.disk = l.newDisk(content)
	stand := dm.Leaf{Dev: l.device(), Text: "history:" + l.name, Fallback: h.fallback.m}
	if l.engine != nil {
		stand.Engine = l.engine.m
	}
	m, err := dm.NewLeaf(l.name, stand, h.options())
	if err != nil {
		return err
	}
	h.put(l.name, m)
	if h.variant != taller {
		return nil
	}
	h.put("under-"+l.name, m)
	top := dm.New(l.name, h.options())
	t, err := dm.Parse(background, fmt.Sprintf("0 %d linear under-%s 0", l.size/sector, l.name), h.world, dm.ParseOptions{})
	if err != nil {
		return err
	}
	h.put(l.name, top)
	return top.Reload(background, t, dm.SuspendOptions{})
}

// real is the product's device.
func (h *history) real(d *device) *dm.Mapped { return h.device(d.name) }

// wait returns when all calls are blocked or done, and finishes those.
func (h *history) wait() error {
	if h.kind == Concurrent {
		synctest.Wait()
		h.lastWait = h.step
		for _, c := range h.calls {
			if c.closes != nil {
				c.closes.seal(c.from, h.step)
			}
		}
	}
	return h.collect()
}

// some returns a device that has not been removed: seldom a leaf, and the newest
// most often.
func (h *history) some(r *rand.Rand, leaves bool) *device {
	if leaves && (len(h.mapped) == 0 || oneIn(r, 5)) {
		return pick(r, h.leaves)
	}
	if n := len(h.mapped); n > 0 && oneIn(r, 3) {
		return h.mapped[n-1]
	}
	return pick(r, h.mapped)
}

// all are the devices of now, leaves first.
func (h *history) all() []*device { return append(slices.Clone(h.leaves), h.mapped...) }

// tablesOf are the tables that exist, live and inactive.
func (h *history) tablesOf(d *device) (all []*table) {
	for _, t := range []*table{d.live(), d.loaded} {
		if t != nil {
			all = append(all, t)
		}
	}
	return all
}

// String is the whole story.
func (h *history) String() string { return strings.Join(h.trace, "\n") }

// configs are those that keys of the upper layer have, and profiles are asked for.
var configs = func() (all []blkcrypto.Config) {
	for _, m := range []blkcrypto.Mode{blkcrypto.AES256XTS, blkcrypto.AES128CBCESSIV, blkcrypto.Adiantum, blkcrypto.SM4XTS} {
		for _, unit := range []int{512, 1024, 4096} {
			for _, n := range []int{1, 2, 4, 8, 16} {
				c := blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: n}
				all = append(all, c)
				if n == 2 {
					c.Numbering = blkcrypto.BySector
					all = append(all, c)
				}
				if m == blkcrypto.AES256XTS && n > 1 {
					c.Numbering, c.KeyType = blkcrypto.ByUnit, blkcrypto.HWWrapped
					all = append(all, c)
				}
			}
		}
	}
	return all
}()

func clone(b []byte) []byte { return bytes.Clone(b) }
