package fscrypt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"keyway/adiantum"
	"keyway/hctr2"
	"keyway/internal/aes"
	"keyway/internal/cts"
	"keyway/internal/secret"
	"keyway/sm4xts"
)

const (
	// MaxName is the longest name of a file, encrypted or not, in bytes.
	MaxName = 255
	// MinEncrypted is the least length of an encrypted name in bytes.
	MinEncrypted = 16
)

// A nameCipher encrypts messages of MinEncrypted bytes or more. dst and src have one
// length, and are the same memory or do not overlap.
type nameCipher interface {
	encrypt(dst, src []byte, iv *[32]byte)
	decrypt(dst, src []byte, iv *[32]byte)
	Wipe()
}

type openName func(key []byte) (nameCipher, error)

// Names encrypts and decrypts the names in one directory, or the target of one
// symbolic link. Its methods may be called from many goroutines at once, but not
// when Wipe is called, or after it.
type Names struct {
	c      nameCipher
	iv     [32]byte
	policy Policy
	link   int // the longest encrypted target of a symbolic link, in bytes
}

// Names derives the key for the names in the directory f, or for the target of the
// symbolic link f. The caller wipes it.
func (f *File) Names() (*Names, error) {
	mode := f.c.Policy.Names
	key, err := f.derive(mode)
	if err != nil {
		return nil, fmt.Errorf("fscrypt: key of names: %w", err)
	}
	defer key.Wipe()
	var c nameCipher
	secret.Do(func() { c, err = modes[mode].names(key.Bytes()) })
	if err != nil {
		return nil, fmt.Errorf("fscrypt: key of names: %w", err)
	}
	n := &Names{c: c, policy: f.c.Policy, link: maxTarget(f.fs.BlockSize)}
	f.number(0).PutIV(n.iv[:])
	return n, nil
}

// EncryptedLen is the length of an encrypted name of n bytes, with at most most
// bytes; false if n is more.
func (p Policy) EncryptedLen(n, most int) (int, bool) {
	if n < 0 || n > most {
		return 0, false
	}
	pad := p.Flags.Padding()
	return min((max(n, MinEncrypted)+pad-1)/pad*pad, most), true
}

// Encrypt returns the encrypted name, as the directory has it. "." and "..", which
// are never encrypted, are no names.
func (n *Names) Encrypt(name []byte) ([]byte, error) {
	if len(name) > MaxName {
		return nil, fmt.Errorf("fscrypt: %w: %d bytes, and %d can be", ErrNameTooLong, len(name), MaxName)
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	return n.seal(name, MaxName)
}

// Decrypt returns the name that the directory has as encrypted. ErrName: it is no
// name under this key, or not as long as Encrypt would have made it, so that nobody
// who has the name would find it; without reading further, nothing tells whether the
// key is wrong or the directory damaged.
func (n *Names) Decrypt(encrypted []byte) ([]byte, error) {
	name, err := n.open(encrypted, MaxName)
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	return name, nil
}

// Wipe erases the key. It may be called again.
func (n *Names) Wipe() { n.c.Wipe() }

func checkName(name []byte) error {
	switch {
	case len(name) == 0:
		return fmt.Errorf("fscrypt: %w: it is empty", ErrName)
	case string(name) == "." || string(name) == "..":
		return fmt.Errorf("fscrypt: %w: %q is never encrypted", ErrName, name)
	case bytes.IndexByte(name, '/') >= 0:
		return fmt.Errorf("fscrypt: %w: it has a slash in it", ErrName)
	}
	return nil
}

// seal pads and encrypts text; most is the longest ciphertext.
func (n *Names) seal(text []byte, most int) ([]byte, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("fscrypt: %w: it has a zero byte in it", ErrName)
	}
	size, ok := n.policy.EncryptedLen(len(text), most)
	if !ok {
		return nil, fmt.Errorf("fscrypt: %w: %d bytes, and %d can be", ErrNameTooLong, len(text), most)
	}
	b := make([]byte, size)
	copy(b, text)
	n.c.encrypt(b, b, &n.iv)
	return b, nil
}

