package daemon

import (
	"context"
	"errors"
	"fmt"

	"keyway/control"
	"keyway/dm"
	"keyway/fscrypt/volume"
)

// Explain says where a byte of a regular file lies, and who decrypts it on the way.
func (x *files) Explain(ctx context.Context, r control.Fscrypt) (e control.FscryptExplanation, err error) {
	path, err := onePath(r)
	if err != nil {
		return e, err
	}
	f, err := x.at(path, true)
	if err != nil {
		return e, err
	}
	fail := func(err error) (control.FscryptExplanation, error) {
		return e, fmt.Errorf("%s: %w", shown(path), x.hint(err))
	}
	switch {
	case f.Type != volume.Regular:
		return fail(fmt.Errorf("is a %s, not a file with contents", typeNames[f.Type]))
	case f.Size == 0:
		return fail(errors.New("is empty: no block belongs to it"))
	case r.Offset < 0 || r.Offset >= f.Size:
		return fail(fmt.Errorf("has no byte %d: the last is %d", r.Offset, f.Size-1))
	}
	e.File, e.Offset = x.entry(path, f), r.Offset
	if p, ok := f.Policy(); ok {
		n := &counted{files: 1, first: path}
		if k := x.key(p.Key); k != nil {
			n.open(x, k, f)
		}
		policy := x.policy(p, n)
		e.Policy = &policy
	}
	if f.Inline {
		e.Inline = true
		return e, nil
	}
	piece, err := pieceAt(f, r.Offset)
	if err != nil {
		return fail(err)
	}
	e.Extent, e.Length = piece.Off, piece.Len
	if piece.Kind != volume.Data {
		e.Hole = true
		return e, nil
	}
	e.DeviceOff = piece.Dev + r.Offset - piece.Off
	w, err := x.ask(ctx, f, e.DeviceOff, r.Offset)
	if err != nil {
		return fail(err)
	}
	way := explanation(dm.Question{Sector: e.DeviceOff >> 9, Marked: f.Encrypted}, w)
	e.Way = &way
	if len(way.Steps) > 0 && way.Steps[0].Carries != nil {
		e.Key, e.DUN = way.Steps[0].Carries.Key, way.Steps[0].Carries.DUN
	}
	return e, nil
}

// pieceAt returns the run of blocks that holds a byte.
func pieceAt(f *volume.File, off int64) (run volume.Piece, err error) {
	for p, err := range f.Pieces(0, f.Size) {
		switch {
		case err != nil:
			return run, err
		case off < p.Off+p.Len:
			return p, nil
		}
	}
	return run, fmt.Errorf("%w: no block holds byte %d", volume.ErrDamaged, off)
}
