package dm

import (
	"context"
	"errors"
	"fmt"

	"keyway/block"
)

// What a target may do beyond mapping requests, found by type assertion.
type (
	// A Messenger takes messages: one at a time, and none while the table
	// changes. Requests go on meanwhile. The answer is text, or "".
	Messenger interface {
		Message(ctx context.Context, words []string) (string, error)
	}

	// A Pauser keeps requests back on purpose. Pause is called before its
	// device waits for them to end, and makes it let go of them at once and
	// keep none until Unpause. Either may be called again, as if once.
	Pauser interface {
		Pause()
		Unpause()
	}

	// A Readier may lack what requests need. Ready is called before its device
	// goes on after a suspension with the same table; an error refuses that.
	Readier interface{ Ready() error }

	// A Syncer makes durable itself what has been written, for a suspension: it may
	// know better than its devices, one by one, what is safe. Sync is called when no
	// request is under way, after Pause. The devices of other targets are flushed.
	Syncer interface {
		Sync(ctx context.Context) error
	}

	// A CryptoDecliner is of a type that passes contexts, but some of its kind
	// do not.
	CryptoDecliner interface{ DeclinesCrypto() bool }
)

// Message gives words to the target whose row holds the sector of the live
// table, and returns its answer.
func (m *Mapped) Message(ctx context.Context, sector int64, words []string) (string, error) {
	if len(words) == 0 {
		return "", errors.New("a message needs a word")
	}
	if err := m.lock(ctx); err != nil {
		return "", err
	}
	defer m.unlock()
	t := m.live.Load()
	switch {
	case t == nil:
		return "", fmt.Errorf("message to %q: %w", m.Name(), ErrNoTable)
	case sector < 0 || sector >= t.Size()>>sectorShift:
		return "", fmt.Errorf("device %q has no sector %d", m.Name(), sector)
	}
	i := t.find(sector << sectorShift)
	target, ok := t.rows[i].target.(Messenger)
	if !ok {
		return "", fmt.Errorf("table row %d: %s: takes no messages", i+1, t.rows[i].typ.Name)
	}
	answer, err := target.Message(ctx, words)
	if err != nil {
		return "", fmt.Errorf("table row %d: %s: %w", i+1, t.rows[i].typ.Name, err)
	}
	return answer, nil
}

func (t *Table) pause() {
	for i := range t.rows {
		if p, ok := t.rows[i].target.(Pauser); ok {
			p.Pause()
		}
	}
}

func (t *Table) unpause() {
	for i := range t.rows {
		if p, ok := t.rows[i].target.(Pauser); ok {
			p.Unpause()
		}
	}
}

// ready asks all targets that may not be.
func (t *Table) ready() error {
	for i := range t.rows {
		if r, ok := t.rows[i].target.(Readier); ok {
			if err := r.Ready(); err != nil {
				return fmt.Errorf("table row %d: %s: %w", i+1, t.rows[i].typ.Name, err)
			}
		}
	}
	return nil
}

// drain closes the gate and waits until nobody is inside; what targets keep
// back on purpose they let go of. If ctx ends first the error says where the
// requests are that it waited for, and all is as before.
func (m *Mapped) drain(ctx context.Context) error {
	t := m.live.Load() // stays live: the caller has the token
	if t != nil {
		t.pause()
	}
	err := m.gate.Close(ctx)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", m.holdup(), err) // while nobody else comes in
	if !m.suspended.Load() {
		m.gate.Open()
		if t != nil {
			t.unpause()
		}
	}
	return err
}

// Distinct returns the devices of spans, each once however often it was opened.
func Distinct(spans []block.Span) []block.Device {
	var all []block.Device
	seen := map[any]bool{}
	for _, s := range spans {
		if id := identity(s.Dev); !seen[id] {
			seen[id] = true
			all = append(all, s.Dev)
		}
	}
	return all
}
