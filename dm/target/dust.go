package target

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "dust", Features: dm.PassesCrypto,
		Usage: "<device> <start sector> <block size in bytes>", New: newDust,
	})
}

// dust is linear, with a list of bad blocks that messages change. Once
// enabled, a read of a bad block fails, and a write heals it, or fails as many
// times as the block was given first. Blocks count from the start of the
// device, not of the row.
//
// A request is forwarded whole or not at all, so contexts pass. The list is
// lost with the table. Unless it is quiet, what changes the list is an event of the
// device; the kernel logs it.
type dust struct {
	linear
	shift int // log2 of the block size in bytes

	enabled atomic.Bool
	quiet   atomic.Bool

	mu  sync.Mutex
	bad map[int64]uint8 // by block: how many writes still fail; guarded by mu

	raise func(string)
}

func newDust(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	d := &dust{linear: linear{name: a.String("device"), start: a.Sectors("start"), length: b.Len()}, bad: map[int64]uint8{}, raise: b.Raise}
	const what = "block size, in bytes"
	size := int64(a.Int(what, 512, 1<<30))
	switch {
	case a.Err() != nil:
	case size&(size-1) != 0:
		a.Fail(what, fmt.Errorf("%d is not a power of two", size))
	case size > d.length:
		a.Fail(what, fmt.Errorf("%d is more than the %d bytes of the row", size, d.length))
	}
	if err := a.End(); err != nil {
		return nil, err
	}
	d.shift = bits.TrailingZeros64(uint64(size))
	var err error
	d.Device, err = b.OpenSpan(d.name, d.start, d.length)
	return d, err
}

// Do performs r unless it meets a bad block.
//
// Hot: no allocation.
func (d *dust) Do(ctx context.Context, r block.Request) error {
	if d.enabled.Load() && r.Len > 0 && !d.meets(d.start+r.Off, r.Len, r.Op) {
		return block.ErrIO
	}
	return d.linear.Do(ctx, r)
}

// Map tells whether r would meet a bad block, which stays as it is.
func (d *dust) Map(r *block.Request) (block.Device, error) {
	if d.enabled.Load() && r.Len > 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.good(d.start+r.Off, r.Len, r.Op) {
			return nil, block.ErrIO
		}
	}
	return d.linear.Map(r)
}

// Explain names the block of the byte at off.
func (d *dust) Explain(off int64) string {
	b := (d.start + off) >> d.shift
	d.mu.Lock()
	defer d.mu.Unlock()
	switch fails, bad := d.bad[b]; {
	case !bad:
		return fmt.Sprintf("block %d", b)
	case !d.enabled.Load():
		return fmt.Sprintf("block %d, bad, which matters once enabled", b)
	default:
		return fmt.Sprintf("block %d, bad; writes to it fail %d times more", b, fails)
	}
}

// meets reports whether a request for n bytes of the device can be done. A
// write heals the blocks before it is done, and none of them if one makes it
// fail.
func (d *dust) meets(at, n int64, op block.Op) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	good := d.good(at, n, op)
	if op == block.OpRead {
		return good
	}
	d.each(at, n, func(b int64, fails uint8) {
		switch {
		case good:
			delete(d.bad, b)
			d.tell("block %d healed by a write", b)
		case fails > 0:
			d.bad[b] = fails - 1
		}
	})
	return good
}

// tell raises an event unless the target is quiet.
func (d *dust) tell(format string, args ...any) {
	if !d.quiet.Load() {
		d.raise(fmt.Sprintf(format, args...))
	}
}

// good reports whether no block of the range makes the request fail; d.mu is
// held.
func (d *dust) good(at, n int64, op block.Op) bool {
	good := true
	d.each(at, n, func(_ int64, fails uint8) { good = good && op != block.OpRead && fails == 0 })
	return good
}

