package luks

import (
	"fmt"
	"strings"
)

// A Policy says what a well-formed header may ask for.
//
// Both policies bound what a passphrase costs, and neither ever opens with a null
// cipher: cryptsetup takes one, and who can write the header of a volume could
// have it mounted unencrypted that way, so that what is written to it can be read.
type Policy int

const (
	// Permissive takes what cryptsetup can make: Argon2 with up to 4 GiB and 2^16
	// passes, 2^31-1 iterations of PBKDF2, and ciphers that cannot be opened here,
	// which fail only when they are used.
	Permissive Policy = iota
	// Strict is for headers that somebody else may have written: only the ciphers
	// and hashes below, Argon2 with up to 1 GiB, 64 passes and 8 lanes, up to 2^25
	// iterations, and segments that lie on the data device, behind the header.
	Strict
)

// String returns the name, as ParsePolicy takes it.
func (p Policy) String() string {
	if p == Strict {
		return "strict"
	}
	return "permissive"
}

// ParsePolicy returns the policy with the given name: strict or permissive.
func ParsePolicy(name string) (Policy, error) {
	switch name {
	case "strict":
		return Strict, nil
	case "permissive":
		return Permissive, nil
	}
	return 0, fmt.Errorf("header policy %q is neither strict nor permissive", name)
}

// limits are upper bounds, of time and memory for one passphrase.
type limits struct {
	iterations int
	time       int
	memory     int // KiB
	cpus       int
}

// 4 GiB and 4 lanes are the most that cryptsetup makes, 1 GiB what it takes by
// itself; it calibrates PBKDF2 for 2 s, some 2^23 iterations on fast machines.
func (p Policy) limits() limits {
	if p == Strict {
		return limits{1 << 25, 64, 1 << 20, 8}
	}
	return limits{1<<31 - 1, 1 << 16, 4 << 20, 64}
}

var strictCiphers = map[string]bool{
	"aes-xts-plain64": true, "aes-cbc-essiv:sha256": true,
	"serpent-xts-plain64": true, "twofish-xts-plain64": true, "sm4-xts-plain64": true,
	"xchacha12,aes-adiantum-plain64": true, "xchacha20,aes-adiantum-plain64": true,
}

var strictHashes = map[string]bool{"sha1": true, "sha256": true, "sha384": true, "sha512": true, "ripemd160": true}

// null reports whether a cipher of that name does nothing. An IV mode may be null.
func null(cipher string) bool {
	c := strings.ToLower(cipher)
	name, _, _ := strings.Cut(c, "-")
	return name == "" || name == "null" || strings.Contains(c, "cipher_null")
}

func forbidden(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, ErrPolicy)...)
}

// allow applies the policy; data is the size of the data device, -1 if unknown.
func (h *Header) allow(data int64) error {
	for i := range h.Keyslots {
		k := &h.Keyslots[i]
		if k.Type != "luks2" {
			continue
		}
		if err := h.policy.allowSlot(k); err != nil {
			return fmt.Errorf("keyslot %d: %w", k.ID, err)
		}
	}
	for i := range h.Digests {
		if d := &h.Digests[i]; d.Type == "pbkdf2" {
			if err := h.policy.allowPBKDF2(d.Hash, d.Iterations); err != nil {
				return fmt.Errorf("digest %d: %w", d.ID, err)
			}
		}
	}
	for i := range h.Segments {
		s := &h.Segments[i]
		if s.Type != "crypt" {
			continue
		}
		if err := h.policy.allowCipher(s.Encryption); err != nil {
			return fmt.Errorf("segment %d: encryption: %w", s.ID, err)
		}
		if h.policy == Strict && data >= 0 && (s.Offset > data || s.Size > data-s.Offset || s.Size < 0 && s.Offset == data) {
			return forbidden("segment %d: begins at byte %d and has %s of a device of %d", s.ID, s.Offset, sizeText(s.Size), data)
		}
	}
	return nil
}

func sizeText(n int64) string {
	if n < 0 {
		return "the rest"
	}
	return fmt.Sprintf("%d bytes", n)
}

func (p Policy) allowCipher(c string) error {
	if null(c) {
		return forbidden("%q encrypts nothing", c)
	}
	if p == Strict && !strictCiphers[c] {
		return forbidden("cipher %q is not on the list of the strict policy", c)
	}
	return nil
}

func (p Policy) allowHash(h string) error {
	if p == Strict && !strictHashes[h] {
		return forbidden("hash %q is not on the list of the strict policy", h)
	}
	return nil
}

func (p Policy) allowPBKDF2(hash string, iterations int) error {
	if most := p.limits().iterations; iterations > most {
		return forbidden("iterations: %d are more than %d", iterations, most)
	}
	return p.allowHash(hash)
}

func (p Policy) allowSlot(k *Keyslot) error {
	if err := p.allowCipher(k.Area.Encryption); err != nil {
		return fmt.Errorf("area.encryption: %w", err)
	}
	if err := p.allowHash(k.AF.Hash); err != nil {
		return fmt.Errorf("af.hash: %w", err)
	}
	d := &k.KDF
	if d.Type == "pbkdf2" {
		if err := p.allowPBKDF2(d.Hash, d.Iterations); err != nil {
			return fmt.Errorf("kdf: %w", err)
		}
		return nil
	}
	l := p.limits()
	switch {
	case d.Time > l.time:
		return forbidden("kdf.time: %d passes are more than %d", d.Time, l.time)
	case d.Memory > l.memory:
		return forbidden("kdf.memory: %d KiB are more than %d", d.Memory, l.memory)
	case d.CPUs > l.cpus:
		return forbidden("kdf.cpus: %d are more than %d", d.CPUs, l.cpus)
	}
	return nil
}
