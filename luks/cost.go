package luks

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Cost says what opening a keyslot shall cost on this machine. The zero value is
// what cryptsetup 2.6 does by itself for LUKS2.
type Cost struct {
	Type   string        // argon2id, argon2i or pbkdf2; "": argon2id
	Hash   string        // of pbkdf2; "": sha256
	Time   time.Duration // of one derivation; 0: 2 s
	Memory int           // argon2: KiB at most, 32 to 4 GiB; 0: 1 GiB. Half of the machine's memory is never exceeded.
	CPUs   int           // argon2: lanes at most, 1 to 4; 0: 4. The number of CPUs is never exceeded.
	// KeySize is the length in bytes of the key to derive, that of the cipher of the
	// keyslot's area. It matters for pbkdf2: two digests cost twice. 0: 64.
	KeySize int
}

// The bounds of cryptsetup 2.6, for what it makes.
const (
	minIterations = 1000 // NIST SP 800-132, section 5.2
	minPasses     = 4
	maxPasses     = 1 << 16 // of the permissive policy
	minMemory     = 32      // KiB
	maxMemory     = 4 << 20 // KiB
	maxLanes      = 4
	firstMemory   = 64 << 10 // KiB: less tells little of the speed of memory
)

// Benchmark finds parameters with which one derivation takes about c.Time on this
// machine, by trying: that takes a few times c.Time for Argon2, and less than 0.2 s
// for PBKDF2. The KDF that it returns has no salt. Argon2 gets memory first, and at
// least 4 passes; PBKDF2 at least 1000 iterations: so a short c.Time may be missed.
// The time of Argon2 is that of the clock, with all lanes, and of PBKDF2 the
// processor's. cryptsetup 2.6 takes up to three times as long for the same parameters
// of Argon2, and up to twice for those of PBKDF2.
func Benchmark(ctx context.Context, c Cost) (KDF, error) {
	c, err := c.complete()
	if err != nil {
		return KDF{}, fmt.Errorf("luks: %w", err)
	}
	k := KDF{Type: c.Type, Salt: []byte("0123456789abcdef0123456789abcdef")}
	size, digests := c.KeySize, 1
	measure := func() (time.Duration, error) {
		dst := make([]byte, size) // of no real passphrase
		runtime.LockOSThread()    // the processor's time is that of a thread
		defer runtime.UnlockOSThread()
		begin := clock(c.Type)
		if err := k.derive(ctx, dst, []byte("passphrase")); err != nil {
			return 0, err
		}
		return (clock(c.Type) - begin) * time.Duration(digests), nil
	}
	if c.Type == "pbkdf2" {
		h, missing := newHash(c.Hash)
		if missing != nil {
			return KDF{}, fmt.Errorf("luks: %w", missing)
		}
		defer h.Wipe()
		k.Hash = c.Hash
		// One digest, on this thread; cryptsetup computes one behind the other, and
		// the volume may be opened with it.
		digests = (size + h.Size() - 1) / h.Size()
		size = min(size, h.Size())
		k.Iterations, err = findIterations(c.Time, func(n int) (time.Duration, error) {
			k.Iterations = n
			return measure()
		})
	} else {
		k.CPUs = c.CPUs
		k.Time, k.Memory, err = findArgon2(c.Time, max(minMemory, 8*c.CPUs), c.Memory, func(passes, memory int) (time.Duration, error) {
			k.Time, k.Memory = passes, memory
			return measure()
		})
	}
	if err != nil {
		return KDF{}, fmt.Errorf("luks: measure %s: %w", c.Type, err)
	}
	k.Salt = nil
	return k, nil
}

// complete checks c and fills in the defaults.
func (c Cost) complete() (Cost, error) {
	switch c.Type {
	case "":
		c.Type = "argon2id"
	case "argon2id", "argon2i", "pbkdf2":
	default:
		return c, fmt.Errorf("key derivation %q is not argon2id, argon2i or pbkdf2", c.Type)
	}
	if c.Hash == "" {
		c.Hash = "sha256"
	}
	if c.Time == 0 {
		c.Time = 2 * time.Second
	}
	if c.KeySize == 0 {
		c.KeySize = 64
	}
	if c.Memory == 0 {
		c.Memory = 1 << 20
	}
	if c.CPUs == 0 {
		c.CPUs = maxLanes
	}
	switch {
	case c.Time < 0:
		return c, fmt.Errorf("a derivation of %v is none", c.Time)
	case c.KeySize < 0 || c.KeySize > maxKey:
		return c, fmt.Errorf("a key of %d bytes is not one of 1 to %d", c.KeySize, maxKey)
	case c.Memory < minMemory || c.Memory > maxMemory:
		return c, fmt.Errorf("memory of %d KiB for a derivation is not %d to %d", c.Memory, minMemory, maxMemory)
	case c.CPUs < 1 || c.CPUs > maxLanes:
		return c, fmt.Errorf("%d CPUs for a derivation are not 1 to %d", c.CPUs, maxLanes)
	}
	c.CPUs = min(c.CPUs, runtime.NumCPU())
	if n := memory(); n > 0 {
		c.Memory = max(int(min(uint64(c.Memory), n/2>>10)), minMemory)
	}
	c.Memory = max(c.Memory, 8*c.CPUs) // Argon2 wants two blocks for each quarter of a lane
	return c, nil
}

// clock is the time that a derivation is measured by.
func clock(kdf string) time.Duration {
	id := int32(unix.CLOCK_MONOTONIC)
	if kdf == "pbkdf2" {
		id = unix.CLOCK_THREAD_CPUTIME_ID
	}
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic("luks: clock: " + err.Error()) // Linux has both
	}
	return time.Duration(t.Nano())
}

// findIterations returns how many take the time that is wanted.
func findIterations(want time.Duration, measure func(n int) (time.Duration, error)) (int, error) {
	const enough = 50 * time.Millisecond
	for n := minIterations; ; n *= 4 {
		took, err := measure(n)
		if err != nil {
			return 0, err
		}
		if took >= enough || n >= 1<<28 {
			most := float64(Permissive.limits().iterations)
			return int(max(minIterations, min(most, float64(n)*float64(want)/float64(max(took, 1))))), nil
		}
	}
}

// findArgon2 returns passes and KiB of memory that take the time that is wanted,
// up to 5 % less or 10 % more, if the bounds allow.
func findArgon2(want time.Duration, least, most int, measure func(passes, memory int) (time.Duration, error)) (passes, memory int, err error) {
	passes, memory = minPasses, max(least, min(most, firstMemory))
	// Where the time does not grow with the parameters, or a busy machine makes it
	// jump, the last estimate is as good as any.
	spent := time.Duration(0)
	for tries := 0; tries < 8 && spent < 3*want; tries++ {
		took, err := measure(passes, memory)
		if err != nil {
			return 0, 0, err
		}
		spent += took
		p, m := nextArgon2(passes, memory, took, want, least, most)
		if took >= want*95/100 && took <= want*110/100 || p == passes && m == memory {
			break
		}
		passes, memory = p, m
	}
	return passes, memory, nil
}

// nextArgon2 guesses better parameters from the time that some took: it grows with
// the product of both. Memory comes first, since it is what costs an attacker most:
// passes are added when it is at its most, and taken away before it shrinks.
func nextArgon2(passes, memory int, took, want time.Duration, least, most int) (int, int) {
	product := float64(passes) * float64(memory) * float64(want) / float64(max(took, 1))
	if float64(minPasses)*float64(most) >= product {
		return minPasses, max(least, int(product/minPasses))
	}
	return min(int(product/float64(most)), maxPasses), most
}
