package memory

import (
	"bytes"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha512"
	"fmt"

	"keyway/test/naive"
)

// What fscrypt derives keys for (Documentation/filesystems/fscrypt.rst): the byte behind
// the first eight of HKDF's info.
const (
	fscryptIdentifier = 1
	fscryptPerFile    = 2
	fscryptDirect     = 3
	fscryptLblk64     = 4
	fscryptDirHash    = 5
	fscryptLblk32     = 6
	fscryptInodeHash  = 7
)

// A Policy is what keys depend on, numbered as on disk.
type Policy struct {
	Version, Contents, Names, Flags int
	UUID                            []byte // of the file system
}

// A Master is a master key of fscrypt.
type Master struct {
	set      *Set
	name     string
	key, prk []byte
}

// AddMaster adds a master key, and what HKDF has in hand to derive keys of it.
func (s *Set) AddMaster(name string, key []byte) *Master {
	prk, err := hkdf.Extract(sha512.New, key, nil)
	if err != nil {
		panic(err)
	}
	s.AddKey(name, key)
	// The padded key of the extraction is that of an empty salt, no secret: what is behind
	// it is the master key, and the inner digest.
	inner := sha512.New()
	inner.Write(bytes.Repeat([]byte{0x36}, inner.BlockSize()))
	inner.Write(key)
	s.Add(name+", inner digest of the extraction", inner.Sum(nil))
	s.AddKey(name+", extracted key", prk)
	s.addHMAC(name+", extracted key", sha512.New, prk)
	m := &Master{s, name, key, prk}
	s.Add(name+", hash of inodes", m.expand(fscryptInodeHash, nil, 16))
	return m
}

func (m *Master) expand(what byte, extra []byte, n int) []byte {
	b, err := hkdf.Expand(sha512.New, m.prk, "fscrypt\x00"+string(what)+string(extra), n)
	if err != nil {
		panic(err)
	}
	return b
}

// Identifier names the key in policies; it is no secret.
func (m *Master) Identifier() []byte { return m.expand(fscryptIdentifier, nil, 16) }

// AddFile adds the key of the contents of a file.
func (m *Master) AddFile(p Policy, nonce []byte) { m.add(p, p.Contents, nonce) }

// AddDirectory adds the keys of the names in a directory and of their hashes.
func (m *Master) AddDirectory(p Policy, nonce []byte) {
	m.add(p, p.Names, nonce)
	m.set.Add(fmt.Sprintf("%s, hash of names, nonce %x", m.name, nonce), m.expand(fscryptDirHash, nonce, 16))
}

// add adds a key that a policy has for a mode, with what the cipher makes of it.
func (m *Master) add(p Policy, mode int, nonce []byte) {
	size := map[int]int{1: 64, 4: 32, 5: 16, 6: 16, 7: 32, 8: 16, 9: 32, 10: 32}[mode]
	name := fmt.Sprintf("%s, inode of nonce %x, mode %d", m.name, nonce, mode)
	all := append([]byte{byte(mode)}, p.UUID...)
	var key []byte
	switch {
	case p.Flags&4 != 0 && p.Version == 1:
		key = m.key[:size]
	case p.Version == 1: // AES in ECB, the nonce being its key
		block, err := aes.NewCipher(nonce)
		if err != nil {
			panic(err)
		}
		for at := 0; at < size; at += 16 {
			key = append(key, make([]byte, 16)...)
			block.Encrypt(key[at:], m.key[at:])
		}
	case p.Flags&4 != 0:
		key = m.expand(fscryptDirect, all[:1], size)
	case p.Flags&8 != 0:
		key = m.expand(fscryptLblk64, all, size)
	case p.Flags&16 != 0:
		key = m.expand(fscryptLblk32, all, size)
	default:
		key = m.expand(fscryptPerFile, nonce, size)
	}
	s := m.set
	switch mode {
	case 1:
		s.AddXTS(name, key)
	case 5:
		s.AddESSIV(name, key)
	case 7:
		s.AddSM4(name, key)
	case 8:
		s.AddKey(name, key)
		rk := naive.NewSM4(key)
		s.Add(name+", round keys", naive.Words(rk[:]))
	case 9:
		s.AddAdiantum(name, key, 12)
	default: // AES in CBC, and in HCTR2 with the keys of its hash and its counters
		s.AddKey(name, key)
		s.AddAES(name, key)
		block, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		for i := range byte(2) {
			b := []byte{i, 15: 0}
			block.Encrypt(b, b)
			s.Add(fmt.Sprintf("%s, %d encrypted", name, i), b)
		}
	}
}

// Nonces finds the contexts of a policy of version 2 in the bytes of a file system,
// wherever they are: version, modes, flags and identifier as they stand there, and a nonce.
func (m *Master) Nonces(image []byte, p Policy) (all [][]byte) {
	head := append([]byte{2, byte(p.Contents), byte(p.Names), byte(p.Flags), 0, 0, 0, 0}, m.Identifier()...)
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
