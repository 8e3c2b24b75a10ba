package dm_test

import (
	"context"
	"crypto/aes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
)

// errScriptFault is what a call answers after "fault".
var errScriptFault = errors.New("the controller does not answer")

// A scriptEngine stands before an engine, and its disk: calls of it stand
// still or fail when the script says so, and it sees what is in the registers.
type scriptEngine struct {
	name    string
	manager *keyslot.Manager // nil: the disk has no engine
	inner   keyslot.Engine
	lose    func()

	registersMu sync.RWMutex // writing: while program and evict change a slot

	mu     sync.Mutex
	gates  map[string]chan struct{} // of calls that stand still, by kind
	held   int                      // calls that do
	faults map[string]bool

	reserved atomic.Int64 // keys for which memory is kept
}

func newScriptEngine(name string) *scriptEngine {
	return &scriptEngine{name: name, gates: map[string]chan struct{}{}, faults: map[string]bool{}}
}

// over returns the engine that the manager gets.
func (e *scriptEngine) over(inner keyslot.Engine) keyslot.Engine {
	e.inner = inner
	switch inner := inner.(type) {
	case *emul.Engine:
		e.lose = inner.Lose
		return &scriptController{inner, e}
	case *soft.Engine:
		e.lose = func() {
			for slot := range inner.Slots() {
				if err := inner.Evict(slot); err != nil {
					panic(err)
				}
			}
		}
		return &scriptSoft{inner, e}
	}
	panic("an engine that scripts do not know")
}

// enter is where a call stands still, or fails.
func (e *scriptEngine) enter(kind string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if gate := e.gates[kind]; gate != nil {
		e.held++
		e.mu.Unlock()
		<-gate
		e.mu.Lock()
		e.held--
	}
	if e.faults[kind] {
		return errScriptFault
	}
	return nil
}

func (e *scriptEngine) stall(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gates[kind] == nil {
		e.gates[kind] = make(chan struct{})
	}
}

// release lets the calls of a kind go on, of all kinds if it is "".
func (e *scriptEngine) release(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, gate := range e.gates {
		if k == kind || kind == "" {
			close(gate)
			delete(e.gates, k)
		}
	}
}

func (e *scriptEngine) stalled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held
}

func (e *scriptEngine) setFault(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if kind == "none" {
		clear(e.faults)
		return
	}
	e.faults[kind] = true
}

func (e *scriptEngine) stats() keyslot.Stats {
	if e.manager == nil {
		return keyslot.Stats{}
	}
	return e.manager.Stats()
}

// change calls a function that changes the registers.
func (e *scriptEngine) change(kind string, f func() error) error {
	if err := e.enter(kind); err != nil {
		return err
	}
	e.registersMu.Lock()
	defer e.registersMu.Unlock()
	return f()
}

// registers says which of the script's keys each keyslot of the engine encrypts
// with, found by encrypting, whatever the books of the manager say.
func (e *scriptEngine) registers(w *scriptWorld) map[int]string {
	w.keyMu.RLock()
	defer w.keyMu.RUnlock()
	return e.registersOf(w.keys)
}

func (e *scriptEngine) registersOf(keys map[string]*scriptKey) map[int]string {
	e.registersMu.RLock()
	defer e.registersMu.RUnlock()
	const unit = 4096 // whole units of all keys that scripts use
	dun := blkcrypto.DUN64(77)
	found := map[int]string{}
	for slot := range e.inner.Slots() {
		got := make([]byte, unit)
		if e.inner.Crypt(slot, keyslot.Encrypt, dun, block.Bytes(got), block.Bytes(make([]byte, unit))) != nil {
			continue // not enabled
		}
		var names []string
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			want := make([]byte, unit)
			keys[name].reference(want, dun, unit)
			if string(got[:aes.BlockSize]) == string(want[:aes.BlockSize]) {
				names = append(names, name)
			}
		}
		if names == nil {
			names = []string{"a key of nobody"}
		}
		found[slot] = strings.Join(names, "=")
	}
	return found
}

// A scriptController is an emulated one under a script's thumb.
type scriptController struct {
	*emul.Engine
	e *scriptEngine
}

func (c *scriptController) Program(slot int, cfg blkcrypto.Config, key []byte) error {
	return c.e.change("program", func() error { return c.Engine.Program(slot, cfg, key) })
}

func (c *scriptController) Evict(slot int) error {
	return c.e.change("evict", func() error { return c.Engine.Evict(slot) })
}

func (c *scriptController) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if err := c.e.enter("crypt"); err != nil {
		return err
	}
	return c.Engine.Crypt(slot, d, dun, dst, src)
}

func (c *scriptController) CryptKey(cfg blkcrypto.Config, key []byte, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if err := c.e.enter("crypt"); err != nil {
		return err
	}
	return c.Engine.CryptKey(cfg, key, d, dun, dst, src)
}

// A scriptSoft is the software engine likewise.
type scriptSoft struct {
	*soft.Engine
	e *scriptEngine
}

func (s *scriptSoft) Program(slot int, cfg blkcrypto.Config, key []byte) error {
	return s.e.change("program", func() error { return s.Engine.Program(slot, cfg, key) })
}

func (s *scriptSoft) Evict(slot int) error {
	return s.e.change("evict", func() error { return s.Engine.Evict(slot) })
}

func (s *scriptSoft) Crypt(slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src block.Segments) error {
	if err := s.e.enter("crypt"); err != nil {
		return err
	}
	return s.Engine.Crypt(slot, d, dun, dst, src)
}

// Reserve counts who wants memory to be kept, and keeps it.
func (s *scriptSoft) Reserve(m blkcrypto.Mode) (func(), error) {
	release, err := s.Engine.Reserve(m)
	if err != nil {
		return nil, err
	}
	s.e.reserved.Add(1)
	return func() { release(); s.e.reserved.Add(-1) }, nil
}

// cmdKeyslots prints a line for each keyslot that holds something by the
// manager's books or in truth. They differ only after a fault.
func cmdKeyslots(w *scriptWorld, a *scriptArgs) scriptDo {
	e := w.engine(a)
	return func(context.Context) (string, error) {
		books := map[int][]string{}
		for _, r := range e.manager.Residents() {
			line := r.Key
			if r.Quarantined != "" {
				line += " in quarantine (" + r.Quarantined + ")"
			}
			books[r.Slot] = append(books[r.Slot], line)
		}
		truth := e.registers(w)
		var out strings.Builder
		for slot := range max(e.inner.Slots(), 1) {
			if e.inner.Slots() == 0 {
				slot = -1
			}
			if books[slot] == nil && truth[slot] == "" {
				continue
			}
			fmt.Fprintf(&out, "keyslot %d: %s; registers: %s\n", slot, orNothing(strings.Join(books[slot], " and ")), orNothing(truth[slot]))
		}
		if out.Len() == 0 {
			out.WriteString("no keys\n")
		}
		if n := e.reserved.Load(); n > 0 {
			fmt.Fprintf(&out, "memory in reserve for %d keys\n", n)
		}
		return out.String(), nil
	}
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
