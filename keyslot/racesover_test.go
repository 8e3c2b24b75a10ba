//go:build invariants || race

package keyslot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/interleave"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
	"keyway/keyslot/soft"
)

// R11: nothing here is put back into a queue half done, so nothing rewinds a DUN. What
// comes nearest: a write that was encrypted in place and must not wait is undone, and
// comes again, while its slot goes to another key and the engine is reset. Its DUNs
// carry from the first limb into the second (invariants 3, 6, 10, 12).
func TestRace11WriteAgainAtALimbCarry(t *testing.T) {
	carry := blkcrypto.DUN{math.MaxUint64 - 1}
	config := smallUnits
	config.DUNBytes = 16
	plain := random(rand.New(rand.NewPCG(11, 0)), 4*512)
	interleave.Run(t, interleave.Race{
		Points: []string{"keyslot: encrypted", "keyslot: transforming", "keyslot: lost"},
		World: func(w *interleave.World) {
			e := soft.New("soft", 1)
			m := keyslot.New(e)
			d := newRAM(w, 4096)
			blocked := 0
			d.before = func(r block.Request) error {
				if r.NoWait() {
					blocked++
					return block.ErrWouldBlock
				}
				return nil
			}
			o := keyslot.Over(d, m)
			k, other := newKeyOf(w, "k", config), newKeyOf(w, "other", config)
			use2(t, m, k)
			w.Go("write", func() {
				data := bytes.Clone(plain)
				q := block.Request{
					Op: block.OpWrite, Flags: block.NoWait | block.Scratch, Len: int64(len(data)), Data: block.Bytes(data),
					Crypt: blkcrypto.Context{Key: k.Key, DUN: carry},
				}
				if err := o.Do(w.Ctx, q); !errors.Is(err, block.ErrWouldBlock) {
					w.Errorf("write that must not wait: %v, want %v", err, block.ErrWouldBlock)
				}
				if !bytes.Equal(data, plain) {
					w.Error("the data of a write that comes again has changed (invariant 6)")
				}
				q.Flags &^= block.NoWait
				if err := o.Do(w.Ctx, q); err != nil {
					w.Errorf("write: %v", err)
				}
			})
			w.Go("other", func() { use2(t, m, other) })
			w.Go("reset", func() {
				if err := m.Reset(e.Lose); err != nil {
					w.Error(err)
				}
			})
			w.Check(func() {
				want := bytes.Clone(plain)
				reference(k, carry, want)
				if !bytes.Equal(d.mem[:len(want)], want) {
					w.Error("the medium differs from the reference (invariant 3)")
				}
			})
		},
	})
}

// adding is a device that encrypts what comes without a context with a key of its own,
// as a target does.
type adding struct {
	block.Device
	key *blkcrypto.Key
}

func (d adding) Do(ctx context.Context, r block.Request) error {
	r.Crypt = blkcrypto.Context{Key: d.key, DUN: blkcrypto.DUN{uint64(r.Off / 512)}}
	return d.Device.Do(ctx, r)
}

// R19: two layers that encrypt with one engine of one slot, and two requests: nobody
// waits for a slot while he has one (invariant 37). A deadlock is a failure of the race.
func TestRace19StackedUsersOfOneSlot(t *testing.T) {
	for _, ops := range [][2]block.Op{{block.OpWrite, block.OpWrite}, {block.OpWrite, block.OpRead}, {block.OpRead, block.OpRead}} {
		t.Run(fmt.Sprint(ops), func(t *testing.T) {
			points := []string{"keyslot: transforming", "keyslot: waiting", "keyslot: granted"}
			interleave.Run(t, interleave.Race{Points: points, World: func(w *interleave.World) {
				r := newRaceWorld(w, 1)
				d := newRAM(w, 4096)
				ks := newKeys(w, 3)
				top := keyslot.Over(adding{keyslot.Over(d, r.m), ks[2].Key}, r.m)
				for i, op := range ops {
					w.Go(fmt.Sprint(op, " ", i), func() {
						b := bytes.Repeat([]byte{byte(i)}, 512)
						q := block.Request{Op: op, Off: int64(i) * 512, Len: 512, Data: block.Bytes(b), Crypt: blkcrypto.Context{Key: ks[i].Key}}
						if err := top.Do(w.Ctx, q); err != nil {
							w.Errorf("%v %d: %v", op, i, err)
						}
						if op == block.OpWrite {
							for j := range b { // the test engine's cipher is XOR
								b[j] ^= ks[i].bytes[j%64] ^ ks[2].bytes[j%64]
							}
							if !bytes.Equal(d.mem[i*512:][:512], b) {
								w.Errorf("write %d: the medium does not hold it encrypted twice (invariant 2)", i)
							}
						}
					})
				}
			}})
		})
	}
}

