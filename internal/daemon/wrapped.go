package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/dm"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keystore"
)

// typeName is a key type as users write it; "" for raw, which is the default.
func typeName(t blkcrypto.KeyType) string {
	if t == blkcrypto.HWWrapped {
		return "wrapped"
	}
	return ""
}

// prepared turns the bytes of a key into what requests have: a wrapped key in its
// long-term form into the form of this boot. It owns b, and returns another or b.
func (d *Daemon) prepared(c blkcrypto.Config, b *secret.Buffer) (*secret.Buffer, error) {
	if c.KeyType != blkcrypto.HWWrapped {
		return b, nil
	}
	h, err := d.hardware()
	if err != nil {
		b.Wipe()
		return nil, err
	}
	eph, err := h.Prepare(b.Bytes())
	if err == nil {
		b.Wipe()
		return eph, nil
	}
	// Prepared already?
	if s, derived := h.DeriveSecret(b.Bytes()); derived == nil {
		s.Wipe()
		return b, nil
	}
	b.Wipe()
	return nil, hint(err, fmt.Sprintf("the hardware of this daemon is %s, whose fuses are in the state directory; \"keyway key generate\" and \"keyway key import\" make keys for it", h.ID()))
}

// generateWrapped makes a wrapped key and writes its long-term form to a new file.
func (d *Daemon) generateWrapped(file string) (*secret.Buffer, error) {
	h, err := d.hardware()
	if err != nil {
		return nil, err
	}
	b, err := h.Generate()
	if err != nil {
		return nil, err
	}
	if err := keystore.Create(file, b); err != nil {
		b.Wipe()
		return nil, err
	}
	return b, nil
}

// wrap lets the hardware of the emulated engines make a wrapped key, as the block
// layer's ioctls do.
func (d *Daemon) wrap(_ context.Context, r control.Wrap, f *os.File) (w control.Wrapped, err error) {
	h, err := d.hardware()
	if err != nil {
		return w, err
	}
	w.Hardware = h.ID()
	var b *secret.Buffer
	switch {
	case r.Op == "generate":
		b, err = h.Generate()
	case r.Op != "import" && r.Op != "prepare":
		return w, badRequest{fmt.Errorf("wrap: %q is not generate, import or prepare", r.Op)}
	case f == nil:
		return w, badRequest{fmt.Errorf("wrap: %s: no descriptor came with the request to read the key from", r.Op)}
	default:
		in, err := keystore.Read(f, "the descriptor")
		if err != nil {
			return w, err
		}
		defer in.Wipe()
		if r.Op == "import" {
			b, err = h.Import(in.Bytes())
		} else {
			b, err = h.Prepare(in.Bytes())
		}
		if err != nil {
			return w, fmt.Errorf("%s: %w", r.Op, wrapHint(err))
		}
	}
	if err != nil {
		return w, err
	}
	defer b.Wipe()
	w.Key = append(w.Key, b.Bytes()...) // it is no secret without the hardware
	return w, nil
}

func wrapHint(err error) error {
	if errors.Is(err, keyslot.ErrBadBlob) {
		return hint(err, "prepare takes what \"keyway key generate\" or \"keyway key import\" of this daemon wrote")
	}
	return err
}

// strandsHint adds the ways out of a reload that would leave a wrapped key without an
// engine.
func strandsHint(err error) error {
	if errors.Is(err, dm.ErrStrands) {
		return hint(err, "evict the key first, or keep an engine with wrapped-key support in the new table; \"keyway reload --revoke\" evicts it")
	}
	return err
}
