package dm

import (
	"context"
	"errors"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/point"
	"keyway/keyslot"
)

// crypt performs a request that has a context. Each row that it touches gets
// the context where an engine beneath serves it, else ciphertext from the
// fallback. A data unit that lies across a row boundary, or across a place
// where a target cuts requests, is encrypted whole before it is cut
// (blkcrypto.md, invariant 9).
//
// Hot: no allocation for a request within one row.
func (t *Table) crypt(ctx context.Context, r *block.Request) (by block.Service, err error) {
	i, v, _ := t.route(r)
	point.At("dm: routed")
	switch v {
	case servedBeneath:
		err := t.rows[i].do(ctx, r)
		if err != nil && t.engineRefused(r, err) {
			return block.BySoftware, t.soft.Do(ctx, *r)
		}
		return block.ByEngine, err
	case cutByRow:
		parts := t.divide(*r, i)
		by = block.ByEngine
		for _, p := range parts {
			if p.Dev == t.soft {
				by = block.BySoftware
			}
		}
		return by, block.Parallel(ctx, parts)
	}
	return block.BySoftware, t.soft.Do(ctx, *r)
}

// route says in which row r begins and whether its context is served beneath
// that; with cutByRow it ends in another, and divide says what goes where: a
// single data unit to the fallback.
//
// Hot: no allocation. This is what serves requests, and what explains them.
func (t *Table) route(r *block.Request) (row int, v verdict, beneath profiler) {
	row = t.find(r.Off)
	if r.Off+r.Len > t.rows[row].end {
		return row, cutByRow, nil
	}
	v, beneath = t.rows[row].judge(r)
	return row, v, beneath
}

// divide cuts r, which begins in row i, into parts that go to one row with
// the context and parts that go through the fallback. Cuts lie between data
// units.
func (t *Table) divide(r block.Request, i int) []block.Part {
	unit := int64(r.Crypt.Key.Config().DataUnitSize)
	var parts []block.Part
	var softFrom int64 = -1 // where the pending part for the fallback begins
	soft := func(end int64) {
		if softFrom >= 0 {
			parts = append(parts, block.Part{Dev: t.soft, Req: r.Sub(softFrom, end-softFrom)})
			softFrom = -1
		}
	}
	for done := int64(0); done < r.Len; {
		for r.Off+done >= t.rows[i].end {
			i++
		}
		row := &t.rows[i]
		n := min(r.Len-done, row.end-(r.Off+done))
		if whole := n &^ (unit - 1); whole > 0 {
			if part := r.Sub(done, whole); row.native(&part) {
				soft(done)
				parts = append(parts, block.Part{Dev: row, Req: part})
				done += whole
				continue
			}
		}
		if softFrom < 0 {
			softFrom = done
		}
		done += (n + unit - 1) &^ (unit - 1) // the last unit may reach into the next row
	}
	soft(r.Len)
	return parts
}

// native reports whether the context of r, which lies within the row, is
// served beneath it.
func (w *row) native(r *block.Request) bool {
	v, _ := w.judge(r)
	return v == servedBeneath
}

// A verdict says whether a context is served beneath a row, or why not.
type verdict uint8

const (
	servedBeneath  verdict = iota
	notPassed              // the target passes no contexts
	notMarked              // the target adds its own to all but marked requests
	cutByChunk             // the target cuts data units
	cutByRow               // a row ends inside the request
	nothingBeneath         // there is no device that could serve it
	notSupported           // a device beneath does not serve the config
)

// judge says whether the context of r, which lies within the row, is served
// beneath it: the target passes contexts, does not cut data units, and every
// device it stands on has an engine that supports the config. With
// notSupported comes the first profile that does not.
//
// Hot: no allocation.
func (w *row) judge(r *block.Request) (verdict, profiler) {
	f := w.typ.Features
	if f&PassesCrypto == 0 {
		return notPassed, nil
	}
	if f&MarkedOnly != 0 && r.Flags&block.SkipDefaultKey == 0 {
		return notMarked, nil
	}
	c := r.Crypt.Key.Config()
	if w.chunk != 0 && (w.chunk|(r.Off-w.start))&int64(c.DataUnitSize-1) != 0 {
		return cutByChunk, nil
	}
	for _, p := range w.profiles {
		if !p.cryptoProfile().Supports(c) {
			return notSupported, p
		}
	}
	if len(w.profiles) == 0 {
		return nothingBeneath, nil
	}
	return servedBeneath, nil
}

// engineRefused reports whether err says that the inline engine of a leaf device
// could not take r's key, which software can (dm-fscrypt.md, invariant 48). Data
// that went down before the failure is the same ciphertext again.
func (t *Table) engineRefused(r *block.Request, err error) bool {
	_, isLeaf := t.rows[0].target.(*leaf)
	return isLeaf && r.Crypt.Key.Config().KeyType == blkcrypto.Raw && errors.Is(err, keyslot.ErrProgram)
}
