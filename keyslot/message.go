package keyslot

import (
	"context"
	"fmt"
	"strings"

	"keyway/internal/plural"
)

// What an engine may do beyond its calls, found by type assertion.
type (
	// A Loser is an Engine that can be made to lose its keys, as a controller
	// does in a reset. The manager calls Lose while no request uses a slot.
	Loser interface {
		Engine
		Lose()
	}

	// A Messenger is an Engine that takes messages of its own, also while it is
	// in use. Usages tells them, each with its arguments, for people; Status is
	// one line about what they changed, or "".
	Messenger interface {
		Engine
		Usages() []string
		Message(words []string) (string, error)
		Status() string
	}
)

// Message does what words say to the engine and answers in text. "status" is known
// to all managers with an engine, "reset" to those whose engine is a Loser: it
// returns when every key is in its slot again, which takes as long as the requests
// that use one. The rest is the engine's.
func (m *Manager) Message(_ context.Context, words []string) (string, error) {
	if m.engine == nil || len(words) == 0 {
		return "", fmt.Errorf("%s: takes no messages", m.Name())
	}
	loser, _ := m.engine.(Loser)
	messenger, _ := m.engine.(Messenger)
	switch word := words[0]; {
	case word == "status" || word == "reset" && loser != nil:
		if len(words) > 1 {
			return "", fmt.Errorf("%s takes no arguments", word)
		}
		if word == "status" {
			return m.status(messenger), nil
		}
		return "", m.Reset(loser.Lose)
	case messenger != nil:
		for _, u := range messenger.Usages() {
			if name, _, _ := strings.Cut(u, " "); name == word {
				return messenger.Message(words)
			}
		}
	}
	known := []string{"status"}
	if loser != nil {
		known = append(known, "reset")
	}
	if messenger != nil {
		known = append(known, messenger.Usages()...)
	}
	return "", fmt.Errorf("no message %q (there are: %s)", words[0], strings.Join(known, ", "))
}

// status is what the message asks for: a line each of the slots, of what was done
// to them, and of the engine's own.
func (m *Manager) status(own Messenger) string {
	st := m.Stats()
	var b strings.Builder
	if m.direct.engine != nil {
		fmt.Fprintf(&b, "%s: no keyslots, %s in use\nresets %d\n", m.Name(), plural.Of(st.Resident, "key"), st.Resets)
	} else {
		fmt.Fprintf(&b, "%s: %s, %d with a key, %d busy, %d quarantined\n", m.Name(), plural.Of(st.Slots, "keyslot"), st.Resident, st.Busy, st.Quarantined)
		fmt.Fprintf(&b, "programs %d, evictions %d, failures %d, waits %d, resets %d\n", st.Programs, st.Evictions, st.Failures, st.Waits, st.Resets)
	}
	if own != nil {
		fmt.Fprintln(&b, own.Status())
	}
	return b.String()
}
