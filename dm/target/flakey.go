package target

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "flakey", Features: dm.PassesCrypto | dm.TakesFlush,
		Usage: "<device> <start sector> <up seconds> <down seconds> [<number of words> [error_reads] [drop_writes | error_writes] " +
			"[corrupt_bio_byte <nth byte> r|w <value> <request flags>] [random_read_corrupt <of 10^9>] [random_write_corrupt <of 10^9>] " +
			"[corrupt_ciphertext]]",
		New: newFlakey,
	})
}

// certain is a probability of one, as tables write it.
const certain = 1_000_000_000

// flakey is linear while it is up; while it is down it loses, fails or
// corrupts requests.
//
// It corrupts what passes it, and never takes a context away: above an inline
// engine that is plaintext, and the engine encrypts the corrupted bytes; where
// the fallback serves a key it is ciphertext. With corrupt_ciphertext, a word
// that the kernel does not have, it declines contexts, so that it is always
// ciphertext (dm-fscrypt.md, invariants 4 and 5).
type flakey struct {
	linear
	up, down uint64 // seconds
	since    time.Time

	errorReads, dropWrites, errorWrites bool

	nth   uint64 // byte to overwrite in each request, from 1; 0: none
	write bool   // it is overwritten in writes, not in reads
	value byte
	flags uint64 // requests without all of these are left alone

	readRate, writeRate uint64 // of certain: a byte at random changes

	ciphertext bool

	raise   func(string)
	sawDown atomic.Bool // what the last request met
}

func newFlakey(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	f := &flakey{linear: linear{name: a.String("device"), start: a.Sectors("start"), length: b.Len()}, since: time.Now(), raise: b.Raise}
	f.up = upTo32Bits(a, "up interval, in seconds", 0)
	f.down = upTo32Bits(a, "down interval, in seconds", 0)
	if sum := f.up + f.down; a.Err() == nil && (sum == 0 || sum > math.MaxUint32) {
		a.Fail("down interval, in seconds", fmt.Errorf("up and down together are %d seconds, not 1 to %d", sum, uint32(math.MaxUint32)))
	}
	f.features(a)
	if err := a.End(); err != nil {
		return nil, err
	}
	if f.nth == 0 && f.readRate == 0 && f.writeRate == 0 && !f.errorReads && !f.dropWrites && !f.errorWrites {
		f.errorReads, f.errorWrites = true, true
	}
	var err error
	f.Device, err = b.OpenSpan(f.name, f.start, f.length)
	return f, err
}

// upTo32Bits takes a number as large as the kernel takes it.
func upTo32Bits(a *dm.Args, what string, low uint64) uint64 {
	n := a.Uint(what)
	if a.Err() == nil && (n < low || n > math.MaxUint32) {
		a.Fail(what, fmt.Errorf("%d is not from %d to %d", n, low, uint32(math.MaxUint32)))
	}
	return n
}

// features reads the optional words.
func (f *flakey) features(a *dm.Args) {
	if a.Rest() == 0 {
		return
	}
	n := a.Int("number of feature words", 0, 12)
	end := a.Rest() - n
	if end < 0 {
		a.Fail("number of feature words", fmt.Errorf("%d, but %d words follow", n, a.Rest()))
	}
	for a.Err() == nil && a.Rest() > end {
		word := strings.ToLower(a.String("feature"))
		if need := map[string]int{"corrupt_bio_byte": 4, "random_read_corrupt": 1, "random_write_corrupt": 1}[word]; a.Rest()-end < need {
			a.Fail("feature", fmt.Errorf("%s takes %d words, and %d are left of the group", word, need, a.Rest()-end))
			return
		}
		once := func(set *bool) {
			if *set {
				a.Fail("feature", fmt.Errorf("%s is there twice", word))
			}
			*set = true
		}
		switch word {
		case "error_reads":
			once(&f.errorReads)
		case "drop_writes":
			once(&f.dropWrites)
		case "error_writes":
			once(&f.errorWrites)
		case "corrupt_ciphertext":
			once(&f.ciphertext)
		case "corrupt_bio_byte":
			f.nth = upTo32Bits(a, "which byte", 1)
			switch dir := strings.ToLower(a.String("direction")); {
			case a.Err() != nil:
			case dir != "r" && dir != "w":
				a.Fail("direction", fmt.Errorf("%q is not r or w", dir))
			default:
				f.write = dir == "w"
			}
			f.value = byte(a.Int("value of the byte", 0, 255))
			f.flags = upTo32Bits(a, "request flags", 0)
		case "random_read_corrupt":
			f.readRate = uint64(a.Int("probability", 0, certain))
		case "random_write_corrupt":
			f.writeRate = uint64(a.Int("probability", 0, certain))
		default:
			a.Fail("feature", fmt.Errorf("no feature %q", word))
		}
		switch {
		case f.dropWrites && f.errorWrites:
			a.Fail("feature", errors.New("drop_writes and error_writes exclude each other"))
		case (f.dropWrites || f.errorWrites) && f.write:
			a.Fail("feature", errors.New("writes that are dropped or failed cannot be corrupted"))
		}
	}
}

