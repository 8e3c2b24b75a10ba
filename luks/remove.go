package luks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// KillSlot removes a keyslot without its passphrase: its material is overwritten
// with random bytes, then the header forgets it. The last keyslot that opens the
// volume is refused with ErrLastKey unless last is true: then nobody opens it again.
func (e *Editor) KillSlot(slot int, last bool) error {
	if err := e.ready(); err != nil {
		return err
	}
	k := e.h.keyslot(slot)
	if k == nil {
		return fmt.Errorf("luks: keyslot %d is not in use", slot)
	}
	if !last && e.h.lastKey(slot) {
		return fmt.Errorf("luks: keyslot %d: %w: the data would be lost", slot, ErrLastKey)
	}
	if err := e.kill(k); err != nil {
		return fmt.Errorf("luks: keyslot %d: %w", slot, err)
	}
	return nil
}

// RemoveKey removes the keyslot that opens with a passphrase and returns its number;
// see KillSlot. It blocks for as long as keyslots take to try.
func (e *Editor) RemoveKey(ctx context.Context, passphrase []byte, last bool) (int, error) {
	if err := e.ready(); err != nil {
		return 0, err
	}
	v, err := e.h.Open(ctx, e.m, passphrase, AnySlot)
	if err != nil {
		return 0, err
	}
	v.Key.Wipe()
	return v.Slot, e.KillSlot(v.Slot, last)
}

// lastKey reports whether no other keyslot opens what this one does.
func (h *Header) lastKey(slot int) bool {
	if h.Unbound(slot) {
		return false
	}
	return !slices.ContainsFunc(h.digestOf(slot).Keyslots, func(id int) bool {
		k := h.keyslot(id)
		return id != slot && k != nil && k.Type == "luks2"
	})
}

// kill overwrites the material first: a header that still names the keyslot shows
// that there was one, and a header that does not leaves nothing behind.
func (e *Editor) kill(k *Keyslot) error {
	if err := overwrite(e.m, k.Area.Offset, k.Area.Size, true); err != nil {
		return fmt.Errorf("overwrite key material: %w", err)
	}
	if e.h.Version == 1 {
		raw := slices.Clone(e.h.luks1.raw)
		encodeSlot1(raw, k.ID, nil)
		return e.put1(raw, false)
	}
	meta := e.h.meta.clone()
	meta.get("keyslots").removeID(k.ID)
	for _, list := range []string{"digests", "tokens"} {
		for _, m := range meta.get(list).members {
			unlist(m.v.get("keyslots"), k.ID)
		}
	}
	digests := meta.get("digests")
	for _, m := range slices.Clone(digests.members) {
		if len(m.v.get("keyslots").items) == 0 && len(m.v.get("segments").items) == 0 {
			digests.remove(m.name) // of a key that nobody has any more
		}
	}
	return e.put2(meta, nil)
}

// unlist takes a number out of a list of them.
func unlist(list *value, id int) {
	list.items = slices.DeleteFunc(list.items, func(v *value) bool { return v.text == strconv.Itoa(id) })
}

// ChangeKey replaces the passphrase old of a keyslot, or of the first that opens
// with it (AnySlot), and returns the number that opens with the new one: the same,
// but in LUKS1, where it is the first free one as with cryptsetup. Priority, tokens
// and the like stay. Passphrases stay the caller's.
//
// The new material goes where none is; the header then names it instead of the old,
// in one step, and the old material is overwritten. ErrFull says that there is no
// room for both; see KeyOptions.InPlace.
func (e *Editor) ChangeKey(ctx context.Context, old, passphrase []byte, slot int, o KeyOptions) (int, error) {
	if err := e.ready(); err != nil {
		return 0, err
	}
	v, err := e.h.Open(ctx, e.m, old, slot)
	if err != nil {
		return 0, err
	}
	defer v.Key.Wipe()
	before := *e.h.keyslot(v.Slot)
	to := v.Slot
	if e.h.Version == 1 {
		if n, err := e.freeSlot(AnySlot); err == nil {
			to = n
		}
	}
	if e.h.Version == 1 && to == before.ID && to == slot1Torn {
		err = fmt.Errorf("its entry lies in two sectors and cannot be replaced in one step: %w: remove another key first", ErrFull)
	}
	var k *Keyslot
	if err == nil {
		k, err = e.newSlot(ctx, to, v.Key.Len(), o)
	}
	if errors.Is(err, ErrFull) && o.InPlace {
		return v.Slot, e.changeInPlace(ctx, v, before, passphrase, o)
	}
	if err != nil {
		return 0, fmt.Errorf("luks: keyslot %d: %w", v.Slot, err)
	}
	if err := e.change(ctx, v, &before, k, passphrase); err != nil {
		return 0, fmt.Errorf("luks: keyslot %d: %w", v.Slot, err)
	}
	return to, nil
}

func (e *Editor) change(ctx context.Context, v *Volume, before, k *Keyslot, passphrase []byte) error {
	if err := k.write(ctx, e.m, v.Key.Bytes(), passphrase); err != nil {
		return fmt.Errorf("new key material: %w", err)
	}
	if err := e.putSlot(k, v.Digest); err != nil {
		return err
	}
	if k.ID != before.ID {
		if err := e.kill(before); err != nil {
			return fmt.Errorf("the new passphrase opens keyslot %d; remove the old one: %w", k.ID, err)
		}
		return nil
	}
	if err := overwrite(e.m, before.Area.Offset, before.Area.Size, true); err != nil {
		return fmt.Errorf("the new passphrase opens; overwrite the old key material: %w", err)
	}
	return nil
}

// changeInPlace overwrites the material. Between its first byte and the header the
// keyslot opens with no passphrase.
func (e *Editor) changeInPlace(ctx context.Context, v *Volume, before Keyslot, passphrase []byte, o KeyOptions) error {
	k := before
	kdf, err := o.KDF.complete(e.h.Version, e.h.hash())
	if err == nil {
		k.AF.Hash = kdf.Hash
		k.KDF, err = newKDF(ctx, kdf, k.Area.KeySize)
	}
	if err != nil {
		return fmt.Errorf("luks: keyslot %d: %w", v.Slot, err)
	}
	if err := k.write(ctx, e.m, v.Key.Bytes(), passphrase); err != nil {
		return fmt.Errorf("luks: keyslot %d: key material: %w", v.Slot, err)
	}
	if err := e.putSlot(&k, v.Digest); err != nil {
		return fmt.Errorf("luks: keyslot %d: %w", v.Slot, err)
	}
	return nil
}
