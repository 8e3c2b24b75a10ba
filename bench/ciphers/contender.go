package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/measure"
	"keyway/internal/roofline"
)

// A job is what all contenders of a mode do by turns.
type job struct {
	mode    blkcrypto.Mode
	decrypt bool
	unit    int // bytes
	units   int // in a call
}

func (j job) size() int { return j.unit * j.units }

func (j job) op() string {
	if j.decrypt {
		return "decrypt"
	}
	return "encrypt"
}

// Kinds of contenders.
const (
	ours  = "ours"
	peer  = "peer"
	bound = "bound" // what nobody can exceed
)

// A contender does jobs of one mode.
type contender struct {
	name, kind string
	used       bool // by the product
	algorithm  string
	// rate is how many bytes a second it does.
	rate func(ctx context.Context, j job, d time.Duration) (float64, error)
	// sum is the FNV-1a of the ciphertext of the pattern, after a look whether it
	// decrypts again; nil: there is none.
	sum func(j job) (uint64, error)
}

// firstDUN numbers the first data unit of the pattern.
const firstDUN = 0x1122334455

// pattern is known text and a known key, the same as in peers.c.
func pattern(n, keySize int) (text, key []byte) {
	text, key = make([]byte, n), make([]byte, keySize)
	for i := range text {
		text[i] = byte(uint32(i) * 2654435761 >> 11)
	}
	for i := range key {
		key[i] = byte(i*73 + 11)
	}
	return text, key
}

// sumOf is contender.sum of an opened cipher.
func sumOf(c cipher.Cipher, j job) (uint64, error) {
	text, _ := pattern(j.size(), 0)
	made := make([]byte, len(text))
	c.Encrypt(made, text, blkcrypto.DUN64(firstDUN))
	h := fnv.New64a()
	h.Write(made)
	c.Decrypt(made, made, blkcrypto.DUN64(firstDUN))
	if !bytes.Equal(made, text) {
		return 0, errors.New("decryption does not give the plaintext")
	}
	return h.Sum64(), nil
}

// local is a contender in this process.
func local(rig *measure.Rig, name, kind, algorithm string, open func(unit int, key []byte) (cipher.Cipher, error)) contender {
	with := func(j job, f func(c cipher.Cipher) error) error {
		_, key := pattern(0, j.mode.KeySize())
		c, err := open(j.unit, key)
		if err != nil {
			return err
		}
		defer c.Wipe()
		return f(c)
	}
	return contender{
		name: name, kind: kind, algorithm: algorithm,
		rate: func(ctx context.Context, j job, d time.Duration) (v float64, err error) {
			err = with(j, func(c cipher.Cipher) error {
				if in, ok := c.(inPlacer); ok {
					v = in.rate(ctx, j, d)
				} else {
					v = rig.Crypt(ctx, c, j.decrypt, j.size(), 1, d)
				}
				return nil
			})
			return v, err
		},
		sum: func(j job) (h uint64, err error) {
			err = with(j, func(c cipher.Cipher) (err error) {
				h, err = sumOf(c, j)
				return err
			})
			return h, err
		},
	}
}

// bounds are what limits a mode: AES rounds in the widest vectors, where it
// consists of them, and copying.
func bounds(rig *measure.Rig, m blkcrypto.Mode) (all []contender) {
	widths := rig.Widths()
	if n := measure.AESRounds(m); n > 0 && len(widths) > 0 {
		all = append(all, contender{name: aesRounds, kind: bound, rate: func(ctx context.Context, _ job, d time.Duration) (best float64, err error) {
			for _, bits := range widths {
				best = max(best, rig.Rounds(ctx, bits, 1, d/time.Duration(len(widths))))
			}
			return roofline.BytesPerSecond(best, n), nil
		}})
	}
	return append(all, contender{name: memcpy, kind: bound, rate: func(ctx context.Context, j job, d time.Duration) (float64, error) {
		return rig.Copy(ctx, j.size(), 1, d), nil
	}})
}

