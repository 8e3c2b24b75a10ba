package memory

// AES from the text of FIPS 197, with nothing but what a search needs: the round keys.

// xtime multiplies by x (section 4.2).
func xtime(a byte) byte {
	b := a << 1
	if a&0x80 != 0 {
		b ^= 0x1b
	}
	return b
}

func multiply(a, b byte) (p byte) {
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		a = xtime(a)
	}
	return p
}

// sbox is made as section 5.1.1 defines it: the inverse, then the affine map.
var sbox = func() (box [256]byte) {
	for a := range 256 {
		var inverse byte
		for b := range 256 {
			if multiply(byte(a), byte(b)) == 1 {
				inverse = byte(b)
			}
		}
		for i := range 8 {
			bit := byte(0x63) >> i
			for _, j := range []int{0, 4, 5, 6, 7} {
				bit ^= inverse >> ((i + j) % 8)
			}
			box[a] |= bit & 1 << i
		}
	}
	return box
}()

// aesSchedule is KeyExpansion (section 5.2): the round keys in order of encryption.
func aesSchedule(key []byte) []byte {
	nk := len(key) / 4
	w := append([]byte(nil), key...)
	rcon := byte(1)
	for i := nk; i < 4*(nk+7); i++ {
		t := [4]byte(w[4*(i-1):])
		switch {
		case i%nk == 0:
			t = [4]byte{sbox[t[1]] ^ rcon, sbox[t[2]], sbox[t[3]], sbox[t[0]]}
			rcon = xtime(rcon)
		case nk > 6 && i%nk == 4:
			t = [4]byte{sbox[t[0]], sbox[t[1]], sbox[t[2]], sbox[t[3]]}
		}
		for j := range t {
			w = append(w, w[4*(i-nk)+j]^t[j])
		}
	}
	return w
}

// aesInverse is the round keys of the equivalent inverse cipher (section 5.3.5):
// InvMixColumns of all but the first and the last, which AESIMC makes.
func aesInverse(schedule []byte) []byte {
	out := append([]byte(nil), schedule...)
	for at := 16; at < len(out)-16; at += 4 {
		c := [4]byte(out[at:])
		for i := range 4 {
			out[at+i] = multiply(c[i], 0x0e) ^ multiply(c[(i+1)%4], 0x0b) ^ multiply(c[(i+2)%4], 0x0d) ^ multiply(c[(i+3)%4], 0x09)
		}
	}
	return out
}

// AddAES adds an AES key and its round keys in both directions.
func (s *Set) AddAES(name string, key []byte) {
	s.Add(name, key)
	enc := aesSchedule(key)
	s.Add(name+", round keys", enc)
	s.Add(name+", inverse round keys", aesInverse(enc))
}
