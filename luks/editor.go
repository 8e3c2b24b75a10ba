package luks

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"keyway/internal/secret"
)

// An Editor changes a header on its medium. Each change is whole or not there:
// whatever write is lost or torn, by a crash or a kill, the header opens as before
// or as after, and other keyslots open at every moment.
//
// One goroutine uses an Editor at a time, and nobody else writes to the medium
// meanwhile; see LockFile.
type Editor struct {
	m      Medium
	h      *Header
	broken error // of a write: the medium is not known any more
}

// Edit reads the header on m, which has size bytes, to change it. It is refused for
// what Header.Obstacles lists, since others own such a header, and if the first copy
// was overwritten with something else, which may be of use (Repair does it).
func Edit(m Medium, size int64, o Options) (*Editor, error) {
	h, err := Read(m, size, o)
	if err != nil {
		return nil, err
	}
	if err := h.Writable(); err != nil {
		return nil, err
	}
	if h.Copies[0].Err != nil {
		if err := h.ownsStart(m); err != nil {
			return nil, fmt.Errorf("luks: %w", err)
		}
	}
	return &Editor{m: m, h: h}, nil
}

// ownsStart refuses if something else than a damaged header is where the first copy
// was: writing that copy would destroy it.
func (h *Header) ownsStart(m Medium) error {
	b := make([]byte, binarySize)
	if err := readFull(m, b, 0); err != nil {
		return err
	}
	if !errors.Is(h.Copies[0].Err, ErrNotLUKS) || bytes.Equal(b, make([]byte, binarySize)) {
		return nil
	}
	return errors.New("in the place of the first copy of the header there is something else: if that is not needed, repair the header first")
}

// Header returns the header as it is now on the medium. It does not change with
// later changes: those have another.
func (e *Editor) Header() *Header { return e.h }

// ready refuses changes after a write whose outcome is not known.
func (e *Editor) ready() error {
	if e.broken != nil {
		return fmt.Errorf("luks: an earlier write failed (%w): open the header again", e.broken)
	}
	return nil
}

// put2 writes other metadata of a LUKS2 header; change, if any, changes what is
// outside of it.
func (e *Editor) put2(meta *value, change func(h *Header)) error {
	h := *e.h
	if change != nil {
		change(&h)
	}
	copies, next, err := h.next2(meta)
	if err != nil {
		return err
	}
	if err := h.write2(e.m, copies); err != nil {
		e.broken = err
		return err
	}
	e.h = next
	return nil
}

// holds reports an error if v is not an opened key of the data of this header, and
// else its digest.
func (e *Editor) holds(ctx context.Context, v *Volume) (*Digest, error) {
	for i := range e.h.Digests {
		d := &e.h.Digests[i]
		if d.ID != v.Digest || d.Type != "pbkdf2" {
			continue
		}
		good, err := d.recognises(ctx, v.Key.Bytes())
		if err != nil {
			return nil, err
		}
		if good {
			return d, nil
		}
	}
	return nil, errors.New("the volume key is not of this header")
}

// write encrypts a key under a passphrase, as the keyslot says, and stores it in
// the keyslot's area. No header names it yet.
func (k *Keyslot) write(ctx context.Context, m Medium, key, passphrase []byte) error {
	material, err := k.seal(ctx, key, passphrase)
	if err != nil {
		return err
	}
	defer material.Wipe()
	return store(m, material.Bytes(), k.Area.Offset)
}

// seal returns the key material of a keyslot: a key, encrypted under a passphrase.
// The caller wipes it.
func (k *Keyslot) seal(ctx context.Context, key, passphrase []byte) (*secret.Buffer, error) {
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
	b := material.Bytes()
	if err = afSplit(b[:len(key)*k.AF.Stripes], key, hash); err == nil {
		err = k.KDF.derive(ctx, areaKey.Bytes(), passphrase)
	}
	if err == nil {
		err = cryptArea(true, k.Area.Encryption, areaKey.Bytes(), b)
	}
	if err != nil {
		material.Wipe()
		return nil, err
	}
	return material, nil
}