// DeclinesCrypto makes the table encrypt above.
func (f *flakey) DeclinesCrypto() bool { return f.ciphertext }

// isDown reports whether faults are due; the first interval is up.
func (f *flakey) isDown() bool {
	return f.down != 0 && uint64(time.Since(f.since)/time.Second)%(f.up+f.down) >= f.up
}

// Map tells where r goes, if it goes anywhere now.
func (f *flakey) Map(r *block.Request) (block.Device, error) { return f.mapAs(f.isDown(), r) }

func (f *flakey) mapAs(down bool, r *block.Request) (block.Device, error) {
	switch {
	case down && (r.Op == block.OpRead && f.errorReads || r.Op != block.OpRead && f.errorWrites):
		return nil, block.ErrIO
	case down && r.Op != block.OpRead && f.dropWrites:
		return nil, nil
	case r.Op == block.OpFlush:
		return f.Device, nil
	}
	return f.linear.Map(r)
}

// Explain says in which interval it is.
func (f *flakey) Explain(int64) string {
	if f.isDown() {
		return "down: " + strings.Join(f.words(), " ")
	}
	return "up"
}

// Do also gets flushes, which are writes as far as faults go.
func (f *flakey) Do(ctx context.Context, r block.Request) error {
	down := f.isDown()
	if f.sawDown.Load() != down {
		f.tell(down)
	}
	dev, err := f.mapAs(down, &r)
	switch {
	case dev == nil || err != nil:
		return err
	case !down:
	case r.Op == block.OpRead:
		if err := dev.Do(ctx, r); err != nil {
			return err
		}
		if f.nth != 0 && !f.write && f.matches(r) {
			overwrite(r.Data, int64(f.nth-1), f.value)
		}
		if by(f.readRate) {
			overwrite(r.Data, rand.Int64N(max(r.Len, 1)), byte(rand.Uint32()))
		}
		return nil
	case r.Op == block.OpWrite:
		fixed, random := f.nth != 0 && f.write && f.matches(r), by(f.writeRate)
		if !fixed && !random {
			break
		}
		// The writer's data stays as it is, so the corrupted bytes are a copy;
		// all else about the request, the context above all, is the writer's.
		data := make([]byte, r.Len)
		r.Data.CopyTo(data)
		r.Data = block.Bytes(data)
		if fixed {
			overwrite(r.Data, int64(f.nth-1), f.value)
		}
		if random {
			overwrite(r.Data, rand.Int64N(max(r.Len, 1)), byte(rand.Uint32()))
		}
		r.Flags &^= block.Shared
	}
	return dev.Do(ctx, r)
}

// tell raises an event at the first request of an interval.
func (f *flakey) tell(down bool) {
	switch {
	case !f.sawDown.CompareAndSwap(!down, down):
	case down:
		f.raise("down: " + strings.Join(f.words(), " "))
	default:
		f.raise("up")
	}
}

// Flags of requests as the mask of corrupt_bio_byte has them: bits of bi_opf
// in Linux 6.12. Others that it may ask for no request of ours has.
const (
	opfWrite  = 1 << 0
	opfFUA    = 1 << 17
	opfNoWait = 1 << 21
)

func (f *flakey) matches(r block.Request) bool {
	var have uint64
	if r.Op == block.OpWrite {
		have |= opfWrite
	}
	if r.Flags&block.FUA != 0 {
		have |= opfFUA
	}
	if r.NoWait() {
		have |= opfNoWait
	}
	return have&f.flags == f.flags
}

// by is true as often as rate says.
func by(rate uint64) bool { return rate != 0 && rand.Uint64N(certain) < rate }

// overwrite sets one byte of data, if data reaches that far.
func overwrite(data block.Segments, at int64, value byte) {
	if at < int64(data.Len()) {
		data.Slice(int(at), 1).Front()[0] = value
	}
}

func (f *flakey) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	words := f.words()
	return strings.Join(append([]string{f.linear.Status(k), fmt.Sprint(f.up), fmt.Sprint(f.down), fmt.Sprint(len(words))}, words...), " ")
}

// words are the features as the table has them.
func (f *flakey) words() (words []string) {
	for _, w := range []struct {
		is   bool
		text string
	}{
		{f.errorReads, "error_reads"},
		{f.dropWrites, "drop_writes"},
		{f.errorWrites, "error_writes"},
		{f.nth != 0, fmt.Sprintf("corrupt_bio_byte %d %s %d %d", f.nth, map[bool]string{false: "r", true: "w"}[f.write], f.value, f.flags)},
		{f.readRate != 0, fmt.Sprintf("random_read_corrupt %d", f.readRate)},
		{f.writeRate != 0, fmt.Sprintf("random_write_corrupt %d", f.writeRate)},
		{f.ciphertext, "corrupt_ciphertext"},
	} {
		if w.is {
			words = append(words, strings.Fields(w.text)...)
		}
	}
	return words
}
