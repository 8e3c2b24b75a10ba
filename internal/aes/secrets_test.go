package aes

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// words are the neighbouring words of states, two by two.
func words(states ...State) (pairs [][]byte) {
	for _, q := range states {
		for i := 0; i < len(q); i += 2 {
			two := binary.LittleEndian.AppendUint64(nil, q[i])
			pairs = append(pairs, binary.LittleEndian.AppendUint64(two, q[i+1]))
		}
	}
	return pairs
}

// What lies in locked memory must not stay on the stack as well: round keys in
// either form, and the blocks, which are tweaks and initialisation vectors.
func TestStackHoldsNoKeyAndNoBlock(t *testing.T) {
	r := seeded(t)
	for _, size := range []int{16, 24, 32} {
		key, numbers := dataunittest.Random(r, size), dataunittest.Random(r, 20*BlockSize)
		w, rk := make([]byte, ScheduleSize(size)), make([]State, Rounds(size)+1)
		expandGeneric(w, key)
		SliceKeys(rk, w)
		keys := append(slices.Collect(slices.Chunk(w, 8)), words(rk...)...)
		each(t, func(t *testing.T, hw bool) {
			b := mustBlocks(t, key, hw)
			blocks, back := make([]byte, len(numbers)), make([]byte, len(numbers))
			b.Encrypt(blocks, numbers)
			secrets := append(slices.Clone(keys), slices.Collect(slices.Chunk(blocks, 8))...)
			for four := range slices.Chunk(blocks, StateSize) {
				var sliced, half State // half: on its way in or out
				sliced.Slice((*[StateSize]byte)(four))
				half = sliced
				transpose((*[8]uint64)(&half))
				secrets = append(secrets, words(sliced, half)...)
			}
			dataunittest.Forgets(t, func() {
				c, err := newBlocks(key, hw)
				if err != nil {
					panic(err)
				}
				c.Wipe()
			}, secrets...)
			dataunittest.Forgets(t, func() { b.Encrypt(back, numbers) }, secrets...)
			dataunittest.Forgets(t, func() { b.Decrypt(back, blocks) }, secrets...)
		})
	}
}

// The sliced keys are made of a schedule at the end of the same memory.
func TestSlicedKeysLeaveNoSchedule(t *testing.T) {
	b := mustBlocks(t, bytes.Repeat([]byte{7}, 32), false)
	w := b.mem.Bytes()[len(b.rk)*StateSize:]
	if len(w) != ScheduleSize(32) {
		t.Fatalf("room of %d bytes for the schedule, want %d", len(w), ScheduleSize(32))
	}
	dataunittest.Diff(t, "schedule", w, make([]byte, len(w)))
}
