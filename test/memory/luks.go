package memory

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/blake2b"

	"keyway/test/naive"
)

// A KDF says how a key is made of a passphrase, in the words of LUKS2.
type KDF struct {
	Type       string `json:"type"` // pbkdf2, argon2i, argon2id
	Hash       string `json:"hash"`
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	Time       int    `json:"time"`
	Memory     int    `json:"memory"` // KiB
	CPUs       int    `json:"cpus"`
}

var hashes = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// AddKDF adds what makes the key of so many bytes, and returns the key.
func (s *Set) AddKDF(name string, k KDF, passphrase []byte, size int) []byte {
	var key []byte
	switch k.Type {
	case "pbkdf2":
		newHash := hashes[k.Hash]
		var err error
		if key, err = pbkdf2.Key(newHash, string(passphrase), k.Salt, k.Iterations, size); err != nil {
			panic(err)
		}
		s.addHMAC(name+", PBKDF2", newHash, passphrase)
	case "argon2i":
		key = argon2.Key(passphrase, k.Salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(size))
		s.addArgon2(name+", Argon2", k, 1, passphrase, size)
	case "argon2id":
		key = argon2.IDKey(passphrase, k.Salt, uint32(k.Time), uint32(k.Memory), uint8(k.CPUs), uint32(size))
		s.addArgon2(name+", Argon2", k, 2, passphrase, size)
	default:
		panic("memory: KDF " + k.Type)
	}
	s.AddXTS(name+", derived key", key)
	return key
}

// addHMAC adds the padded key of HMAC (FIPS 198-1) and what a hash has of it behind
// each pad, which is as good as the key.
func (s *Set) addHMAC(name string, newHash func() hash.Hash, key []byte) {
	h := newHash()
	if len(key) > h.BlockSize() {
		h.Write(key)
		key = h.Sum(nil)
		s.Add(name+", digest of the long key", key)
	}
	for _, p := range []struct {
		name string
		pad  byte
	}{{"inner", 0x36}, {"outer", 0x5c}} {
		block := make([]byte, newHash().BlockSize())
		copy(block, key)
		for i := range block {
			block[i] ^= p.pad
		}
		s.Add(name+", "+p.name+" pad", block)
		h := newHash()
		h.Write(block)
		s.Add(name+", state behind the "+p.name+" pad", state(h))
	}
}

// state is the chaining value of a SHA hash, in the order of its standard.
func state(h hash.Hash) []byte {
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err)
	}
	const magic = 4
	return b[magic : len(b)-8-h.BlockSize()]
}

// addArgon2 adds H0, of which the whole rest can be made, and the first blocks
// (RFC 9106, section 3.2).
func (s *Set) addArgon2(name string, k KDF, kind uint32, passphrase []byte, size int) {
	le := binary.LittleEndian.AppendUint32
	var b []byte
	for _, n := range []int{k.CPUs, size, k.Memory, k.Time, 0x13} {
		b = le(b, uint32(n))
	}
	b = le(b, kind)
	b = append(le(b, uint32(len(passphrase))), passphrase...)
	b = append(le(b, uint32(len(k.Salt))), k.Salt...)
	b = le(le(b, 0), 0)
	h0 := blake2b.Sum512(b)
	s.Add(name+", H0", h0[:])
	for lane := range k.CPUs {
		for i := range 2 {
			block := longHash(1024, le(le(h0[:], uint32(i)), uint32(lane)))
			s.Add(fmt.Sprintf("%s, block %d of lane %d", name, i, lane), block)
		}
	}
}

// longHash is H' (section 3.3).
func longHash(n int, in []byte) []byte {
	v := blake2b.Sum512(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), in...))
	var out []byte
	for ; n-len(out) > 64; v = blake2b.Sum512(v[:]) {
		out = append(out, v[:32]...)
	}
	return append(out, v[:]...)
}

// AddStripes adds the anti-forensic stripes of a volume key of n bytes, decrypted from
// the area of a keyslot, and each value on the way to the key, which it returns.
func (s *Set) AddStripes(name string, area, key []byte, n int, newHash func() hash.Hash) []byte {
	m := append([]byte(nil), area...)
	for at := 0; at < len(m); at += 512 {
		naive.Decrypt(key, uint64(at/512), m[at:][:512])
	}
	s.AddBytes(name+", stripes", m)
	m = m[:4000*n]
	d := make([]byte, n)
	for at := 0; ; at += n {
		for i := range d {
			d[i] ^= m[at+i]
		}
		if at == len(m)-n {
			return d
		}
		s.AddBytes(name+", merged stripes", d)
		var mixed []byte
		for i := 0; len(mixed) < n; i++ {
			h := newHash()
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(i)))
			h.Write(d[i*h.Size() : min(n, (i+1)*h.Size())])
			mixed = h.Sum(mixed)
		}
		// The last digest may be cut short.
		d = mixed[:n]
		s.AddBytes(name+", merged stripes", d)
	}
}