// each calls f for the bad blocks that n bytes of the device touch; d.mu is
// held. It goes over those or over the list, whichever is shorter.
func (d *dust) each(at, n int64, f func(b int64, fails uint8)) {
	if len(d.bad) == 0 {
		return
	}
	from, to := at>>d.shift, (at+n-1)>>d.shift
	if to-from < int64(len(d.bad)) {
		for b := from; b <= to; b++ {
			if fails, is := d.bad[b]; is {
				f(b, fails)
			}
		}
		return
	}
	for b, fails := range d.bad {
		if b >= from && b <= to {
			f(b, fails)
		}
	}
}

// Message is one of those that dmsetup users know (dm-dust.rst).
func (d *dust) Message(_ context.Context, words []string) (string, error) {
	name := strings.ToLower(words[0])
	switch name {
	case "addbadblock":
		if len(words) != 2 && len(words) != 3 {
			return "", fmt.Errorf("%s takes a block, and perhaps how many writes to it fail", name)
		}
	case "removebadblock", "queryblock":
		if len(words) != 2 {
			return "", fmt.Errorf("%s takes a block", name)
		}
	case "enable", "disable", "quiet", "countbadblocks", "clearbadblocks", "listbadblocks":
		if len(words) != 1 {
			return "", fmt.Errorf("%s takes no arguments", name)
		}
		return d.list(name), nil
	default:
		return "", fmt.Errorf("no message %q (there are: addbadblock, clearbadblocks, countbadblocks, disable, enable, listbadblocks, "+
			"queryblock, quiet, removebadblock)", words[0])
	}
	blocks := d.Device.Info().Size >> d.shift
	b, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil || b < 0 || b > blocks {
		return "", fmt.Errorf("%s: block %q is not from 0 to %d", name, words[1], blocks)
	}
	var fails uint64
	if len(words) == 3 {
		if fails, err = strconv.ParseUint(words[2], 10, 8); err != nil {
			return "", fmt.Errorf("%s: number of failing writes %q is not from 0 to 255", name, words[2])
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, is := d.bad[b]
	switch {
	case name == "queryblock" && is:
		return fmt.Sprintf("dust_query_block: block %d found in badblocklist", b), nil
	case name == "queryblock":
		return fmt.Sprintf("dust_query_block: block %d not found in badblocklist", b), nil
	case name == "addbadblock" && is:
		return "", fmt.Errorf("%s: block %d already in badblocklist", name, b)
	case name == "addbadblock":
		d.bad[b] = uint8(fails)
		d.tell("block %d added, %d writes to it fail", b, fails)
	case !is:
		return "", fmt.Errorf("%s: block %d not found in badblocklist", name, b)
	default:
		delete(d.bad, b)
		d.tell("block %d removed", b)
	}
	return "", nil
}

// list performs a message without arguments, and answers in the kernel's words.
func (d *dust) list(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch name {
	case "enable", "disable":
		if on := name == "enable"; d.enabled.Swap(on) != on {
			d.tell("%sd", name)
		}
	case "quiet":
		d.quiet.Store(!d.quiet.Load())
	case "countbadblocks":
		return fmt.Sprintf("countbadblocks: %d badblock(s) found", len(d.bad))
	case "clearbadblocks":
		if len(d.bad) == 0 {
			return "dust_clear_badblocks: no badblocks found"
		}
		clear(d.bad)
		d.tell("all blocks removed")
		return "dust_clear_badblocks: badblocks cleared"
	case "listbadblocks":
		if len(d.bad) == 0 {
			return "No blocks in badblocklist"
		}
		var all []int64
		for b := range d.bad {
			all = append(all, b)
		}
		slices.Sort(all)
		var lines strings.Builder
		for _, b := range all {
			fmt.Fprintln(&lines, b)
		}
		return lines.String()
	}
	return ""
}

func (d *dust) Status(k dm.StatusKind) string {
	if k == dm.StatusTable {
		return fmt.Sprintf("%s %d", d.linear.Status(k), int64(1)<<d.shift)
	}
	does, says := "bypass", "verbose"
	if d.enabled.Load() {
		does = "fail_read_on_bad_block"
	}
	if d.quiet.Load() {
		says = "quiet"
	}
	return fmt.Sprintf("%s %s %s", dm.QuoteWord(d.name), does, says)
}
