package main

import (
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"keyway/internal/size"
	"keyway/luks"
)

// A kdfFlags says how a new passphrase is stretched, in cryptsetup's words.
type kdfFlags struct {
	kdf, hash, iterTime, memory string
	parallel, iterations        int
	cipher                      string
	bits                        int
}

func (k *kdfFlags) add(f *pflag.FlagSet, hash bool) {
	f.StringVar(&k.kdf, "pbkdf", "", "how passphrases are stretched: `name`: argon2id, argon2i or pbkdf2 (default argon2id, of LUKS1 pbkdf2)")
	f.StringVar(&k.iterTime, "iter-time", "2000", "`milliseconds`, or a duration such as 2s, that trying a passphrase takes on this machine")
	f.StringVar(&k.memory, "pbkdf-memory", "", "`KiB`, or a size such as 512M, that argon2 takes at most (default 1G, at most half of what the machine or the control group has)")
	f.IntVar(&k.parallel, "pbkdf-parallel", 0, "`lanes` of argon2, 1 to 4 (default: as many as there are processors)")
	f.IntVar(&k.iterations, "pbkdf-force-iterations", 0, "`passes` of argon2 or iterations of pbkdf2, instead of measuring")
	f.StringVar(&k.cipher, "keyslot-cipher", "", "`cipher` of the key material (LUKS2; default: that of the data)")
	f.IntVar(&k.bits, "keyslot-key-size", 0, "`bits` of the key of that cipher")
	if hash {
		f.StringVar(&k.hash, "hash", "", "`hash` of pbkdf2 (default: that of the header)")
	}
}

// options checks what does not depend on the header.
func (k *kdfFlags) options(f *pflag.FlagSet) (o luks.KeyOptions, err error) {
	o = luks.KeyOptions{Cipher: k.cipher, KDF: luks.KDFOptions{Type: k.kdf, Hash: k.hash, Iterations: k.iterations, CPUs: k.parallel}}
	if f.Changed("iter-time") || k.iterations == 0 {
		if o.KDF.Time, err = millis(k.iterTime); err != nil {
			return o, err
		}
	}
	switch {
	case f.Changed("iter-time") && k.iterations != 0:
		return o, misusef("--iter-time measures, and --pbkdf-force-iterations says how many: one of them")
	case f.Changed("pbkdf-force-iterations") && k.iterations < 1:
		return o, misusef("--pbkdf-force-iterations %d is not positive", k.iterations)
	case f.Changed("pbkdf-parallel") && k.parallel < 1:
		return o, misusef("--pbkdf-parallel %d is not positive", k.parallel)
	}
	if k.memory != "" {
		n, err := unitsOf(k.memory, 1<<10)
		if err != nil || n < 1<<10 || n>>10 > math.MaxInt32 {
			return o, misusef("--pbkdf-memory %q is no number of KiB, nor a size such as 512M", k.memory)
		}
		o.KDF.Memory = int(n >> 10)
	}
	o.KeySize, err = bitsOf("--keyslot-key-size", k.bits)
	return o, err
}

// millis reads a time as cryptsetup takes it, or as a duration.
func millis(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, e := strconv.ParseInt(s, 10, 32); e == nil {
		d, err = time.Duration(n)*time.Millisecond, nil
	}
	if err != nil || d <= 0 {
		return 0, misusef("--iter-time %q is neither a number of milliseconds nor a duration such as 2s", s)
	}
	return d, nil
}

// unitsOf reads a number that counts units of bytes, as cryptsetup does, or a size
// with a unit of its own: bytes.
func unitsOf(s string, unit int64) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/unit {
			return 0, strconv.ErrRange
		}
		return n * unit, nil
	}
	return size.Parse(s)
}

// bitsOf returns the bytes of a key that has so many bits.
func bitsOf(flag string, bits int) (int, error) {
	if bits < 0 || bits%8 != 0 {
		return 0, misusef("%s %d: the size of a key is in bits, a multiple of 8", flag, bits)
	}
	return bits / 8, nil
}
