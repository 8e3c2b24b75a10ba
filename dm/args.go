package dm

import (
	"fmt"
	"strconv"
	"strings"
)

// sectorShift is log2 of the sector of table text, in bytes.
const sectorShift = 9

// Args is a cursor over the arguments of a row. The first error wins and is
// returned by End; until then the methods return zero values.
type Args struct {
	target string
	words  []string
	next   int
	err    error
}

// fail records that the argument last taken is wrong.
func (a *Args) fail(what, format string, v ...any) {
	if a.err == nil {
		a.err = fmt.Errorf("%s: argument %d (%s): %s", a.target, a.next, what, fmt.Sprintf(format, v...))
	}
}

// Fail records that the argument last taken, called what, is wrong.
func (a *Args) Fail(what string, err error) { a.fail(what, "%v", err) }

// FailAt records that argument n, from 1, called what, is wrong: for what is known
// only after others have been read.
func (a *Args) FailAt(n int, what string, err error) {
	if a.err == nil {
		a.err = fmt.Errorf("%s: argument %d (%s): %w", a.target, n, what, err)
	}
}

// String takes the next argument; what says what it should be.
func (a *Args) String(what string) string {
	if a.err != nil {
		return ""
	}
	a.next++
	if a.next > len(a.words) {
		a.fail(what, "missing")
		return ""
	}
	return a.words[a.next-1]
}

// Uint takes a decimal number.
func (a *Args) Uint(what string) uint64 {
	s := a.String(what)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && a.err == nil {
		a.fail(what, "%q is not a number", s)
	}
	return n
}

// Int takes a decimal number from low to high.
func (a *Args) Int(what string, low, high int) int {
	n := a.Uint(what)
	if a.err == nil && (n < uint64(low) || n > uint64(high)) {
		a.fail(what, "%d is not from %d to %d", n, low, high)
	}
	return int(n)
}

// Sectors takes a number of 512-byte sectors and returns bytes.
func (a *Args) Sectors(what string) int64 {
	n := a.Uint(what + ", in sectors")
	if a.err == nil && n >= 1<<(63-sectorShift) {
		a.fail(what+", in sectors", "%d is beyond 2^63 bytes", n)
	}
	return int64(n << sectorShift)
}

// Rest is the number of arguments not yet taken.
func (a *Args) Rest() int { return max(len(a.words)-a.next, 0) }

// Options takes an optional group: a count and that many words. Each word
// goes to use as name and value, split at the first colon; use returns an
// error for one that it does not know.
func (a *Args) Options(limit int, use func(name, value string) error) {
	if a.err != nil || a.Rest() == 0 {
		return
	}
	n := a.Int("number of options", 0, limit)
	if a.err == nil && n > a.Rest() {
		a.fail("number of options", "%d, but %d words follow", n, a.Rest())
	}
	for range n {
		word := a.String("option")
		name, value, _ := strings.Cut(word, ":")
		if a.err != nil {
			return
		}
		if err := use(name, value); err != nil {
			a.Fail("option", err)
		}
	}
}

// Err is the first error so far.
func (a *Args) Err() error { return a.err }

// End names the argument that was bad, or the first surplus one.
func (a *Args) End() error {
	if a.err == nil && a.Rest() > 0 {
		a.err = fmt.Errorf("%s: surplus argument %d: %q", a.target, a.next+1, a.words[a.next])
	}
	return a.err
}
