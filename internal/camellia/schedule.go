package camellia

import "encoding/binary"

// Subkeys: of 18 rounds, or of 24, and of FL behind each six but the last, and two at
// either end.
const (
	fewest = 18 + 4 + 4
	most   = 24 + 6 + 4
)

// schedule is what a key is expanded by (RFC 3713, section 2.2), in locked memory.
type schedule struct {
	key     [4][2]uint64 // KL, KR, KA, KB, the high half first
	subkeys [most]uint64 // in the order of encryption
	a, b, k planes
}

const (
	kl = iota
	kr
	ka
	kb
)

// A pair of subkeys is one of the four keys rotated to the left by so many bits.
type pair struct {
	key  int
	turn uint
}

var short = [fewest / 2]pair{
	{kl, 0}, {ka, 0}, {kl, 15}, {ka, 15}, {ka, 30}, {kl, 45}, {ka, 45}, {ka, 60}, {kl, 77}, {kl, 94}, {ka, 94}, {kl, 111}, {ka, 111},
}

// The second of the pair from ka turned by 45 is taken from elsewhere.
const (
	oddPair = 6
	oddTurn = 60 // of kl
)

var long = [most / 2]pair{
	{kl, 0}, {kb, 0}, {kr, 15}, {ka, 15}, {kr, 30}, {kb, 30}, {kl, 45}, {ka, 45}, {kl, 60}, {kr, 60}, {kb, 60}, {kl, 77}, {ka, 77}, {kr, 94}, {ka, 94}, {kl, 111}, {kb, 111},
}

// sigma are the constants of the key schedule.
var sigma = [6]uint64{
	0xa09e667f3bcc908b, 0xb67ae8584caa73b2, 0xc6ef372fe94f82be, 0x54ff53a5f1d36f1c, 0x10e527fade682d1d, 0xb05688c2b3e6c1fd,
}

// expand writes the subkeys to rk, as planes. s is used up.
//
//go:norace
func (s *schedule) expand(rk []planes, key []byte) {
	for i := range len(key) / 8 {
		s.key[i/2][i%2] = binary.BigEndian.Uint64(key[8*i:])
	}
	if len(key) == 24 {
		s.key[kr][1] = ^s.key[kr][0]
	}
	s.key[ka][0], s.key[ka][1] = s.key[kl][0]^s.key[kr][0], s.key[kl][1]^s.key[kr][1]
	s.rounds(&s.key[ka], 0)
	s.key[ka][0] ^= s.key[kl][0]
	s.key[ka][1] ^= s.key[kl][1]
	s.rounds(&s.key[ka], 2)
	s.key[kb][0], s.key[kb][1] = s.key[ka][0]^s.key[kr][0], s.key[ka][1]^s.key[kr][1]
	s.rounds(&s.key[kb], 4)
	pairs := long[:]
	if len(key) == 16 {
		pairs = short[:]
	}
	for i, p := range pairs {
		s.turn(i, p)
	}
	if len(key) == 16 {
		kept := s.subkeys[2*oddPair]
		s.turn(oddPair, pair{kl, oddTurn})
		s.subkeys[2*oddPair] = kept
	}
	for i := range rk {
		k := s.subkeys[i]
		if isRound(i, len(rk)) {
			k ^= before
		}
		rk[i].spread(k)
	}
}

// isRound tells whether subkey i of n is a round's.
func isRound(i, n int) bool { return i >= 2 && i < n-2 && (i-2)%8 < 6 }

// spread is constant in place.
//
//go:norace
func (q *planes) spread(x uint64) {
	for p := range q {
		q[p] = (x >> p & 0x0101010101010101) * 0xff
	}
}

// turn sets pair i of the subkeys.
//
//go:norace
func (s *schedule) turn(i int, p pair) {
	hi, lo := s.key[p.key][0], s.key[p.key][1]
	n := p.turn
	if n >= 64 {
		hi, lo, n = lo, hi, n-64
	}
	s.subkeys[2*i], s.subkeys[2*i+1] = hi<<n|lo>>(64-n), lo<<n|hi>>(64-n)
}

// rounds passes a key through two rounds with constants from i on.
//
//go:norace
func (s *schedule) rounds(k *[2]uint64, i int) {
	s.a.spread(k[0])
	s.b.spread(k[1])
	s.k.spread(sigma[i] ^ before)
	round(&s.b, &s.a, &s.k)
	s.k.spread(sigma[i+1] ^ before)
	round(&s.a, &s.b, &s.k)
	k[0], k[1] = s.a.gather(), s.b.gather()
}

// gather is the half that is the same in all blocks.
//
//go:norace
func (q *planes) gather() (x uint64) {
	for p := range q {
		x |= q[p] & 0x0101010101010101 << p
	}
	return x
}