// open is the inverse of seal.
func (n *Names) open(encrypted []byte, most int) ([]byte, error) {
	if len(encrypted) < MinEncrypted || len(encrypted) > most {
		return nil, fmt.Errorf("fscrypt: %w: %d bytes encrypted: must be %d to %d", ErrName, len(encrypted), MinEncrypted, most)
	}
	b := make([]byte, len(encrypted))
	n.c.decrypt(b, encrypted, &n.iv)
	text := bytes.TrimRight(b, "\x00")
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("fscrypt: %w: it has a zero byte in it: wrong key or damaged", ErrName)
	}
	if size, _ := n.policy.EncryptedLen(len(text), most); size != len(encrypted) {
		return nil, fmt.Errorf("fscrypt: %w: %d bytes in %d encrypted ones, which would be %d: wrong key or damaged", ErrName, len(text), len(encrypted), size)
	}
	return text, nil
}

// A DirHash hashes names in a casefolded directory (ext4: hash version siphash).
type DirHash struct{ key *secret.Buffer }

// DirHash derives the key for the hashes in the directory f. The caller wipes it.
func (f *File) DirHash() (*DirHash, error) {
	if err := f.c.Policy.CheckCasefold(); err != nil {
		return nil, err
	}
	key, err := secret.New(16)
	if err != nil {
		return nil, fmt.Errorf("fscrypt: %w", err)
	}
	err = f.master.use(func() error {
		f.master.expand(key.Bytes(), contextDirHash, f.c.Nonce[:])
		return nil
	})
	if err != nil {
		key.Wipe()
		return nil, fmt.Errorf("fscrypt: key of hashes: %w", err)
	}
	return &DirHash{key}, nil
}

// Sum is the hash of a name that has been casefolded: SipHash-2-4.
func (h *DirHash) Sum(name []byte) uint64 { return sipHash(h.key.Bytes(), name) }

// Wipe erases the key. It may be called again.
func (h *DirHash) Wipe() { h.key.Wipe() }

// ctsCipher is CBC-CTS, whose IV is the first half.
type ctsCipher struct {
	b interface {
		cts.Block
		Wipe()
	}
}

func newAESCTS(key []byte) (nameCipher, error) {
	b, err := aes.NewBlocks(key)
	if err != nil {
		return nil, err
	}
	return ctsCipher{b}, nil
}

func newSM4CTS(key []byte) (nameCipher, error) {
	b, err := sm4xts.NewBlocks(key)
	if err != nil {
		return nil, err
	}
	return ctsCipher{b}, nil
}

func (c ctsCipher) encrypt(dst, src []byte, iv *[32]byte) {
	cts.Encrypt(c.b, dst, src, (*[16]byte)(iv[:16]))
}

func (c ctsCipher) decrypt(dst, src []byte, iv *[32]byte) {
	cts.Decrypt(c.b, dst, src, (*[16]byte)(iv[:16]))
}

func (c ctsCipher) Wipe() { c.b.Wipe() }

type adiantumCipher struct{ *adiantum.Bytes }

func newAdiantum(key []byte) (nameCipher, error) {
	b, err := adiantum.NewBytes(key)
	if err != nil {
		return nil, err
	}
	return adiantumCipher{b}, nil
}

func (c adiantumCipher) encrypt(dst, src []byte, iv *[32]byte) { c.Encrypt(dst, src, limbs(iv)) }
func (c adiantumCipher) decrypt(dst, src []byte, iv *[32]byte) { c.Decrypt(dst, src, limbs(iv)) }

func limbs(iv *[32]byte) (n [4]uint64) {
	for i := range n {
		n[i] = binary.LittleEndian.Uint64(iv[8*i:])
	}
	return n
}

type hctr2Cipher struct{ *hctr2.Cipher }

func newHCTR2(key []byte) (nameCipher, error) {
	c, err := hctr2.New(key, MinEncrypted) // there are no data units
	if err != nil {
		return nil, err
	}
	return hctr2Cipher{c}, nil
}

func (c hctr2Cipher) encrypt(dst, src []byte, iv *[32]byte) { c.EncryptBytes(dst, src, iv) }
func (c hctr2Cipher) decrypt(dst, src []byte, iv *[32]byte) { c.DecryptBytes(dst, src, iv) }
