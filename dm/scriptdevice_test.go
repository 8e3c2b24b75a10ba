package dm_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
)

// The commands that make devices and change them.

func cmdFallback(w *scriptWorld, a *scriptArgs) scriptDo {
	slots := a.number("slots")
	return func(context.Context) (string, error) {
		if len(w.devs) > 0 {
			return "", errors.New("too late for that")
		}
		w.setFallback(int(slots))
		return "", nil
	}
}

func cmdLeaf(w *scriptWorld, a *scriptArgs) scriptDo {
	name := a.next("a name")
	size, err := scriptSize(a.next("a size"))
	if err != nil {
		a.ts.Fatalf("%v", err)
	}
	hardware, _ := a.option("hardware")
	l := &scriptLeaf{newScriptEngine(name + "'s engine"), dmtest.NewRAM(size)}
	l.ram.Before = w.before(name, l)
	if a.flag("engine") {
		if err := w.engineOf(l.scriptEngine, a.next("an engine"), hardware); err != nil {
			a.ts.Fatalf("%v", err)
		}
	}
	return func(context.Context) (string, error) {
		m, err := dm.NewLeaf(name, dm.Leaf{Dev: l.ram, Text: "mem:" + name, Engine: l.manager, Fallback: w.fallback}, w.options())
		if err != nil {
			return "", err
		}
		w.leaves[name] = l
		w.put(name, m)
		if l.manager != nil {
			w.engines = append(w.engines, l.scriptEngine)
		}
		return "", nil
	}
}

// engineOf gives a leaf the engine that a spec describes.
func (w *scriptWorld) engineOf(e *scriptEngine, spec, hardware string) error {
	if kind, options, _ := strings.Cut(spec, "?"); kind == "cpu" {
		slots := soft.DefaultSlots
		if options != "" {
			if _, err := fmt.Sscanf(options, "slots=%d", &slots); err != nil {
				return fmt.Errorf("engine cpu: %q: want slots=N", options)
			}
		}
		e.manager = keyslot.New(e.over(soft.New(e.name, slots)))
		return nil
	}
	s, err := emul.ParseSpec(spec)
	if err != nil {
		return err
	}
	if s.Wrapped() {
		s.Options.Hardware = w.wrapping(hardware)
	}
	e.manager = keyslot.New(e.over(emul.New(e.name, s.Options)))
	return nil
}

// wrapping returns the hardware of a name, whose fuses are that name.
func (w *scriptWorld) wrapping(name string) *emul.Hardware {
	if w.hardware[name] == nil {
		fuses := make([]byte, emul.FuseSize)
		copy(fuses, name)
		h, err := emul.NewHardware(fuses)
		if err != nil {
			w.tb.Fatal(err)
		}
		w.hardware[name] = h
		w.boots = append(w.boots, h)
	}
	return w.hardware[name]
}

// cmdBoot starts the hardware of wrapped keys anew: what it prepared before is
// good no more. Disks that are made from then on have it.
func cmdBoot(w *scriptWorld, a *scriptArgs) scriptDo {
	name, _ := a.option("hardware")
	return func(context.Context) (string, error) {
		delete(w.hardware, name)
		w.wrapping(name)
		return "", nil
	}
}

func scriptSize(text string) (int64, error) {
	unit := int64(1)
	switch {
	case strings.HasSuffix(text, "K"):
		unit = 1 << 10
	case strings.HasSuffix(text, "M"):
		unit = 1 << 20
	}
	n, err := strconv.ParseInt(strings.TrimRight(text, "KM"), 10, 32)
	return n * unit, err
}

func cmdCreate(w *scriptWorld, a *scriptArgs) scriptDo {
	name, rows, readOnly := a.next("a name"), a.rows(), a.flag("readonly")
	o := w.options()
	o.Immutable = a.flag("immutable")
	return func(ctx context.Context) (string, error) {
		m := dm.New(name, o)
		if rows != nil {
			t, err := w.parse(ctx, rows, readOnly)
			if err != nil {
				return "", err
			}
			if err := m.Reload(ctx, t, dm.SuspendOptions{}); err != nil {
				return "", err
			}
		}
		w.put(name, m)
		return "", nil
	}
}

// cmdBuild is the first half of a load: the table is read, checked, and nowhere.
func cmdBuild(w *scriptWorld, a *scriptArgs) scriptDo {
	name, rows := a.next("a name"), a.rows()
	return func(ctx context.Context) (string, error) {
		t, err := w.parse(ctx, rows, false)
		w.built[name] = t
		return "", err
	}
}

func cmdLoad(w *scriptWorld, a *scriptArgs) scriptDo {
	m, rows, readOnly := w.device(a), a.rows(), a.flag("readonly")
	if name, ok := a.option("built"); ok {
		t := w.built[name]
		delete(w.built, name)
		return func(ctx context.Context) (string, error) { return "", m.Load(ctx, t) }
	}
	return func(ctx context.Context) (string, error) {
		t, err := w.parse(ctx, rows, readOnly)
		if err != nil {
			return "", err
		}
		return "", m.Load(ctx, t)
	}
}

func cmdClear(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(ctx context.Context) (string, error) { return "", m.Clear(ctx) }
}

func cmdSuspend(w *scriptWorld, a *scriptArgs) scriptDo {
	m, o := w.device(a), dm.SuspendOptions{NoFlush: a.flag("noflush")}
	return func(ctx context.Context) (string, error) { return "", m.Suspend(ctx, o) }
}