// contenders are all that do mode m here, ours first.
func contenders(rig *measure.Rig, m blkcrypto.Mode, workers []*worker) (all []contender) {
	for _, s := range measure.Subjects(m) {
		c := local(rig, s.Impl, ours, m.String(), func(unit int, key []byte) (cipher.Cipher, error) { return s.OpenKey(key, unit) })
		c.used = s.Default
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil
	}
	for _, p := range goPeers {
		if p.modes[m] != nil {
			all = append(all, local(rig, p.name, peer, m.String(), p.modes[m]))
		}
	}
	for _, w := range workers {
		all = append(all, w.contenders(m)...)
	}
	return append(all, bounds(rig, m)...)
}

// agree checks that everything that claims to be one algorithm is.
func agree(all []contender, m blkcrypto.Mode) error {
	for _, unit := range []int{512, 4096} {
		sums, by := map[string]uint64{}, map[string]string{}
		for _, c := range all {
			if c.sum == nil {
				continue
			}
			h, err := c.sum(job{mode: m, unit: unit, units: 9})
			if err != nil {
				return fmt.Errorf("%v by %s: %w", m, c.name, err)
			}
			if first, ok := by[c.algorithm]; ok && sums[c.algorithm] != h {
				return fmt.Errorf("%v, units of %d bytes: %s and %s give different ciphertexts", m, unit, first, c.name)
			}
			sums[c.algorithm], by[c.algorithm] = h, c.name
		}
	}
	return nil
}

// setup is what a key costs, and a call beside its work.
type setup struct {
	Mode   string  `json:"mode"`
	Impl   string  `json:"implementation"`
	New    float64 `json:"new_ns"`
	Wipe   float64 `json:"wipe_ns"`
	Allocs float64 `json:"allocations_per_call"`
}

// setups measures the keys of our implementations, by turns, in a process that has
// others: locked memory is there then, and need not be asked of the system.
func setups(modes []blkcrypto.Mode, rounds int) (all []setup, err error) {
	const batch = 64
	type times struct{ open, wipe []float64 }
	var subjects []measure.Subject
	for _, m := range modes {
		subjects = append(subjects, measure.Subjects(m)...)
	}
	t := make([]times, len(subjects))
	runtime.LockOSThread() // for its clock
	defer runtime.UnlockOSThread()
	for range max(9, rounds) {
		for i, s := range subjects {
			_, key := pattern(0, s.Mode.KeySize())
			var made, others [batch]cipher.Cipher
			open := func(c *[batch]cipher.Cipher) (err error) {
				for k := 0; k < batch && err == nil; k++ {
					c[k], err = s.OpenKey(key, 4096)
				}
				return err
			}
			wipe := func(c *[batch]cipher.Cipher) {
				for _, c := range c {
					c.Wipe()
				}
			}
			// Every other place is free afterwards, and none of the memory is.
			for k := range batch {
				if others[k], err = s.OpenKey(key, 4096); err != nil {
					return nil, err
				}
				if made[k], err = s.OpenKey(key, 4096); err != nil {
					return nil, err
				}
			}
			wipe(&made)
			begin := measure.ThreadCPU()
			if err := open(&made); err != nil {
				return nil, err
			}
			middle := measure.ThreadCPU()
			wipe(&made)
			end := measure.ThreadCPU()
			wipe(&others)
			t[i].open = append(t[i].open, float64((middle-begin).Nanoseconds())/batch)
			t[i].wipe = append(t[i].wipe, float64((end-middle).Nanoseconds())/batch)
		}
	}
	for i, s := range subjects {
		c, err := s.Open(512)
		if err != nil {
			return nil, err
		}
		text := make([]byte, 8*512)
		allocs := allocations(100, func() {
			c.Encrypt(text, text, blkcrypto.DUN{})
			c.Decrypt(text, text, blkcrypto.DUN{})
		})
		c.Wipe()
		all = append(all, setup{s.Mode.String(), s.Impl, measure.Median(t[i].open), measure.Median(t[i].wipe), allocs})
	}
	return all, nil
}

// allocations counts those of a call of f.
func allocations(calls int, f func()) float64 {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / uint64(calls)) // fewer than one a call are the runtime's own
}
