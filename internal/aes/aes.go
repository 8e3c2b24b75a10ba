// Package aes is the AES block cipher (FIPS 197) as the data-unit ciphers need
// it: key schedules in memory of the caller's, in constant time, and single
// blocks for numbers and tweaks. The bulk of the data goes through the assembly of
// those ciphers, or through State, which is portable.
package aes

import "keyway/internal/secret"

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
	copy(w, key)
	rcon := byte(1)
	var t [4]byte
	for i := nk; 4*i < ScheduleSize(len(key)); i++ {
		copy(t[:], w[4*(i-1):])
		switch {
		case i%nk == 0:
			t[0], t[1], t[2], t[3] = t[1], t[2], t[3], t[0]
			subWord(&t)
			t[0] ^= rcon
			rcon = rcon<<1 ^ rcon>>7*0x1b
		case nk > 6 && i%nk == 4:
			subWord(&t)
		}
		for j := range t {
			w[4*i+j] = w[4*(i-nk)+j] ^ t[j]
		}
	}
	wipe(t[:])
}

func subWord(t *[4]byte) {
	var buf [StateSize]byte
	var q State
	copy(buf[:], t[:])
	q.Slice(&buf)
	q.subBytes()
	q.Unslice(&buf)
	copy(t[:], buf[:])
	wipe(buf[:])
	q.Wipe()
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
	var q State
	var buf [StateSize]byte
	last := len(enc) - BlockSize
	for at := 0; at <= last; at += BlockSize {
		from := enc[last-at:][:BlockSize]
		if 0 < at && at < last {
			copy(buf[:], from)
			q.Slice(&buf)
			q.invMixColumns()
			q.Unslice(&buf)
			from = buf[:BlockSize]
		}
		copy(dec[at:], from)
	}
	wipe(buf[:])
	q.Wipe()
}
