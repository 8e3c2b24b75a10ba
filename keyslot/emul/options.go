package emul

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/nearest"
)

// A Spec is the text form of an engine: KIND[?OPTION=VALUE&...].
type Spec struct {
	Kind    string
	Options Options // without Hardware: the profile says whether it is wanted

	// ResetEvery is the time between resets of the controller; 0: none come by
	// themselves. Whoever has the manager carries them out.
	ResetEvery time.Duration
}

// Kinds are the controllers that are known, with what they have (blkcrypto.md,
// section 7.11). All of it can be set otherwise.
func Kinds() []string { return []string{"ufs", "cqhci", "fmp"} }

type limits struct {
	modes    []blkcrypto.Mode
	units    []int
	dunBytes int
	types    []blkcrypto.KeyType
}

func kind(name string) (slots int, l limits, ok bool) {
	l = limits{modes: []blkcrypto.Mode{blkcrypto.AES256XTS}, units: []int{512, 4096}, types: []blkcrypto.KeyType{blkcrypto.Raw}}
	switch name {
	case "ufs":
		slots, l.dunBytes, l.types = 32, 8, append(l.types, blkcrypto.HWWrapped)
	case "cqhci":
		slots, l.dunBytes = 16, 4
	case "fmp":
		slots, l.dunBytes, l.units = 0, 16, []int{4096}
	default:
		return 0, l, false
	}
	return slots, l, true
}

// OptionNames are the options that Parse knows.
var OptionNames = []string{
	"slots", "modes", "units", "dun-bytes", "keys", "program-delay", "evict-delay", "request-delay",
	"fail-program", "fail-evict", "fail-request", "seed", "reset-every",
}

// ParseSpec reads a spec. Several values of modes, units and keys are separated by
// commas: "ufs?slots=4&units=512,1024&keys=raw&program-delay=2ms&fail-program=0.01".
func ParseSpec(text string) (Spec, error) {
	name, query, _ := strings.Cut(text, "?")
	s := Spec{Kind: name}
	slots, l, ok := kind(name)
	if !ok {
		return s, fmt.Errorf("engine %q is none of %s", name, strings.Join(Kinds(), ", "))
	}
	s.Options.Slots = slots
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(value)
		if err == nil {
			err = s.set(&l, key, value)
		}
		if err != nil {
			return s, fmt.Errorf("engine %q: option %q: %w", name, key, err)
		}
	}
	return s, l.fill(&s.Options.Profile)
}

func (s *Spec) set(l *limits, key, value string) (err error) {
	o := &s.Options
	switch key {
	case "slots":
		o.Slots, err = number(value, 0, 65536)
	case "dun-bytes":
		l.dunBytes, err = number(value, 1, blkcrypto.MaxDUNBytes)
	case "modes":
		l.modes, err = each(value, blkcrypto.ParseMode)
	case "units":
		l.units, err = each(value, func(v string) (int, error) {
			n, err := strconv.Atoi(v)
			if err != nil || !slices.Contains(blkcrypto.UnitSizes(), n) {
				return 0, fmt.Errorf("%q is not one of %v", v, blkcrypto.UnitSizes())
			}
			return n, nil
		})
	case "keys":
		l.types, err = each(value, func(v string) (blkcrypto.KeyType, error) {
			switch v {
			case "raw":
				return blkcrypto.Raw, nil
			case "wrapped":
				return blkcrypto.HWWrapped, nil
			}
			return 0, fmt.Errorf("%q is not raw or wrapped", v)
		})
	case "program-delay":
		o.ProgramDelay, err = delay(value)
	case "evict-delay":
		o.EvictDelay, err = delay(value)
	case "request-delay":
		o.RequestDelay, err = delay(value)
	case "reset-every":
		s.ResetEvery, err = delay(value)
	case "fail-program":
		o.FailProgram, err = probability(value)
	case "fail-evict":
		o.FailEvict, err = probability(value)
	case "fail-request":
		o.FailRequest, err = probability(value)
	case "seed":
		o.Seed, err = strconv.ParseUint(value, 0, 64)
		if err != nil {
			err = fmt.Errorf("%q is not a number", value)
		}
	default:
		if near := nearest.Of(key, OptionNames); near != "" {
			return fmt.Errorf("does not exist: did you mean %q?", near)
		}
		return fmt.Errorf("does not exist (known: %s)", strings.Join(OptionNames, ", "))
	}
	return err
}

func each[T any](value string, parse func(string) (T, error)) (all []T, err error) {
	for v := range strings.SplitSeq(value, ",") {
		x, err := parse(v)
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return all, nil
}

func number(value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not a number from %d to %d", value, least, most)
	}
	return n, nil
}

// maxDelay keeps a slip of the pen from hanging a device.
const maxDelay = time.Minute

func delay(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("%q is not a time from 0s to %v (2ms, 1s)", value, maxDelay)
	}
	return d, nil
}

func probability(value string) (float64, error) {
	p, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(p) || p < 0 || p > 1 {
		return 0, fmt.Errorf("%q is not a probability from 0 to 1", value)
	}
	return p, nil
}

// fill puts every combination into p. Wrapped keys derive keys for AES-256-XTS.
func (l *limits) fill(p *blkcrypto.Profile) error {
	for _, m := range l.modes {
		for _, t := range l.types {
			if t == blkcrypto.HWWrapped && m != blkcrypto.AES256XTS {
				continue
			}
			for _, u := range l.units {
				p.Add(blkcrypto.Config{Mode: m, KeyType: t, DataUnitSize: u, DUNBytes: min(l.dunBytes, m.IVSize())})
			}
		}
	}
	if p.Empty() {
		return errors.New("an engine that takes wrapped keys only needs mode AES-256-XTS")
	}
	return nil
}

// Wrapped reports whether the engine takes wrapped keys, for which it needs
// Hardware.
func (s Spec) Wrapped() bool {
	for _, c := range s.Options.Profile.Configs() {
		if c.KeyType == blkcrypto.HWWrapped {
			return true
		}
	}
	return false
}