func cmdResume(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(ctx context.Context) (string, error) { return "", m.Resume(ctx) }
}

func cmdReload(w *scriptWorld, a *scriptArgs) scriptDo {
	m, rows, o := w.device(a), a.rows(), dm.SuspendOptions{Revoke: a.flag("revoke")}
	readOnly := a.flag("readonly")
	return func(ctx context.Context) (string, error) {
		t, err := w.parse(ctx, rows, readOnly)
		if err != nil {
			return "", err
		}
		return "", m.Reload(ctx, t, o)
	}
}

// cmdTurns reloads a device with two tables in turn, until it is cancelled.
func cmdTurns(w *scriptWorld, a *scriptArgs) scriptDo {
	m, rows := w.device(a), a.rows()
	return func(ctx context.Context) (string, error) {
		for i := 0; ctx.Err() == nil; i++ {
			t, err := w.parse(context.Background(), rows[i%2:i%2+1], false)
			if err == nil {
				err = m.Reload(context.Background(), t, dm.SuspendOptions{})
			}
			if err != nil {
				return "", err
			}
		}
		return "", nil
	}
}

func cmdRemove(w *scriptWorld, a *scriptArgs) scriptDo {
	m, o := w.device(a), dm.RemoveOptions{Deferred: a.flag("deferred")}
	return func(ctx context.Context) (string, error) { return "", m.Remove(ctx, o) }
}

func cmdKeep(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	return func(context.Context) (string, error) { return "", m.CancelDeferred() }
}

func cmdRename(w *scriptWorld, a *scriptArgs) scriptDo {
	m, name := w.device(a), a.next("the new name")
	return func(context.Context) (string, error) {
		w.mu.Lock()
		delete(w.devs, m.Name())
		w.mu.Unlock()
		m.Rename(name)
		w.put(name, m)
		return "", nil
	}
}

func cmdOpen(w *scriptWorld, a *scriptArgs) scriptDo {
	m, who := w.device(a), a.next("who opens it")
	return func(context.Context) (string, error) {
		h, err := m.Open(who)
		if err == nil {
			w.handles[m.Name()+" "+who] = h
		}
		return "", err
	}
}

func cmdClose(w *scriptWorld, a *scriptArgs) scriptDo {
	m, who := w.device(a), a.next("who opened it")
	h := w.handles[m.Name()+" "+who]
	if h == nil {
		a.ts.Fatalf("%s has not opened it", who)
	}
	delete(w.handles, m.Name()+" "+who)
	return func(context.Context) (string, error) { return "", h.Close() }
}

func cmdMessage(w *scriptWorld, a *scriptArgs) scriptDo {
	m, sector := w.device(a), a.number("a sector")
	words := a.words
	a.words = nil
	return func(ctx context.Context) (string, error) {
		answer, err := m.Message(ctx, sector, words)
		return answer + "\n", err
	}
}

// leaf returns the disk of a name, also of one that was removed.
func (w *scriptWorld) leaf(a *scriptArgs) *scriptLeaf {
	name := a.next("a leaf")
	if w.leaves[name] == nil {
		a.ts.Fatalf("there is no leaf %q", name)
	}
	return w.leaves[name]
}

// engine returns the engine of a leaf, or the fallback.
func (w *scriptWorld) engine(a *scriptArgs) *scriptEngine {
	if len(a.words) > 0 && a.words[0] == "fallback" {
		a.words = a.words[1:]
		return w.soft
	}
	l := w.leaf(a)
	if l.manager == nil {
		a.ts.Fatalf("that leaf has no engine")
	}
	return l.scriptEngine
}

func cmdReset(w *scriptWorld, a *scriptArgs) scriptDo {
	e := w.engine(a)
	return func(context.Context) (string, error) {
		return "", e.manager.Reset(func() {
			e.registersMu.Lock()
			defer e.registersMu.Unlock()
			e.lose()
		})
	}
}

func cmdFault(w *scriptWorld, a *scriptArgs) scriptDo {
	e, kind := w.stallPlace(a), a.next("what fails")
	if !stallable[kind] && kind != "none" {
		a.ts.Fatalf("%q does not fail", kind)
	}
	return func(context.Context) (string, error) {
		e.setFault(kind)
		return "", nil
	}
}

// stallable are the calls that can stand still or fail.
var stallable = map[string]bool{
	block.OpWrite.String(): true, block.OpRead.String(): true, block.OpFlush.String(): true,
	"program": true, "evict": true, "crypt": true,
}

func (w *scriptWorld) stallPlace(a *scriptArgs) *scriptEngine {
	if a.words[0] == "fallback" {
		return w.engine(a)
	}
	return w.leaf(a).scriptEngine
}

func cmdStall(w *scriptWorld, a *scriptArgs) scriptDo {
	e, kind := w.stallPlace(a), a.next("what stands still")
	if !stallable[kind] {
		a.ts.Fatalf("%q does not stand still", kind)
	}
	return func(context.Context) (string, error) {
		e.stall(kind)
		return "", nil
	}
}

func cmdRelease(w *scriptWorld, a *scriptArgs) scriptDo {
	e, kind := w.stallPlace(a), ""
	if len(a.words) > 0 {
		kind = a.next("what goes on")
	}
	return func(context.Context) (string, error) {
		e.release(kind)
		return "", nil
	}
}
