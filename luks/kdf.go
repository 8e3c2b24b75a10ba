package luks

import (
	"context"
	"fmt"

	"keyway/internal/argon2"
	"keyway/internal/digest"
	"keyway/internal/pbkdf2"
)

// newHash returns the hash function that a header names; the caller wipes it.
func newHash(name string) (*digest.Hash, error) {
	if err := checkHash(name); err != nil {
		return nil, err
	}
	return digest.New(name)
}

func checkHash(name string) error {
	if !digest.Known(name) {
		return fmt.Errorf("hash %q: %w", name, ErrUnsupported)
	}
	return nil
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

// derivePBKDF2 is derive for the one that digests use too.
func derivePBKDF2(ctx context.Context, dst, passphrase []byte, hash string, salt []byte, iterations int) error {
	if err := checkHash(hash); err != nil {
		return err
	}
	return pbkdf2.Key(ctx, dst, passphrase, salt, hash, iterations)
}
