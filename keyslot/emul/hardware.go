package emul

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"keyway/internal/aes"
	"keyway/internal/secret"
	"keyway/keyslot"
)

// FuseSize is the length in bytes of the secret that is burnt into Hardware.
const FuseSize = 32

// RawSize is the length in bytes of a key that can be imported.
const RawSize = 32

// WrappedSize is the length in bytes of a wrapped key, long-term or ephemeral.
const WrappedSize = 1 + aes.BlockSize + RawSize

// Hardware keeps what emulated engines share that take each other's wrapped keys:
// the wrapping keys, one that outlives a boot and one that does not. In a phone
// both are out of the software's reach. Its methods may be called from many
// goroutines at once, not beside Close.
type Hardware struct {
	id             string
	longTerm, boot *wrapper
}

// NewHardware returns hardware with the given fuses, FuseSize bytes that stay the
// caller's: what was wrapped for the long term by hardware with the same fuses is
// good here too. The wrapping key of this boot is new each time.
func NewHardware(fuses []byte) (*Hardware, error) {
	if len(fuses) != FuseSize {
		return nil, fmt.Errorf("emul: fuses of %d bytes: must be %d", len(fuses), FuseSize)
	}
	h := &Hardware{}
	var err error
	if h.longTerm, err = newWrapper(fuses, formLongTerm); err != nil {
		return nil, err
	}
	random, err := secret.New(FuseSize)
	if err != nil {
		h.longTerm.wipe()
		return nil, err
	}
	defer random.Wipe()
	rand.Read(random.Bytes())
	if h.boot, err = newWrapper(random.Bytes(), formEphemeral); err != nil {
		h.longTerm.wipe()
		return nil, err
	}
	id := h.longTerm.mac.sum([]byte("the name of this hardware"))
	h.id = hex.EncodeToString(id[:8])
	return h, nil
}

// ID names the hardware: equal for equal fuses, and tells nothing of them.
func (h *Hardware) ID() string { return h.id }

// Close forgets the wrapping keys. No engine may use h any more.
func (h *Hardware) Close() {
	h.longTerm.wipe()
	h.boot.wipe()
}

// Import wraps a raw key of RawSize bytes for the long term.
func (h *Hardware) Import(raw []byte) (*secret.Buffer, error) {
	if len(raw) != RawSize {
		return nil, fmt.Errorf("%w: a raw key of %d bytes: this hardware takes %d", keyslot.ErrKeySize, len(raw), RawSize)
	}
	return h.longTerm.wrap(raw)
}

// Generate makes a key that nobody outside the hardware ever sees, wrapped for the
// long term.
func (h *Hardware) Generate() (*secret.Buffer, error) {
	raw, err := secret.New(RawSize)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	rand.Read(raw.Bytes())
	return h.longTerm.wrap(raw.Bytes())
}

// Prepare turns a key that was wrapped for the long term into the form that
// engines take, which is good until the hardware is made anew.
func (h *Hardware) Prepare(longTerm []byte) (*secret.Buffer, error) {
	raw, err := h.longTerm.unwrap(longTerm)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	return h.boot.wrap(raw.Bytes())
}

// DeriveSecret returns the software secret of a prepared key, 32 bytes.
func (h *Hardware) DeriveSecret(ephemeral []byte) (*secret.Buffer, error) {
	return h.derived(ephemeral, secretContext, secretSize)
}

// inlineKey returns the key that an engine encrypts with for a prepared key.
func (h *Hardware) inlineKey(ephemeral []byte) (*secret.Buffer, error) {
	return h.derived(ephemeral, inlineContext, inlineSize)
}

