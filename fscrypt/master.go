package fscrypt

import (
	"fmt"
	"sync"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/internal/aes"
	"keyway/internal/hkdf"
	"keyway/internal/secret"
)

// Lengths of raw master keys in bytes.
const (
	MinKeySize = 16
	MaxKeySize = 64
)

// What HKDF derives from a master key (fscrypt.rst, "Key derivation function").
const (
	contextIdentifier        = 1
	contextPerFile           = 2
	contextDirectKey         = 3
	contextInoLblk64         = 4
	contextDirHash           = 5
	contextInoLblk32         = 6
	contextInodeHash         = 7
	contextWrappedIdentifier = 8
)

// A SecretDeriver is the hardware of a wrapped key. Every keyslot.Wrapper is one.
type SecretDeriver interface {
	// DeriveSecret returns what software may have of a prepared key: 32 bytes, the
	// caller's to wipe.
	DeriveSecret(ephemeral []byte) (*secret.Buffer, error)
}

var lastMaster atomic.Uint64

// A MasterKey is what a user unlocks directories with. Its methods may be called
// from many goroutines at once.
type MasterKey struct {
	number  uint64 // never used again in the life of the process
	wrapped bool
	v1, v2  KeySpec // v1: zero if wrapped

	mu        sync.RWMutex   // held while the rest is used; Wipe waits for it
	key       *secret.Buffer // raw, or wrapped as engines take it; nil once wiped
	hkdf      *hkdf.Key      // of the raw key, or of the software secret
	inodeHash *secret.Buffer // SipHash key
}

// NewMasterKey makes a master key of raw, MinKeySize to MaxKeySize bytes, which stay
// the caller's. The descriptor for v1 policies is the one that tools compute: the
// first bytes of the SHA-512 of the key's SHA-512.
func NewMasterKey(raw []byte) (*MasterKey, error) {
	if len(raw) < MinKeySize || len(raw) > MaxKeySize {
		return nil, fmt.Errorf("fscrypt: a master key of %d bytes: must be %d to %d", len(raw), MinKeySize, MaxKeySize)
	}
	m, err := newMaster(raw, raw, contextIdentifier)
	if err != nil {
		return nil, err
	}
	sum, err := secret.New(64)
	if err != nil {
		m.Wipe()
		return nil, fmt.Errorf("fscrypt: %w", err)
	}
	defer sum.Wipe()
	for _, in := range [][]byte{raw, sum.Bytes()} {
		if err := hkdf.SHA512((*[64]byte)(sum.Bytes()), in); err != nil {
			m.Wipe()
			return nil, fmt.Errorf("fscrypt: %w", err)
		}
	}
	m.v1 = DescriptorSpec([DescriptorSize]byte(sum.Bytes()))
	return m, nil
}

// NewMasterKeyAs is NewMasterKey of a key that was added under a descriptor of its
// own: nothing but a v1 policy's descriptor says which key it means.
func NewMasterKeyAs(raw []byte, d [DescriptorSize]byte) (*MasterKey, error) {
	m, err := NewMasterKey(raw)
	if err == nil {
		m.v1 = DescriptorSpec(d)
	}
	return m, err
}

// NewWrappedKey makes a master key of a hardware-wrapped one in the form that
// engines take; it stays the caller's. Contents are encrypted by what the hardware
// makes of it, all the rest by what hw lets software have.
func NewWrappedKey(ephemeral []byte, hw SecretDeriver) (*MasterKey, error) {
	if len(ephemeral) == 0 || len(ephemeral) > blkcrypto.MaxWrapped {
		return nil, fmt.Errorf("fscrypt: a wrapped key of %d bytes: must be 1 to %d", len(ephemeral), blkcrypto.MaxWrapped)
	}
	s, err := hw.DeriveSecret(ephemeral)
	if err != nil {
		return nil, fmt.Errorf("fscrypt: software secret of a wrapped key: %w", err)
	}
	defer s.Wipe()
	m, err := newMaster(ephemeral, s.Bytes(), contextWrappedIdentifier)
	if err != nil {
		return nil, err
	}
	m.wrapped = true
	return m, nil
}

func newMaster(key, in []byte, identifier byte) (m *MasterKey, err error) {
	m = &MasterKey{number: lastMaster.Add(1)}
	defer func() {
		if err != nil {
			m.Wipe()
			m, err = nil, fmt.Errorf("fscrypt: %w", err)
		}
	}()
	if m.key, err = secret.New(len(key)); err != nil {
		return m, err
	}
	secret.Move(m.key.Bytes(), key)
	if m.hkdf, err = hkdf.Extract(in); err != nil {
		return m, err
	}
	if m.inodeHash, err = secret.New(16); err != nil {
		return m, err
	}
	m.expand(m.inodeHash.Bytes(), contextInodeHash)
	var id [IdentifierSize]byte
	m.expand(id[:], identifier)
	m.v2 = IdentifierSpec(id)
	return m, nil
}

// Wrapped reports whether the key is hardware-wrapped.
func (m *MasterKey) Wrapped() bool { return m.wrapped }

// Spec is the key's name in v2 policies.
func (m *MasterKey) Spec() KeySpec { return m.v2 }

// DescriptorSpec is the key's name in v1 policies; false for a wrapped key, which
// they cannot have.
func (m *MasterKey) DescriptorSpec() (KeySpec, bool) { return m.v1, !m.wrapped }

// Is reports whether s names m.
func (m *MasterKey) Is(s KeySpec) bool {
	return s == m.v2 || !m.wrapped && s == m.v1
}

// String names the key without a byte of it.
func (m *MasterKey) String() string {
	if m.wrapped {
		return "wrapped master key " + m.v2.String()
	}
	return "master key " + m.v2.String()
}

// Wipe erases the key. What was derived from it before remains with its owners; a
// File of the key derives no more. It may be called again, and on nil.
func (m *MasterKey) Wipe() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.key.Wipe()
	m.hkdf.Wipe()
	m.inodeHash.Wipe()
	m.key = nil
}

// use calls f while the key is there.
func (m *MasterKey) use(f func() error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.key == nil {
		return ErrKeyGone
	}
	return f()
}

// expand derives dst by HKDF. m.mu is held, or m is new.
func (m *MasterKey) expand(dst []byte, context byte, extra ...[]byte) {
	info := append(make([]byte, 0, 64), "fscrypt\x00"...)
	info = append(info, context)
	for _, e := range extra {
		info = append(info, e...)
	}
	m.hkdf.Expand(dst, info)
}

// perFileV1 derives dst as v1 policies do: the master key encrypted by AES-128 in
// ECB mode under the file's nonce. m.mu is held.
func (m *MasterKey) perFileV1(dst []byte, nonce [NonceSize]byte) error {
	b, err := aes.NewBlocks(nonce[:])
	if err != nil {
		return err
	}
	defer b.Wipe()
	b.Encrypt(dst, m.key.Bytes()[:len(dst)])
	return nil
}
