package luks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"keyway/internal/digest"
	"keyway/internal/secret"
)

// Errors of changes, compared with errors.Is.
var (
	// ErrFull: no keyslot number, or no room for the material of one, is left.
	ErrFull = errors.New("the header is full")
	// ErrLastKey: without this keyslot nobody opens the volume any more.
	ErrLastKey = errors.New("it is the last keyslot that opens the volume")
)

// KeyOptions say how a new keyslot is made. The zero value is what cryptsetup does.
type KeyOptions struct {
	KDF KDFOptions
	// Cipher of the key material, and the bytes of its key; LUKS2. "": as the data,
	// or aes-xts-plain64 if that has a cipher which is none for key material.
	Cipher  string
	KeySize int
	// InPlace lets ChangeKey overwrite the only place there is for the material if
	// the header is full. A crash meanwhile loses that keyslot: have another, or a
	// backup of the header.
	InPlace bool
}

// AddKey adds a passphrase for the key of an opened volume, in a keyslot of the
// given number or in the first free one (AnySlot), and returns its number. The
// passphrase stays the caller's. It blocks for as long as KDFOptions say.
func (e *Editor) AddKey(ctx context.Context, v *Volume, passphrase []byte, slot int, o KeyOptions) (int, error) {
	if err := e.ready(); err != nil {
		return 0, err
	}
	d, err := e.holds(ctx, v)
	if err != nil {
		return 0, fmt.Errorf("luks: %w", err)
	}
	if slot, err = e.freeSlot(slot); err != nil {
		return 0, fmt.Errorf("luks: %w", err)
	}
	k, err := e.newSlot(ctx, slot, v.Key.Len(), o)
	if err != nil {
		return 0, fmt.Errorf("luks: keyslot %d: %w", slot, err)
	}
	if err := k.write(ctx, e.m, v.Key.Bytes(), passphrase); err != nil {
		return 0, fmt.Errorf("luks: keyslot %d: key material: %w", slot, err)
	}
	if err := e.putSlot(k, d.ID); err != nil {
		return 0, fmt.Errorf("luks: keyslot %d: %w", slot, err)
	}
	return slot, nil
}

// slots is how many keyslots the version can have.
func (h *Header) slots() int {
	if h.Version == 1 {
		return slots1
	}
	return maxID + 1
}

// freeSlot returns the number of a keyslot that is not in use: the first, or that
// which is asked for.
func (e *Editor) freeSlot(slot int) (int, error) {
	n := e.h.slots()
	if slot != AnySlot {
		switch {
		case slot < 0 || slot >= n:
			return 0, fmt.Errorf("keyslot %d: LUKS%d has 0 to %d", slot, e.h.Version, n-1)
		case e.h.keyslot(slot) != nil:
			return 0, fmt.Errorf("keyslot %d is in use: remove its key first, or take another", slot)
		}
		return slot, nil
	}
	for i := range n {
		if e.h.keyslot(i) == nil {
			return i, nil
		}
	}
	return 0, fmt.Errorf("all %d keyslots are in use: %w: remove a key first", n, ErrFull)
}

// newSlot plans a keyslot for a key of n bytes: all but its material.
func (e *Editor) newSlot(ctx context.Context, id, n int, o KeyOptions) (*Keyslot, error) {
	h := e.h
	if h.Version == 1 {
		if o.Cipher != "" || o.KeySize != 0 {
			return nil, errors.New("LUKS1 encrypts key material with the cipher of the data")
		}
		if o.KDF.Hash != "" && o.KDF.Hash != h.luks1.hash {
			return nil, fmt.Errorf("kdf hash %q: that of this header is %s for all keyslots", o.KDF.Hash, h.luks1.hash)
		}
	}
	var err error
	if o.KDF, err = o.KDF.complete(h.Version, h.hash()); err != nil {
		return nil, err
	}
	k := &Keyslot{ID: id, Type: "luks2", KeySize: n, Priority: 1, Area: Area{Type: "raw"}, AF: AF{stripes, o.KDF.Hash}}
	k.Area.Encryption, k.Area.KeySize, err = h.areaCipher(n, o)
	if err != nil {
		return nil, err
	}
	if k.Area.Offset, k.Area.Size, err = h.room(id, n); err != nil {
		return nil, err
	}
	// The room is known to be there before time is spent.
	k.KDF, err = newKDF(ctx, o.KDF, k.Area.KeySize)
	return k, err
}

