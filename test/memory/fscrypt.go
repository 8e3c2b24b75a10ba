package memory

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"fmt"
)

// fscrypt's info of HKDF (Documentation/filesystems/fscrypt.rst): eight bytes and what a
// key is for.
const (
	fscryptIdentifier = 1
	fscryptPerFile    = 2
	fscryptLblk64     = 4
	fscryptDirHash    = 5
)

// A Master is a master key of fscrypt, of version 2.
type Master struct {
	set  *Set
	name string
	prk  []byte
}

// AddMaster adds a master key, and what HKDF has in hand to derive keys of it.
func (s *Set) AddMaster(name string, key []byte) *Master {
	prk, err := hkdf.Extract(sha512.New, key, nil)
	if err != nil {
		panic(err)
	}
	s.AddKey(name, key)
	// The states of the padded key in Extract are those of an empty salt, no secret: what
	// is behind them is the key's bytes, and the inner digest.
	inner := sha512.New()
	inner.Write(bytes.Repeat([]byte{0x36}, inner.BlockSize()))
	inner.Write(key)
	s.Add(name+", inner digest of the extraction", inner.Sum(nil))
	s.AddKey(name+", extracted key", prk)
	s.addHMAC(name+", extracted key", sha512.New, prk)
	return &Master{s, name, prk}
}

func (m *Master) expand(context byte, extra []byte, n int) []byte {
	b, err := hkdf.Expand(sha512.New, m.prk, "fscrypt\x00"+string(context)+string(extra), n)
	if err != nil {
		panic(err)
	}
	return b
}

// Identifier names the key in policies; it is no secret.
func (m *Master) Identifier() []byte { return m.expand(fscryptIdentifier, nil, 16) }

// AddInode adds the keys of an inode that has its own: of contents in AES-256-XTS and of
// names in AES-256-CBC, which are the first bytes of the same key, and of the hashes of
// names.
func (m *Master) AddInode(nonce []byte) {
	name := fmt.Sprintf("%s, inode of nonce %x", m.name, nonce)
	m.set.AddXTS(name, m.expand(fscryptPerFile, nonce, 64))
	m.set.Add(name+", hash of names", m.expand(fscryptDirHash, nonce, 16))
}

// Nonces finds the contexts of a policy in the bytes of a file system, wherever they are:
// version, modes, flags, data unit size and identifier as they stand there, and a nonce.
func (m *Master) Nonces(image []byte, contents, names, flags byte) (all [][]byte) {
	head := append([]byte{2, contents, names, flags, 0, 0, 0, 0}, m.Identifier()...)
	seen := map[string]bool{}
	for {
		at := bytes.Index(image, head)
		if at < 0 {
			return all
		}
		image = image[at+len(head):]
		if n := image[:16]; !seen[string(n)] {
			seen[string(n)] = true
			all = append(all, n)
		}
	}
}
