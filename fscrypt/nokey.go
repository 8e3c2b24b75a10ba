package fscrypt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	noKeyHead  = 8   // bytes of a directory's hashes
	noKeyBytes = 149 // of an encrypted name that a no-key name has verbatim

	// MaxNoKeyName is the length of the longest no-key name in bytes.
	MaxNoKeyName = (noKeyHead + noKeyBytes + sha256.Size) * 8 / 6
)

// A NoKeyName is what stands for an encrypted name in a directory whose key is not
// there: enough to find it, in characters that names may have. It holds the first
// bytes of the encrypted name, and the hash of those that do not fit.
type NoKeyName struct {
	Hash, MinorHash uint32 // by which the file system finds the name in a directory; both 0 in symlinks
	Prefix          []byte // encrypted name, or its first 149 bytes
	Long            bool   // there is more
	Rest            [sha256.Size]byte
}

// base64url without padding.
var noKeyEncoding = base64.RawURLEncoding.Strict()

// NoKey returns the no-key name of an encrypted name. "." and ".." stand for
// themselves: they are never encrypted. ErrName: it is shorter than names are.
func NoKey(hash, minor uint32, encrypted []byte) (NoKeyName, error) {
	if len(encrypted) < MinEncrypted || len(encrypted) > 1<<16 {
		return NoKeyName{}, fmt.Errorf("fscrypt: %w: %d bytes encrypted", ErrName, len(encrypted))
	}
	n := NoKeyName{Hash: hash, MinorHash: minor, Prefix: bytes.Clone(encrypted)}
	if len(encrypted) > noKeyBytes {
		n.Prefix, n.Long = n.Prefix[:noKeyBytes], true
		n.Rest = sha256.Sum256(encrypted[noKeyBytes:])
	}
	return n, nil
}

// String is the name as the kernel lists it.
func (n NoKeyName) String() string {
	b := binary.LittleEndian.AppendUint32(nil, n.Hash)
	b = binary.LittleEndian.AppendUint32(b, n.MinorHash)
	b = append(b, n.Prefix...)
	if n.Long {
		b = append(b, n.Rest[:]...)
	}
	return noKeyEncoding.EncodeToString(b)
}

// ParseNoKey is the inverse of String. ErrNoKeyName: name is none.
func ParseNoKey(name string) (NoKeyName, error) {
	fail := func(why string) (NoKeyName, error) {
		return NoKeyName{}, fmt.Errorf("fscrypt: %w: %s", ErrNoKeyName, why)
	}
	// The decoder skips line ends, also when strict.
	if len(name) > MaxNoKeyName || strings.ContainsAny(name, "\r\n") {
		return fail("too long, or with a line end")
	}
	b, err := noKeyEncoding.DecodeString(name)
	if err != nil {
		return fail("not base64url")
	}
	var n NoKeyName
	switch rest := len(b) - noKeyHead; {
	case rest < MinEncrypted:
		return fail("too short")
	case rest == noKeyBytes+sha256.Size:
		n.Long = true
		n.Rest = [sha256.Size]byte(b[noKeyHead+noKeyBytes:])
		b = b[:noKeyHead+noKeyBytes]
	case rest > noKeyBytes:
		return fail("neither a whole name nor a shortened one")
	}
	n.Hash, n.MinorHash = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	n.Prefix = b[noKeyHead:]
	return n, nil
}

// Encrypted returns the encrypted name if n has all of it.
func (n NoKeyName) Encrypted() ([]byte, bool) { return n.Prefix, !n.Long }

// Matches reports whether n stands for an encrypted name.
func (n NoKeyName) Matches(encrypted []byte) bool {
	if !n.Long {
		return bytes.Equal(encrypted, n.Prefix)
	}
	return len(encrypted) > noKeyBytes && bytes.Equal(encrypted[:noKeyBytes], n.Prefix) &&
		sha256.Sum256(encrypted[noKeyBytes:]) == n.Rest
}