func (h *Hardware) derived(ephemeral, context []byte, size int) (*secret.Buffer, error) {
	raw, err := h.boot.unwrap(ephemeral)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	out, err := secret.New(size)
	if err != nil {
		return nil, err
	}
	secret.Do(func() { err = derive(raw.Bytes(), context, out.Bytes()) })
	if err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

// The first byte of a wrapped key says which form it is.
const (
	formLongTerm  = 1
	formEphemeral = 2
)

// A wrapper wraps keys after AES-SIV (RFC 5297) with the form as associated data: a
// tag over form and key, which is then the counter under which the key is
// encrypted. It needs no randomness: the same key wrapped twice is the same blob.
type wrapper struct {
	form byte
	mac  *mac
	ctr  *aes.Blocks
}

func newWrapper(key []byte, form byte) (*wrapper, error) {
	both, err := secret.New(64)
	if err != nil {
		return nil, err
	}
	defer both.Wipe()
	if err := derive(key, []byte{form}, both.Bytes()); err != nil {
		return nil, err
	}
	m, err := newMAC(both.Bytes()[:32])
	if err != nil {
		return nil, err
	}
	ctr, err := aes.NewBlocks(both.Bytes()[32:])
	if err != nil {
		m.wipe()
		return nil, err
	}
	return &wrapper{form, m, ctr}, nil
}

func (w *wrapper) wipe() {
	w.mac.wipe()
	w.ctr.Wipe()
}

// tag is S2V of the form and key, which is at least a block long.
func (w *wrapper) tag(key []byte) (tag [aes.BlockSize]byte, err error) {
	last, err := secret.New(len(key))
	if err != nil {
		return tag, err
	}
	defer last.Wipe()
	d := w.mac.sum(make([]byte, aes.BlockSize))
	double(d[:], d[:])
	form := w.mac.sum([]byte{w.form})
	subtle.XORBytes(d[:], d[:], form[:])
	copy(last.Bytes(), key)
	end := last.Bytes()[len(key)-aes.BlockSize:]
	subtle.XORBytes(end, end, d[:])
	return w.mac.sum(last.Bytes()), nil
}

// stream encrypts or decrypts in place: counter mode from tag.
func (w *wrapper) stream(b []byte, tag [aes.BlockSize]byte) {
	tag[8] &^= 0x80
	tag[12] &^= 0x80 // so that adding to the last word carries nowhere
	var pad [aes.BlockSize]byte
	for i := 0; i < len(b); i += aes.BlockSize {
		w.ctr.Encrypt(pad[:], tag[:])
		subtle.XORBytes(b[i:], b[i:], pad[:])
		binary.BigEndian.PutUint32(tag[12:], binary.BigEndian.Uint32(tag[12:])+1)
	}
	secret.Wipe(pad[:])
}

func (w *wrapper) wrap(key []byte) (out *secret.Buffer, err error) {
	secret.Do(func() { out, err = w.seal(key) })
	return out, err
}

func (w *wrapper) unwrap(blob []byte) (key *secret.Buffer, err error) {
	secret.Do(func() { key, err = w.open(blob) })
	return key, err
}

func (w *wrapper) seal(key []byte) (*secret.Buffer, error) {
	out, err := secret.New(WrappedSize)
	if err != nil {
		return nil, err
	}
	tag, err := w.tag(key)
	if err != nil {
		out.Wipe()
		return nil, err
	}
	b := out.Bytes()
	b[0] = w.form
	copy(b[1:], tag[:])
	body := b[1+aes.BlockSize:]
	copy(body, key)
	w.stream(body, tag)
	return out, nil
}

func (w *wrapper) open(blob []byte) (*secret.Buffer, error) {
	if len(blob) != WrappedSize || blob[0] != w.form {
		return nil, keyslot.ErrBadBlob
	}
	key, err := secret.New(RawSize)
	if err != nil {
		return nil, err
	}
	tag := [aes.BlockSize]byte(blob[1:])
	copy(key.Bytes(), blob[1+aes.BlockSize:])
	w.stream(key.Bytes(), tag)
	want, err := w.tag(key.Bytes())
	if err == nil && subtle.ConstantTimeCompare(want[:], tag[:]) != 1 {
		err = keyslot.ErrBadBlob
	}
	if err != nil {
		key.Wipe()
		return nil, err
	}
	return key, nil
}
