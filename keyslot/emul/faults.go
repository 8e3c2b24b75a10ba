package emul

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyway/keyslot"
)

// A call is one of those that can be made to fail.
type call int

const (
	program call = iota
	evict
	crypt
	calls // how many
)

func (c call) String() string { return [calls]string{"program", "evict", "crypt"}[c] }

// A fault is how a kind of call fails: the next so many, then some of the rest.
type fault struct {
	next uint64
	rate float64 // from 0 to 1
}

func (f fault) String() string {
	switch {
	case f.next > 0:
		return fmt.Sprintf("next %d", f.next)
	case f.rate > 0:
		return strconv.FormatFloat(f.rate, 'g', -1, 64)
	}
	return "none"
}

// Fail makes every call answer err until Fail is called with nil: a controller
// that is gone.
func (e *Engine) Fail(err error) {
	e.dice.Lock()
	defer e.dice.Unlock()
	e.down = err
}

// attempt waits for delay and throws the dice.
func (e *Engine) attempt(c call, delay time.Duration) error {
	if delay > 0 {
		time.Sleep(delay)
	}
	e.dice.Lock()
	defer e.dice.Unlock()
	if e.down != nil {
		return e.down
	}
	f := &e.faults[c]
	if f.next > 0 {
		f.next--
		return ErrInjected
	}
	if f.rate > 0 && e.dice.Float64() < f.rate {
		return ErrInjected
	}
	return nil
}

var _ keyslot.Messenger = (*Engine)(nil)

// Usages are the messages of the engine, beside those of its manager.
func (e *Engine) Usages() []string { return []string{"fail program|evict|crypt COUNT|RATE"} }

// Message sets a fault: "fail evict 3" makes the next three evictions fail, "fail
// crypt 0.01" every hundredth request, 1.0 all, 0 none. It replaces what the options
// or an earlier message said of these calls.
func (e *Engine) Message(words []string) (string, error) {
	if len(words) != 3 {
		return "", fmt.Errorf("fail takes a call and how many of it fail: %s", e.Usages()[0])
	}
	c := call(slices.Index([]string{program.String(), evict.String(), crypt.String()}, words[1]))
	switch {
	case c < 0:
		return "", fmt.Errorf("fail: no call %q (there are: program, evict, crypt)", words[1])
	case c != crypt && e.Slots() == 0:
		return "", fmt.Errorf("fail: the engine has no keyslots to %v: only crypt can fail", c)
	}
	f, err := parseFault(words[2])
	if err != nil {
		return "", err
	}
	e.dice.Lock()
	defer e.dice.Unlock()
	e.faults[c] = f
	return fmt.Sprintf("fail %v %v", c, f), nil
}

// parseFault reads a count, which is a whole number, or a rate, which has a point.
func parseFault(text string) (f fault, err error) {
	if !strings.Contains(text, ".") {
		if f.next, err = strconv.ParseUint(text, 10, 32); err == nil {
			return f, nil
		}
	} else if f.rate, err = strconv.ParseFloat(text, 64); err == nil && f.rate >= 0 && f.rate <= 1 && !math.Signbit(f.rate) {
		return f, nil
	}
	return fault{}, fmt.Errorf("fail: %q is neither a number of calls (3) nor a rate from 0.0 to 1.0", text)
}

// Status tells which calls fail.
func (e *Engine) Status() string {
	e.dice.Lock()
	defer e.dice.Unlock()
	if e.Slots() == 0 {
		return fmt.Sprintf("fail crypt %v", e.faults[crypt])
	}
	return fmt.Sprintf("fail program %v, evict %v, crypt %v", e.faults[program], e.faults[evict], e.faults[crypt])
}
