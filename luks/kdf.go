package luks

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"unsafe"

	"golang.org/x/crypto/ripemd160"

	"keyway/internal/argon2"
	"keyway/internal/secret"
)

// hashes by the names that headers use.
var hashes = map[string]func() hash.Hash{
	"sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	"ripemd160": ripemd160.New,
}

func hashOf(name string) (func() hash.Hash, error) {
	if h := hashes[name]; h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("hash %q: %w", name, ErrUnsupported)
}

// derive fills dst with the key that a KDF makes of a passphrase. It blocks as
// long as the header asks for, within the limits of its policy, or until ctx is
// done: then dst holds zeroes and the error is that of ctx.
func (k *KDF) derive(ctx context.Context, dst, passphrase []byte) error {
	switch k.Type {
	case "pbkdf2":
		return derivePBKDF2(ctx, dst, passphrase, k.Hash, k.Salt, k.Iterations)
	case "argon2i", "argon2id":
		v := argon2.Argon2id
		if k.Type == "argon2i" {
			v = argon2.Argon2i
		}
		return argon2.Key(ctx, dst, passphrase, k.Salt, argon2.Params{Variant: v, Time: k.Time, Memory: k.Memory, Lanes: k.CPUs})
	}
	return fmt.Errorf("key derivation %q: %w", k.Type, ErrUnsupported)
}

// derivePBKDF2 is RFC 8018, section 5.2. It is cancelled as derive is.
func derivePBKDF2(ctx context.Context, dst, passphrase []byte, hash string, salt []byte, iterations int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := hashOf(hash)
	if err != nil {
		return err
	}
	// The library wants a string: one over the same locked bytes, which it does
	// not keep, instead of a copy that nobody could wipe.
	b, err := pbkdf2.Key(h, unsafe.String(unsafe.SliceData(passphrase), len(passphrase)), salt, iterations, len(dst))
	if err != nil {
		return fmt.Errorf("pbkdf2: %w", err)
	}
	copy(dst, b)
	secret.Wipe(b)
	return nil
}