// R20: writes that need more memory for ciphertext than one request may take, with one
// slot: each goes down in pieces and waits for nothing while it has a slot, and memory
// cannot run out half way, since a request takes what it needs for all its pieces before
// the first (invariants 36, 37, 38).
func TestRace20LargeWritesWithOneSlot(t *testing.T) {
	const piece = 256 << 10
	interleave.Run(t, interleave.Race{
		Points: []string{"keyslot: transforming", "keyslot: encrypted"},
		World: func(w *interleave.World) {
			r := newRaceWorld(w, 1)
			d := newRAM(w, 4*piece)
			d.log = true
			o := keyslot.Over(d, r.m)
			ks := newKeys(w, 2)
			for i, k := range ks {
				w.Go(fmt.Sprint("write ", i), func() {
					n := int64(piece + 4096)
					q := block.Request{Op: block.OpWrite, Off: int64(i) * 2 * piece, Len: n, Data: block.Bytes(make([]byte, n)), Crypt: blkcrypto.Context{Key: k.Key}}
					if err := o.Do(w.Ctx, q); err != nil {
						w.Error(err)
					}
					for at := q.Off; at < q.Off+n; at += 4096 {
						if !bytes.Equal(d.mem[at:][:64], k.bytes) { // the cipher of 64 zeroes
							w.Errorf("wrong bytes at %d (invariant 2)", at)
							break
						}
					}
				})
			}
			w.Check(func() {
				seen := d.take()
				buffers := map[int64][][]byte{} // by write
				for _, q := range seen {
					if q.Len > piece {
						w.Errorf("a piece of %d bytes, want at most %d", q.Len, piece)
					}
					i := q.Off / (2 * piece)
					if buffers[i] != nil && !shares(q.Data, buffers[i]) {
						w.Error("a write took memory a second time (invariant 36)")
					}
					buffers[i] = slices.Collect(q.Data.All())
				}
				if len(seen) != 4 {
					w.Errorf("%d requests to the disk, want 4", len(seen))
				}
			})
		},
	})
}

// R20 for the memory of the keys themselves: there is enough for one of two slots. The
// requests for three keys are all served, one after the other, also when the key in the
// slot is evicted at the moment in which another finds that there is no more memory;
// with memory again, both slots are used (invariants 17, 36).
func TestRace20MemoryForKeysRunsOut(t *testing.T) {
	for _, evicts := range []bool{false, true} {
		t.Run(fmt.Sprint("an eviction gives memory back: ", evicts), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points: []string{"keyslot: granted", "keyslot: programmed", "keyslot: leaving"},
				World: func(w *interleave.World) {
					r := newRaceWorld(w, 2)
					ks := newKeys(w, 3)
					scarce, full := true, map[int]bool{}
					r.e.Fault = func(c enginetest.Call) error {
						switch {
						case c.Op == enginetest.Evict:
							delete(full, c.Slot)
						case c.Op == enginetest.Program && scarce && !full[c.Slot] && len(full) > 0:
							return fmt.Errorf("the race: %w", secret.ErrLimit)
						case c.Op == enginetest.Program:
							full[c.Slot] = true
						}
						return nil
					}
					use(w, r.m, ks[0])
					for _, k := range ks[1:] {
						w.Go("get "+k.Name(), func() { use(w, r.m, k) }) // reports any error (invariant 36)
					}
					if evicts {
						w.Go("evict", func() { mustEvict(w, ks[0]) })
					} else {
						w.Go("get again", func() { use(w, r.m, ks[0]) })
					}
					w.Check(func() {
						scarce = false
						for _, k := range ks {
							if err := r.m.Evict(w.Ctx, k.Key); err != nil {
								w.Error(err)
							}
						}
						use(w, r.m, ks[1])
						use(w, r.m, ks[2])
						if n := len(r.m.Residents()); n != 2 {
							w.Errorf("with memory again %d slots are used, want both", n)
						}
						r.wantOneSlotEach(ks[1:]...)
					})
				},
			})
		})
	}
}

// wrapping is the test engine with hardware for wrapped keys beside it, whose calls
// take as long as the race wants.
type wrapping struct {
	*enginetest.Engine
	at func(string)
}

func (e wrapping) Wrapper() keyslot.Wrapper { return e }
func (e wrapping) ID() string               { return "test" }

func (e wrapping) slowly() (*secret.Buffer, error) {
	e.at("wrapping")
	return secret.Copy(make([]byte, 32))
}

func (e wrapping) Import([]byte) (*secret.Buffer, error)       { return e.slowly() }
func (e wrapping) Generate() (*secret.Buffer, error)           { return e.slowly() }
func (e wrapping) Prepare([]byte) (*secret.Buffer, error)      { return e.slowly() }
func (e wrapping) DeriveSecret([]byte) (*secret.Buffer, error) { return e.slowly() }

// R21: while a key is slowly programmed, another one slowly evicted, and the hardware is
// at work on a wrapped key, a request whose key is in a slot is served although it must
// not wait (invariant 17).
func TestRace21HitsPassSlowCalls(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points: []string{"keyslot: programming", "keyslot: emptying"},
		World: func(w *interleave.World) {
			e := enginetest.New(w, 3)
			m := keyslot.New(wrapping{e, w.At})
			ks := newKeys(w, 3)
			use(w, m, ks[0])
			use(w, m, ks[2])
			w.Go("program", func() { use(w, m, ks[1]) })
			w.Go("wrapped", func() {
				for _, call := range []func() (*secret.Buffer, error){m.Wrapper().Generate, func() (*secret.Buffer, error) { return m.Wrapper().Prepare(nil) }} {
					b, err := call()
					if err != nil {
						w.Error(err)
						continue
					}
					b.Wipe()
				}
			})
			w.Go("evict", func() {
				if err := m.Evict(w.Ctx, ks[2].Key); err != nil {
					w.Error(err)
				}
			})
			w.Go("hit", func() {
				s, err := m.Get(w.Ctx, ks[0].Key, true)
				if err != nil {
					w.Errorf("a hit that must not wait: %v", err)
				}
				s.Put()
			})
			w.Check(func() { wantQuiet(w, m, e) })
		},
	})
}
