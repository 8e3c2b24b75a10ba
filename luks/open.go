package luks

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"

	"keyway/internal/secret"
)

// AnySlot lets Open try the keyslots in order of their priority.
const AnySlot = -1

// A Volume is an opened header.
type Volume struct {
	Slot   int            // that opened
	Digest int            // that recognised the key
	Key    *secret.Buffer // the volume key; the caller wipes it
}

// Open tries a passphrase at a keyslot, or at all that hold the key of the data:
// those of priority 2 first, then 1, by number; those of priority 0 only if they
// are named. r is the device that the header was read from. The passphrase stays
// the caller's.
//
// A keyslot that cannot be tried, since its cipher is not built here or its area
// cannot be read, does not keep others from being tried. The error is ErrPassphrase
// if every slot that was tried has another passphrase or is damaged: nobody can
// tell these apart. It is ErrUnbound if the passphrase is that of an unbound keyslot,
// which only opens where it is named: its key is then not that of the data.
//
// One keyslot takes as long as its KDF does, or until ctx is done.
func (h *Header) Open(ctx context.Context, r io.ReaderAt, passphrase []byte, slot int) (*Volume, error) {
	slots, err := h.slotsToTry(slot)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, k := range slots {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := h.try(ctx, r, k, passphrase)
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, ErrPassphrase) {
			errs = append(errs, fmt.Errorf("luks: keyslot %d: %w", k.ID, err))
		}
	}
	if errs != nil && len(errs) < len(slots) {
		// Others were tried: a passphrase that was mistyped is the likelier reason.
		return nil, fmt.Errorf("luks: %w of those that could be tried; %w", ErrPassphrase, errors.Join(errs...))
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	if slot != AnySlot {
		return nil, fmt.Errorf("luks: keyslot %d: %w", slot, ErrPassphrase)
	}
	if id, err := h.tryUnbound(ctx, r, passphrase); err != nil {
		return nil, err
	} else if id >= 0 {
		return nil, fmt.Errorf("luks: keyslot %d opens with this passphrase, but it %w", id, ErrUnbound)
	}
	return nil, fmt.Errorf("luks: %w", ErrPassphrase)
}

// tryUnbound returns the unbound keyslot that a passphrase opens, -1 if there is none.
func (h *Header) tryUnbound(ctx context.Context, r io.ReaderAt, passphrase []byte) (int, error) {
	for i := range h.Keyslots {
		k := &h.Keyslots[i]
		if k.Type != "luks2" || !h.Unbound(k.ID) || h.digestOf(k.ID) == nil {
			continue
		}
		v, err := h.try(ctx, r, k, passphrase)
		if err == nil {
			v.Key.Wipe()
			return k.ID, nil
		}
		if err := ctx.Err(); err != nil {
			return -1, err
		}
	}
	return -1, nil
}

// Unbound reports whether the key of a keyslot is for something else than the data:
// cryptsetup luksAddKey --unbound makes such.
func (h *Header) Unbound(slot int) bool {
	d := h.digestOf(slot)
	return d == nil || len(d.Segments) == 0
}

func (h *Header) slotsToTry(slot int) ([]*Keyslot, error) {
	if slot != AnySlot {
		k := h.keyslot(slot)
		if k == nil || k.Type != "luks2" {
			return nil, fmt.Errorf("luks: keyslot %d is not in use", slot)
		}
		return []*Keyslot{k}, nil
	}
	var out []*Keyslot
	for i := range h.Keyslots {
		k := &h.Keyslots[i]
		if k.Type == "luks2" && k.Priority > 0 && !h.Unbound(k.ID) {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b *Keyslot) int { return b.Priority - a.Priority })
	if out == nil {
		return nil, errors.New("luks: no keyslot is in use that opens by itself")
	}
	return out, nil
}

// try opens one keyslot.
func (h *Header) try(ctx context.Context, r io.ReaderAt, k *Keyslot, passphrase []byte) (*Volume, error) {
	d := h.digestOf(k.ID)
	if d == nil || d.Type != "pbkdf2" {
		return nil, fmt.Errorf("no digest recognises its key: %w", ErrUnsupported)
	}
	hash, err := newHash(k.AF.Hash)
	if err != nil {
		return nil, fmt.Errorf("af: %w", err)
	}
	defer hash.Wipe()
	areaKey, err := secret.New(k.Area.KeySize)
	if err != nil {
		return nil, err
	}
	defer areaKey.Wipe()
	material, err := secret.New(int(materialSize(k.KeySize)))
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	m := material.Bytes()
	if err := readFull(r, m, k.Area.Offset); err != nil {
		return nil, err
	}
	if err := k.KDF.derive(ctx, areaKey.Bytes(), passphrase); err != nil {
		return nil, err
	}
	if err := cryptArea(false, k.Area.Encryption, areaKey.Bytes(), m); err != nil {
		return nil, err
	}
	key, err := secret.New(k.KeySize)
	if err != nil {
		return nil, err
	}
	afMerge(key.Bytes(), m[:k.KeySize*k.AF.Stripes], hash)
	good, err := d.recognises(ctx, key.Bytes())
	if err != nil || !good {
		key.Wipe()
		if err == nil {
			err = ErrPassphrase
		}
		return nil, err
	}
	return &Volume{k.ID, d.ID, key}, nil
}

// recognises reports whether key is the one that the digest was made of.
func (d *Digest) recognises(ctx context.Context, key []byte) (bool, error) {
	got := make([]byte, len(d.Digest))
	defer secret.Wipe(got)
	if err := derivePBKDF2(ctx, got, key, d.Hash, d.Salt, d.Iterations); err != nil {
		return false, fmt.Errorf("digest %d: %w", d.ID, err)
	}
	return subtle.ConstantTimeCompare(got, d.Digest) == 1, nil
}
