package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"reflect"

	"golang.org/x/crypto/twofish"

	"keyway/test/naive"
)

// AddKey adds the bytes of a key in all forms, printed ones too.
func (s *Set) AddKey(name string, key []byte) {
	s.Add(name, key)
	s.AddText(name, key)
}

// AddXTS adds a key of AES-XTS: both halves with their round keys.
func (s *Set) AddXTS(name string, key []byte) {
	s.AddKey(name, key)
	s.AddAES(name+", data half", key[:len(key)/2])
	s.AddAES(name+", tweak half", key[len(key)/2:])
}

// AddESSIV adds a key of AES-CBC-ESSIV: with its digest, the key of the initialisation
// vectors.
func (s *Set) AddESSIV(name string, key []byte) {
	s.AddKey(name, key)
	s.AddAES(name, key)
	salt := sha256.Sum256(key)
	s.AddAES(name+", digest", salt[:])
}

// AddAdiantum adds a key of Adiantum with a stream of so many rounds, and the keys
// that it is made into: of the stream, of the block, and of both hashes.
func (s *Set) AddAdiantum(name string, key []byte, rounds int) {
	s.AddKey(name, key)
	s.Add(name+", XChaCha subkey of the key derivation", hchacha(key, [16]byte{1}, rounds))
	derived := naive.XChaCha(key, []byte{1}, rounds, 32+16+16+1072)
	s.AddAES(name+", block key", derived[:32])
	for i, part := range []string{"header hash", "message hash"} {
		r := derived[32+16*i:][:16]
		s.Add(name+", "+part+" key", r)
		s.Add(name+", "+part+" key, clamped", clamped(r))
	}
	s.Add(name+", NH key", derived[64:])
}

// clamped is r of RFC 8439, section 2.5.
func clamped(r []byte) []byte {
	out := append([]byte(nil), r...)
	for i := range out {
		if i%4 == 3 {
			out[i] &= 15
		} else if i%4 == 0 && i > 0 {
			out[i] &= 252
		}
	}
	return out
}

// hchacha is HChaCha (draft-irtf-cfrg-xchacha, section 2.2) of so many rounds.
func hchacha(key []byte, nonce [16]byte, rounds int) []byte {
	var x [16]uint32
	state := append(append([]byte("expand 32-byte k"), key...), nonce[:]...)
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(state[4*i:])
	}
	quarter := func(a, b, c, d int) {
		for _, q := range [][4]int{{a, b, d, 16}, {c, d, b, 12}, {a, b, d, 8}, {c, d, b, 7}} {
			x[q[0]] += x[q[1]]
			x[q[2]] = bits.RotateLeft32(x[q[2]]^x[q[0]], q[3])
		}
	}
	for range rounds / 2 {
		for i := range 4 {
			quarter(i, 4+i, 8+i, 12+i)
		}
		for i := range 4 {
			quarter(i, 4+(i+1)%4, 8+(i+2)%4, 12+(i+3)%4)
		}
	}
	return append(naive.Words(x[:4]), naive.Words(x[12:])...)
}

// AddSM4 adds a key of SM4-XTS: both halves with their round keys.
func (s *Set) AddSM4(name string, key []byte) {
	s.AddKey(name, key)
	for i, half := range []string{", data half", ", tweak half"} {
		rk := naive.NewSM4(key[16*i:][:16])
		s.Add(name+half+", round keys", naive.Words(rk[:]))
		var wide []byte // each word in every place of a vector
		for _, w := range rk {
			wide = append(wide, naive.Words([]uint32{w, w})...)
		}
		s.Add(name+half+", round keys broadcast", wide)
	}
}

// AddSerpent adds a key of Serpent-XTS.
func (s *Set) AddSerpent(name string, key []byte) {
	s.AddKey(name, key)
	half := len(key) / 2
	s.Add(name+", data half, round keys", serpentSchedule(key[:half]))
	s.Add(name+", tweak half, round keys", serpentSchedule(key[half:]))
}

// The S-boxes of Serpent (Anderson, Biham, Knudsen 1998, appendix A.5).
var serpentBoxes = [8][16]byte{
	{3, 8, 15, 1, 10, 6, 5, 11, 14, 13, 4, 2, 7, 0, 9, 12},
	{15, 12, 2, 7, 9, 0, 5, 10, 1, 11, 14, 8, 6, 13, 3, 4},
	{8, 6, 7, 9, 3, 12, 10, 15, 13, 1, 14, 4, 0, 11, 5, 2},
	{0, 15, 11, 8, 12, 9, 6, 3, 13, 1, 2, 4, 10, 7, 5, 14},
	{1, 15, 8, 3, 12, 0, 11, 6, 2, 5, 4, 10, 9, 14, 7, 13},
	{15, 5, 2, 11, 4, 10, 9, 12, 0, 3, 14, 8, 13, 6, 7, 1},
	{7, 2, 12, 5, 8, 4, 6, 11, 14, 9, 1, 15, 13, 3, 10, 0},
	{1, 13, 15, 0, 14, 8, 2, 11, 7, 4, 12, 10, 9, 3, 5, 6},
}

// serpentSchedule is the round keys of a key of 32 bytes, in the form of words.
func serpentSchedule(key []byte) []byte {
	w := make([]uint32, 8+132)
	for i := range 8 {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	for i := range 132 {
		w[i+8] = bits.RotateLeft32(w[i]^w[i+3]^w[i+5]^w[i+7]^0x9e3779b9^uint32(i), 11)
	}
	var out []byte
	for i := range 33 {
		box, in := serpentBoxes[(35-i)%8], w[8+4*i:]
		var k [4]uint32
		for bit := range 32 {
			var x byte
			for j := range 4 {
				x |= byte(in[j]>>bit&1) << j
			}
			for j := range 4 {
				k[j] |= uint32(box[x]>>j&1) << bit
			}
		}
		out = append(out, naive.Words(k[:])...)
	}
	return out
}

// AddTwofish adds a key of Twofish-XTS: its round keys and the tables that its S-boxes
// become, read out of the library that the product takes them from.
func (s *Set) AddTwofish(name string, key []byte) {
	s.AddKey(name, key)
	for i, part := range []string{", data half", ", tweak half"} {
		c, err := twofish.NewCipher(key[len(key)/2*i:][:len(key)/2])
		if err != nil {
			panic(err)
		}
		v := reflect.ValueOf(c).Elem()
		s.Add(name+part+", round keys", naive.Words(words(v.FieldByName("k"))))
		for j := range 4 {
			s.AddBytes(name+part+", S-boxes", naive.Words(words(v.FieldByName("s").Index(j))))
		}
	}
}

func words(v reflect.Value) (all []uint32) {
	for i := range v.Len() {
		all = append(all, uint32(v.Index(i).Uint()))
	}
	return all
}
