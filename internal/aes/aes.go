// Package aes is the AES block cipher (FIPS 197) as the data-unit ciphers need
// it: key schedules in memory of the caller's, in constant time, and single
// blocks for numbers and tweaks. The bulk of the data goes through the assembly of
// those ciphers, or through Wide, which is portable.
package aes

import (
	"encoding/binary"
	"math/bits"

	"keyway/internal/secret"
)

const (
	BlockSize = 16 // bytes
	MaxRounds = 14
)

// Rounds is the number of rounds for a key of n bytes: 16, 24 or 32.
func Rounds(n int) int { return n/4 + 6 }

// ScheduleSize is the number of bytes that Expand writes for a key of n bytes.
func ScheduleSize(n int) int { return BlockSize * (Rounds(n) + 1) }

func wipe(b []byte) { secret.Wipe(b) }

// Expand writes the round keys for key, 16, 24 or 32 bytes, to w: 16 bytes a
// round, Rounds+1 of them, in the order of encryption (FIPS 197, section 5.2).
func Expand(w, key []byte) {
	if hardware {
		_ = w[ScheduleSize(len(key))-1]
		expandKey(&w[0], &key[0], Rounds(len(key)))
		return
	}
	expandGeneric(w, key)
}

func expandGeneric(w, key []byte) {
	nk := len(key) / 4
	le := binary.LittleEndian
	copy(w, key)
	rcon := uint32(1)
	t := le.Uint32(key[len(key)-4:])
	for i := nk; 4*i < ScheduleSize(len(key)); i++ {
		switch {
		case i%nk == 0:
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case nk > 6 && i%nk == 4:
			t = subWord(t)
		}
		t ^= le.Uint32(w[4*(i-nk):])
		le.PutUint32(w[4*i:], t)
	}
}

// Invert writes to dec the round keys for decryption by the AES instructions: enc
// backwards, with InvMixColumns applied to all but the outer two (equivalent
// inverse cipher, FIPS 197, section 5.3.5). len(enc) is what Expand wrote.
func Invert(dec, enc []byte) {
	if hardware {
		_ = dec[len(enc)-1]
		invertKey(&dec[0], &enc[0], len(enc)/BlockSize-1)
		return
	}
	invertGeneric(dec, enc)
}

func invertGeneric(dec, enc []byte) {
	le := binary.LittleEndian
	last := len(enc) - BlockSize
	for at := 0; at < len(enc); at += 4 {
		round, column := at&^(BlockSize-1), at&(BlockSize-1)
		x := le.Uint32(enc[last-round+column:])
		if 0 < round && round < last {
			x = invMixColumn(x)
		}
		le.PutUint32(dec[at:], x)
	}
}

// invMixColumn is InvMixColumns of one column, four bytes in a word. State.preMix
// tells why it is MixColumns after another step.
func invMixColumn(x uint32) uint32 {
	double := func(x uint32) uint32 { return x<<1&0xfefefefe ^ x>>7&0x01010101*reduce }
	x ^= double(double(x ^ bits.RotateLeft32(x, 16)))
	next := bits.RotateLeft32(x, -8)
	return double(x^next) ^ next ^ bits.RotateLeft32(x^next, 16)
}
