package main

import (
	"context"
	stdpbkdf2 "crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"os"

	"golang.org/x/crypto/argon2"

	ourargon2 "keyway/internal/argon2"
	"keyway/internal/pbkdf2"
	"keyway/internal/secret"
	"keyway/luks"
)

// work is one run of a contender of ours.
func work(contender, image, keyFile string) error {
	ctx := context.Background()
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := luks.Read(f, info.Size(), luks.Options{})
	if err != nil {
		return err
	}
	if len(h.Keyslots) == 0 {
		return errors.New("the volume has no keyslot")
	}
	k, err := os.Open(keyFile)
	if err != nil {
		return err
	}
	defer k.Close()
	pass, err := secret.ReadFrom(k, 1<<10)
	if err != nil {
		return err
	}
	defer pass.Wipe()
	kdf, size := h.Keyslots[0].KDF, h.Keyslots[0].Area.KeySize
	switch contender {
	case ours:
		v, err := h.Open(ctx, f, pass.Bytes(), luks.AnySlot)
		if err != nil {
			return err
		}
		v.Key.Wipe()
		return nil
	case derivation:
		key, err := secret.New(size)
		if err != nil {
			return err
		}
		defer key.Wipe()
		if kdf.Type == "pbkdf2" {
			return pbkdf2.Key(ctx, key.Bytes(), pass.Bytes(), kdf.Salt, kdf.Hash, kdf.Iterations)
		}
		p := ourargon2.Params{Variant: ourargon2.Argon2id, Time: kdf.Time, Memory: kdf.Memory, Lanes: kdf.CPUs}
		if kdf.Type == "argon2i" {
			p.Variant = ourargon2.Argon2i
		}
		return ourargon2.Key(ctx, key.Bytes(), pass.Bytes(), kdf.Salt, p)
	case library:
		switch kdf.Type {
		case "argon2id":
			argon2.IDKey(pass.Bytes(), kdf.Salt, uint32(kdf.Time), uint32(kdf.Memory), uint8(kdf.CPUs), uint32(size))
		case "argon2i":
			argon2.Key(pass.Bytes(), kdf.Salt, uint32(kdf.Time), uint32(kdf.Memory), uint8(kdf.CPUs), uint32(size))
		case "pbkdf2":
			f := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}[kdf.Hash]
			if f == nil {
				return fmt.Errorf("hash %q", kdf.Hash)
			}
			_, err := stdpbkdf2.Key(f, string(pass.Bytes()), kdf.Salt, kdf.Iterations, size)
			return err
		}
		return nil
	}
	return errors.New("no such contender")
}
