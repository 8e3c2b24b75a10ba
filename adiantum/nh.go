package adiantum

import "encoding/binary"

// nh is the hash NH (Black et al., "UMAC", 1999) of up to 1024 bytes, whole units
// of 16, as Adiantum has it: words 0 and 2 and words 1 and 3 of each unit, with the
// key added, are multiplied, and the products added up. Four passes use the key
// from four places.
func nh(key *[nhKeyUnits * 4]uint32, m []byte) (sum [nhPasses]uint64) {
	for i := 0; i+nhUnit <= len(m); i += nhUnit {
		k := key[i/4:][:16]
		u := m[i:][:nhUnit]
		m0 := binary.LittleEndian.Uint32(u[0:])
		m1 := binary.LittleEndian.Uint32(u[4:])
		m2 := binary.LittleEndian.Uint32(u[8:])
		m3 := binary.LittleEndian.Uint32(u[12:])
		sum[0] += uint64(m0+k[0])*uint64(m2+k[2]) + uint64(m1+k[1])*uint64(m3+k[3])
		sum[1] += uint64(m0+k[4])*uint64(m2+k[6]) + uint64(m1+k[5])*uint64(m3+k[7])
		sum[2] += uint64(m0+k[8])*uint64(m2+k[10]) + uint64(m1+k[9])*uint64(m3+k[11])
		sum[3] += uint64(m0+k[12])*uint64(m2+k[14]) + uint64(m1+k[13])*uint64(m3+k[15])
	}
	return sum
}