// hash is what a header uses where nothing else is asked for: what it does already.
func (h *Header) hash() string {
	if h.Version == 1 {
		return h.luks1.hash
	}
	for i := range h.Keyslots {
		if k := &h.Keyslots[i]; k.Type == "luks2" && digest.Known(k.AF.Hash) {
			return k.AF.Hash
		}
	}
	for i := range h.Digests {
		if d := &h.Digests[i]; d.Type == "pbkdf2" && digest.Known(d.Hash) {
			return d.Hash
		}
	}
	return "sha256"
}

// areaCipher chooses the cipher of new key material for a key of n bytes.
func (h *Header) areaCipher(n int, o KeyOptions) (string, int, error) {
	data := ""
	for i := range h.Segments {
		if s := &h.Segments[i]; s.Type == "crypt" && !s.Backup() {
			data = s.Encryption
			break
		}
	}
	if h.Version == 1 {
		_, err := areaSpec(data)
		return data, n, err
	}
	if o.Cipher == "" {
		if o.KeySize != 0 {
			return "", 0, errors.New("the size of the key of the key material is given without its cipher")
		}
		c, size := areaCipherFor(data, n)
		return c, size, nil
	}
	spec, err := areaSpec(o.Cipher)
	if err != nil {
		return "", 0, err
	}
	if o.KeySize == 0 {
		o.KeySize = defaultKeySize(o.Cipher)
	}
	return o.Cipher, o.KeySize, spec.CheckKey(o.KeySize)
}

// putSlot makes the header name a keyslot, whose material is on the medium. It
// replaces the one of that number; else a digest recognises its key.
func (e *Editor) putSlot(k *Keyslot, digest int) error {
	if e.h.Version == 1 {
		raw := slices.Clone(e.h.luks1.raw)
		encodeSlot1(raw, k.ID, k)
		return e.put1(raw, true)
	}
	meta := e.h.meta.clone()
	slots := meta.get("keyslots")
	old := slots.get(strconv.Itoa(k.ID))
	o := k.value()
	if old != nil {
		// What else it says stays: its priority, and what nobody here knows.
		for _, m := range old.members {
			if o.get(m.name) == nil {
				o.set(m.name, m.v)
			}
		}
	} else {
		list := meta.get("digests").get(strconv.Itoa(digest)).get("keyslots")
		list.items = append(list.items, str(strconv.Itoa(k.ID)))
	}
	slots.setID(k.ID, o)
	return e.put2(meta, nil)
}

// value is the keyslot in the metadata of LUKS2.
func (k *Keyslot) value() *value {
	kdf := obj(member{"type", str(k.KDF.Type)})
	if k.KDF.Type == "pbkdf2" {
		kdf.set("hash", str(k.KDF.Hash))
		kdf.set("iterations", num(k.KDF.Iterations))
	} else {
		kdf.set("time", num(k.KDF.Time))
		kdf.set("memory", num(k.KDF.Memory))
		kdf.set("cpus", num(k.KDF.CPUs))
	}
	kdf.set("salt", b64(k.KDF.Salt))
	return obj(
		member{"type", str("luks2")}, member{"key_size", num(k.KeySize)},
		member{"af", obj(member{"type", str("luks1")}, member{"stripes", num(k.AF.Stripes)}, member{"hash", str(k.AF.Hash)})},
		member{"area", obj(member{"type", str("raw")}, member{"offset", big(k.Area.Offset)}, member{"size", big(k.Area.Size)},
			member{"encryption", str(k.Area.Encryption)}, member{"key_size", num(k.Area.KeySize)})},
		member{"kdf", kdf},
	)
}

// newDigest makes what recognises a key, n bytes long.
func newDigest(ctx context.Context, key []byte, hash string, iterations, n int) (*Digest, error) {
	d := &Digest{Type: "pbkdf2", Hash: hash, Iterations: iterations, Digest: make([]byte, n)}
	var err error
	if d.Salt, err = randomBytes(saltBytes); err != nil {
		return nil, err
	}
	got, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	defer got.Wipe()
	if err := derivePBKDF2(ctx, got.Bytes(), key, hash, d.Salt, iterations); err != nil {
		return nil, err
	}
	copy(d.Digest, got.Bytes())
	return d, nil
}
