package dm_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/dm"
)

// The commands that look, and those that wait.

func cmdAwait(w *scriptWorld, a *scriptArgs) scriptDo {
	name, what := a.next("what to look at"), a.next("what it should come to")
	if what == "evicting" {
		k := w.live(&scriptArgs{a.ts, []string{name}})
		return func(context.Context) (string, error) { return "", until("an eviction begins", k.Evicted) }
	}
	self := &scriptArgs{a.ts, []string{name}}
	if what == "closing" {
		m := w.device(self)
		return func(context.Context) (string, error) {
			return "", until("a suspension begins", func() bool {
				x, _ := m.Explain(dm.Question{})
				return len(x.Waits) > 0 && x.Waits[0] == m.Name()
			})
		}
	}
	if what == "shows" {
		m, text := w.device(self), a.next("a text")
		return func(context.Context) (string, error) {
			return "", until(text+" in its status", func() bool { return strings.Contains(m.TableText(false, dm.StatusInfo), text) })
		}
	}
	n := a.number("how many")
	var get func() int64
	switch what {
	case "stalled":
		e := w.stallPlace(self)
		get = func() int64 { return int64(e.stalled()) }
	case "queued":
		e := w.engine(self)
		get = func() int64 { return int64(e.manager.Stats().Waits) }
	case "inside":
		m := w.device(self)
		get = func() int64 { return m.State().Inside }
	case "waiting":
		m := w.device(self)
		get = func() int64 { return m.State().Waiting }
	case "inuse":
		k := w.live(self)
		get = k.InUse
	default:
		a.ts.Fatalf("await %q?", what)
	}
	return func(context.Context) (string, error) {
		return "", until(fmt.Sprintf("%s %s %d", name, what, n), func() bool { return get() == n })
	}
}

func cmdState(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(context.Context) (string, error) {
		s := m.State()
		words := []string{"active"}
		if s.Suspended {
			words[0] = "suspended"
		}
		for word, is := range map[string]bool{"live": s.Live, "inactive": s.Inactive} {
			if !is {
				word = "no-" + word
			}
			words = append(words, word)
		}
		if words[1] > words[2] {
			words[1], words[2] = words[2], words[1]
		}
		if s.ReadOnly {
			words = append(words, "readonly")
		}
		if s.DeferredRemove {
			words = append(words, "deferred-remove")
		}
		return fmt.Sprintf("%s sectors=%d inside=%d waiting=%d open=%d\n", strings.Join(words, " "), s.Size>>9, s.Inside, s.Waiting, s.Open), nil
	}
}

func cmdTable(w *scriptWorld, a *scriptArgs) scriptDo {
	m, inactive := w.device(a), a.flag("inactive")
	return func(context.Context) (string, error) { return m.TableText(inactive, dm.StatusTable), nil }
}

// cmdProfile prints the configs that the device serves natively, one a line:
// mode/key type/data unit/DUN bytes.
func cmdProfile(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(context.Context) (string, error) {
		p := m.Info().Crypto
		return strings.ReplaceAll(p.String(), " ", "\n") + "\n", nil
	}
}

// cmdSample asks for the profile again and again, until it has seen so many
// different ones and has asked a hundred times, and prints them.
func cmdSample(w *scriptWorld, a *scriptArgs) scriptDo {
	m, want := w.device(a), a.number("how many")
	return func(context.Context) (string, error) {
		seen := map[string]bool{}
		asked := 0
		err := until("so many profiles", func() bool {
			p := m.Info().Crypto
			seen[p.String()] = true
			asked++
			return asked >= 100 && int64(len(seen)) >= want
		})
		return strings.Join(slices.Sorted(maps.Keys(seen)), "\n") + "\n", err
	}
}

// cmdEvents prints what has happened to the device since it was last asked.
func cmdEvents(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(context.Context) (string, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		out := strings.Join(w.events[m], "\n") + "\n"
		delete(w.events, m)
		return out, nil
	}
}

func cmdWatch(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	n := m.Event()
	return func(ctx context.Context) (string, error) {
		now, err := m.Wait(ctx, n)
		return fmt.Sprintln(now - n), err
	}
}

func cmdWarnings(w *scriptWorld, _ *scriptArgs) scriptDo {
	return func(context.Context) (string, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		out := strings.Join(w.warnings, "\n") + "\n"
		w.warnings = nil
		return out, nil
	}
}

// cmdExplain prints who does what to a request, a line for each device.
func cmdExplain(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	q := dm.Question{Sector: a.number("a sector"), Write: a.flag("write"), Marked: a.flag("marked")}
	if name, ok := a.option("key"); ok {
		q.Key = w.live(&scriptArgs{a.ts, []string{name}})
		if n, ok := a.option("dun"); ok {
			d := scriptDUN(a, n)
			q.DUN = &d
		}
	}
	return func(context.Context) (string, error) {
		x, err := m.Explain(q)
		if err != nil {
			return "", err
		}
		var out strings.Builder
		for _, s := range x.Steps {
			fmt.Fprintf(&out, "%s: ", s.Device)
			if c := s.Adds; c != nil {
				fmt.Fprintf(&out, "target %s adds key %s, DUN %s; ", s.Target, c.Key, dunText(c.DUN))
			}
			switch d := s.Decision; {
			case d == nil:
				fmt.Fprintf(&out, "row %d, target %s", s.Row, s.Target)
			case d.By == dm.ByBeneath:
				fmt.Fprintf(&out, "passed on, DUN %s", dunText(s.Carries.DUN))
			default:
				fmt.Fprintf(&out, "%s %s, %s", d.By, d.Engine, d.State)
				if d.Why != "" {
					fmt.Fprintf(&out, ": because %s [%s]", d.Why, d.Reason)
				}
			}
			out.WriteByte('\n')
		}
		for _, name := range x.Waits {
			fmt.Fprintf(&out, "waits for the resume of %s\n", name)
		}
		if x.Fails != nil {
			fmt.Fprintf(&out, "fails: %v\n", x.Fails)
		}
		if x.Medium != nil {
			fmt.Fprintf(&out, "medium: %s, sector %d\n", x.Medium.Device, x.Medium.Off>>9)
		}
		return out.String(), nil
	}
}

func dunText(d blkcrypto.DUN) string {
	if d[1]|d[2]|d[3] == 0 {
		return fmt.Sprint(d[0])
	}
	return fmt.Sprintf("%#x %#x %#x %#x", d[3], d[2], d[1], d[0])
}
