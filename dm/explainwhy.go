package dm

import (
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// A Reason says in a word why no engine beneath serves a context.
type Reason string

const (
	TargetDeclines Reason = "target"       // it passes no contexts
	NeedsMark      Reason = "mark"         // default-key adds its own key to all but marked requests
	ChunkCuts      Reason = "chunk"        // a stripe's chunk cuts the data unit
	RowCuts        Reason = "row-boundary" // a row of the table does
	NoEngine       Reason = "no-engine"    // there is none
	LacksMode      Reason = "mode"         // what the engine lacks: this and the following
	LacksKeyType   Reason = "key-type"
	LacksDataUnit  Reason = "data-unit"
	LacksNumbering Reason = "numbering"
	LacksDUNBytes  Reason = "dun-bytes"
)

// decide asks the table, of the device called name, what it does with the
// context of the request: with the data unit in question, since the others of
// the request may go elsewhere.
func (w *walk) decide(t *Table, name string) *Decision {
	k := w.r.Crypt.Key
	c := k.Config()
	unit := int64(c.DataUnitSize)
	one := w.r.Sub((w.at-w.r.Off)&^(unit-1), unit)
	i, v, beneath := t.route(&one)
	row := &t.rows[i]
	if v != servedBeneath {
		d := w.software(k)
		d.Reason, d.Why = because(row, v, beneath, fmt.Sprintf("device %q", name), &one)
		return d
	}
	l, ok := row.target.(*leaf)
	if !ok {
		return &Decision{By: ByBeneath, Slot: -1}
	}
	d := w.slotIn(l.engine, k)
	d.By = ByEngine
	if k.Evicted() {
		d.By = ByNobody
		w.fail(fmt.Errorf("%s: %w", l.engine.Name(), blkcrypto.ErrKeyEvicted))
	}
	return d
}

// software is the decision for the fallback, if it takes the key.
func (w *walk) software(k *blkcrypto.Key) *Decision {
	d := w.slotIn(w.fallback, k)
	d.By = ByFallback
	p := w.fallback.Profile()
	switch c := k.Config(); {
	case k.Evicted():
		d.By = ByNobody
		w.fail(fmt.Errorf("%s: %w", w.fallback.Name(), blkcrypto.ErrKeyEvicted))
	case !p.Supports(c):
		d.By, d.State = ByNobody, "it does not support this"
		if c.KeyType == blkcrypto.HWWrapped {
			d.State = "a wrapped key has no software form"
		}
		w.fail(fmt.Errorf("%w: %s does not support %v", block.ErrNoCrypto, w.fallback.Name(), c))
	}
	return d
}

// slotIn says where in the engine the key is.
func (w *walk) slotIn(e *keyslot.Manager, k *blkcrypto.Key) *Decision {
	d := &Decision{Engine: e.Name(), Slot: -1, State: "in no keyslot yet: the first request programs one"}
	if k.Evicted() {
		d.State = "the key has been evicted"
		return d
	}
	if e.Stats().Slots == 0 {
		d.State = "it has no keyslots: requests bring the key"
		return d
	}
	for _, r := range e.Residents() {
		if r.ID != k.ID() {
			continue
		}
		if r.Quarantined != "" {
			d.State = fmt.Sprintf("keyslot %d is in quarantine (%s), a request programs another", r.Slot, r.Quarantined)
			continue
		}
		d.Slot, d.State = r.Slot, fmt.Sprintf("keyslot %d", r.Slot)
		break
	}
	return d
}

// because words a verdict.
func because(row *row, v verdict, beneath profiler, where string, r *block.Request) (Reason, string) {
	c := r.Crypt.Key.Config()
	switch v {
	case notPassed:
		return TargetDeclines, fmt.Sprintf("target %s passes no contexts", row.typ.Name)
	case notMarked:
		return NeedsMark, fmt.Sprintf("target %s passes only contexts of requests that are marked to skip its own key", row.typ.Name)
	case cutByRow:
		return RowCuts, fmt.Sprintf("a row ends after sector %d, inside the data unit of %d bytes at sector %d",
			row.end>>sectorShift-1, c.DataUnitSize, r.Off>>sectorShift)
	case cutByChunk:
		return ChunkCuts, chunkCuts(row, c)
	case nothingBeneath:
		return NoEngine, fmt.Sprintf("target %s stands on nothing", row.typ.Name)
	}
	if _, ok := row.target.(*leaf); ok {
		return row.blame(where, c)
	}
	return blame(beneath, c)
}

func chunkCuts(row *row, c blkcrypto.Config) string {
	if row.chunk&int64(c.DataUnitSize-1) != 0 {
		return fmt.Sprintf("chunks of %d sectors cut data units of %d bytes", row.chunk>>sectorShift, c.DataUnitSize)
	}
	return fmt.Sprintf("chunks of %d sectors from sector %d on cut data units of %d bytes", row.chunk>>sectorShift, row.start>>sectorShift, c.DataUnitSize)
}

// blame finds what it is, beneath, for which a profile does not have c. A
// device serves natively only what all its rows do, and so it may be a row
// that the request does not touch.
func blame(p profiler, c blkcrypto.Config) (Reason, string) {
	m, ok := p.(*Mapped)
	if !ok {
		reason, what := lacks(p.cryptoProfile(), c)
		return reason, "what is beneath " + what
	}
	name := fmt.Sprintf("device %q", m.Name())
	t := m.live.Load()
	for i := 0; t != nil && i < len(t.rows); i++ {
		row := &t.rows[i]
		if a := row.ability(nil); a.profile.Supports(c) {
			continue
		}
		where := name
		if len(t.rows) > 1 {
			where = fmt.Sprintf("row %d of device %q", i+1, m.Name())
		}
		return row.blame(where, c)
	}
	reason, what := lacks(m.cryptoProfile(), c)
	return reason, name + " " + what
}

// blame says why the row, which is described by where, does not serve c.
func (w *row) blame(where string, c blkcrypto.Config) (Reason, string) {
	if l, ok := w.target.(*leaf); ok {
		if l.engine == nil {
			return NoEngine, where + " has no inline engine"
		}
		p := l.engine.Profile()
		reason, what := lacks(&p, c)
		return reason, l.engine.Name() + " " + what
	}
	if w.typ.Features&PassesCrypto == 0 {
		return TargetDeclines, fmt.Sprintf("target %s, %s, passes no contexts", w.typ.Name, where)
	}
	for _, under := range w.profiles {
		if !under.cryptoProfile().Supports(c) {
			return blame(under, c)
		}
	}
	unit := int64(c.DataUnitSize)
	switch a := w.ability(nil); {
	case len(w.profiles) > 1 && c.KeyType == blkcrypto.HWWrapped && !a.profile.Wraps():
		return LacksKeyType, where + " stands on engines of different hardware, and a wrapped key belongs to one"
	case len(w.profiles) == 0:
		return NoEngine, fmt.Sprintf("target %s, %s, stands on nothing", w.typ.Name, where)
	case w.start&(unit-1) != 0:
		return RowCuts, fmt.Sprintf("%s begins at sector %d, inside a data unit of %d bytes", where, w.start>>sectorShift, unit)
	}
	return ChunkCuts, where + ": " + chunkCuts(w, c)
}

// lacks says which parameter of c a profile does not have.
func lacks(p *blkcrypto.Profile, c blkcrypto.Config) (Reason, string) {
	have := p.Configs()
	if len(have) == 0 {
		return NoEngine, "serves nothing"
	}
	for _, f := range []struct {
		reason   Reason
		is, want string // what it is called, and c's
		of       func(blkcrypto.Config) string
	}{
		{LacksMode, "mode", c.Mode.String(), func(h blkcrypto.Config) string { return h.Mode.String() }},
		{LacksKeyType, "key type", c.KeyType.String(), func(h blkcrypto.Config) string { return h.KeyType.String() }},
		{LacksDataUnit, "data unit size", fmt.Sprint(c.DataUnitSize), func(h blkcrypto.Config) string { return fmt.Sprint(h.DataUnitSize) }},
		{LacksNumbering, "numbering", numbering(c), numbering},
	} {
		var others []string
		rest := have[:0:0]
		for _, h := range have {
			if v := f.of(h); v == f.want {
				rest = append(rest, h)
			} else if !slices.Contains(others, v) {
				others = append(others, v)
			}
		}
		if have = rest; len(have) == 0 {
			return f.reason, fmt.Sprintf("lacks %s %s (it has %s)", f.is, f.want, strings.Join(others, ", "))
		}
	}
	return LacksDUNBytes, fmt.Sprintf("lacks data unit numbers of %d bytes (it has %d)", c.DUNBytes, have[0].DUNBytes)
}

func numbering(c blkcrypto.Config) string {
	if c.Numbering == blkcrypto.BySector {
		return "by sector"
	}
	return "by unit"
}
