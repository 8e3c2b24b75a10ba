package luks

import (
	"context"
	"fmt"
	"time"
)

// KDFOptions say how a new passphrase is stretched. The zero value is what cryptsetup
// does: Argon2id (LUKS1: PBKDF2) that takes two seconds on this machine.
type KDFOptions struct {
	Type string // argon2id, argon2i, pbkdf2; "": the version's own
	// Hash of pbkdf2 and of the anti-forensic split; "": that of the header. LUKS1 has
	// one for all keyslots.
	Hash string
	// Time is how long one derivation is to take here, up to an hour; 0: 2 s.
	Time time.Duration
	// Iterations of pbkdf2 (1000 to 2^31-1) or passes of Argon2 (4 to 2^16). 0: as many
	// as take Time, see Benchmark. With others nothing is measured.
	Iterations int
	// Memory of Argon2 in KiB, 32 to 4 GiB; 0: 1 GiB. It is the most if Time decides,
	// else exactly that (or half of the machine's if it is 0 and that is less).
	Memory int
	CPUs   int // lanes of Argon2, 1 to 4; 0: 4, or as many as there are processors
}

const (
	saltBytes = 32
	// A digest is computed once for each keyslot that is tried: cryptsetup spends
	// this on it.
	digestTime = 125 * time.Millisecond
)

// complete checks the options, and fills in their type and hash.
func (o KDFOptions) complete(version int, hash string) (KDFOptions, error) {
	if o.Hash == "" {
		o.Hash = hash
	}
	if o.Type == "" {
		o.Type = "argon2id"
		if version == 1 {
			o.Type = "pbkdf2"
		}
	}
	switch {
	case version == 1 && o.Type != "pbkdf2":
		return o, fmt.Errorf("kdf %q: LUKS1 has pbkdf2 only", o.Type)
	case o.Time < 0 || o.Time > time.Hour:
		return o, fmt.Errorf("kdf time: %v is not up to an hour", o.Time)
	case o.Type == "pbkdf2" && (o.Memory != 0 || o.CPUs != 0):
		return o, fmt.Errorf("kdf pbkdf2 takes neither memory nor lanes")
	}
	if err := checkHash(o.Hash); err != nil {
		return o, err
	}
	var err error
	if o.Iterations != 0 {
		_, err = o.cost(0).force(o)
	} else {
		_, err = o.cost(0).complete()
	}
	return o, err
}

// cost is what the options ask for, for a key of n bytes.
func (o KDFOptions) cost(n int) Cost {
	return Cost{Type: o.Type, Hash: o.Hash, Time: o.Time, Memory: o.Memory, CPUs: o.CPUs, KeySize: n}
}

// newKDF chooses the parameters of a derivation of a key of n bytes, and a salt. It
// blocks for as long as the measurement takes, see Benchmark. o is complete.
func newKDF(ctx context.Context, o KDFOptions, n int) (k KDF, err error) {
	c := o.cost(n)
	if o.Iterations == 0 {
		k, err = Benchmark(ctx, c)
	} else {
		k, err = c.force(o)
	}
	if err != nil {
		return KDF{}, err
	}
	k.Salt, err = randomBytes(saltBytes)
	return k, err
}

// force takes parameters as they are asked for: cryptsetup's --pbkdf-force-iterations.
func (c Cost) force(o KDFOptions) (KDF, error) {
	full, err := c.complete()
	if err != nil {
		return KDF{}, err
	}
	k := KDF{Type: o.Type, Hash: o.Hash, Iterations: o.Iterations}
	lo, hi, what := minIterations, 1<<31-1, "iterations"
	if k.Type != "pbkdf2" {
		lo, hi, what = minPasses, maxPasses, "passes"
		// What is named is not made less for a machine that has less.
		k = KDF{Type: o.Type, Time: o.Iterations, Memory: o.Memory, CPUs: o.CPUs}
		if k.CPUs == 0 {
			k.CPUs = full.CPUs
		}
		if k.Memory == 0 {
			k.Memory = full.Memory
		}
		if k.Memory < 8*k.CPUs {
			return KDF{}, fmt.Errorf("kdf memory: %d KiB are too little for %d lanes: 8 for each", k.Memory, k.CPUs)
		}
	}
	if o.Iterations < lo || o.Iterations > hi {
		return KDF{}, fmt.Errorf("kdf %s: %d is not %d to %d", what, o.Iterations, lo, hi)
	}
	return k, nil
}

// digestIterations are those of the digest of a new volume key.
func digestIterations(ctx context.Context, o KDFOptions, hash string) (int, error) {
	if o.Iterations != 0 {
		return minIterations, nil
	}
	k, err := Benchmark(ctx, Cost{Type: "pbkdf2", Hash: hash, Time: digestTime, KeySize: digest1})
	return k.Iterations, err
}
