package aes

// For ciphers whose S-box is that of AES between other linear maps.

// Transpose swaps bit w of each byte of word b with bit b of word w: eight bytes of
// eight texts become the bit planes of all, and back.
func Transpose(q *[8]uint64) { transpose(q) }

// SubPlanes is the S-box without its constant, 0x63, on 64 bytes as bit planes, that
// of bit 0 first.
func SubPlanes(q *[8]uint64) { (*State)(q).sub() }
