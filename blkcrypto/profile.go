package blkcrypto

import (
	"fmt"
	"strings"
)

// A Profile is a set of supported Configs, as a comparable value: for each
// mode, key type, numbering and data unit size the largest DUNBytes, 0 for none. The set
// is exact: Linux keeps one DUN limit and one mask of key types beside the
// modes, so that an intersection loses configs that both sides support.
// The zero Profile supports nothing.
type Profile [numModes][numKeyTypes * numNumberings][numUnitSizes]uint8

// Supports reports whether c is in the set.
func (p *Profile) Supports(c Config) bool {
	u := unitIndex(c.DataUnitSize)
	if u < 0 || !c.Mode.valid() || !c.KeyType.valid() || c.Numbering >= numNumberings {
		return false
	}
	return c.DUNBytes > 0 && int(p[c.Mode][c.column()][u]) >= c.DUNBytes
}

// column is the second index of c in a profile.
func (c Config) column() int { return int(c.KeyType-1)*numNumberings + int(c.Numbering) }

// Add puts c, and every config with fewer DUN bytes, into the set. It panics
// on a config that Check refuses.
func (p *Profile) Add(c Config) {
	if err := c.Check(); err != nil {
		panic("blkcrypto: " + err.Error())
	}
	e := &p[c.Mode][c.column()][unitIndex(c.DataUnitSize)]
	*e = max(*e, uint8(c.DUNBytes))
}

// Contains reports whether p supports everything that q does.
func (p Profile) Contains(q Profile) bool { return p.Intersect(q) == q }

// Intersect returns what both support.
func (p Profile) Intersect(q Profile) Profile {
	for m := range p {
		for t := range p[m] {
			for u := range p[m][t] {
				p[m][t][u] = min(p[m][t][u], q[m][t][u])
			}
		}
	}
	return p
}

// Empty reports whether p supports nothing.
func (p Profile) Empty() bool { return p == Profile{} }

// Wraps reports whether p supports hardware-wrapped keys.
func (p Profile) Wraps() bool { return p != p.RawOnly() }

// RawOnly returns p without hardware-wrapped keys.
func (p Profile) RawOnly() Profile {
	for m := range p {
		clear(p[m][int(HWWrapped-1)*numNumberings:][:numNumberings])
	}
	return p
}

// Dividing returns p without the data unit sizes that do not divide n bytes.
// A boundary every n bytes would cut such a unit in two.
func (p Profile) Dividing(n int64) Profile {
	for u := range numUnitSizes {
		if n&(MinDataUnit<<u-1) == 0 {
			continue
		}
		for m := range p {
			for t := range p[m] {
				p[m][t][u] = 0
			}
		}
	}
	return p
}

// Everything returns the set of all configs: the start of an intersection.
func Everything() Profile {
	p := AllRaw()
	for m := range p {
		copy(p[m][numNumberings:], p[m][:numNumberings])
	}
	return p
}

// AllRaw returns the set of all configs with raw keys: what software can do.
func AllRaw() Profile {
	var p Profile
	for _, m := range Modes() {
		for _, u := range UnitSizes() {
			p.Add(Config{Mode: m, KeyType: Raw, DataUnitSize: u, DUNBytes: m.IVSize()})
			p.Add(Config{Mode: m, KeyType: Raw, DataUnitSize: u, DUNBytes: m.IVSize(), Numbering: BySector})
		}
	}
	return p
}

// Configs returns the largest config of each mode, key type and data unit
// size in the set.
func (p Profile) Configs() []Config {
	var all []Config
	for m := range p {
		for col := range p[m] {
			for u, dun := range p[m][col] {
				if dun > 0 {
					all = append(all, Config{
						Mode: Mode(m), KeyType: KeyType(col/numNumberings + 1), Numbering: Numbering(col % numNumberings),
						DataUnitSize: MinDataUnit << u, DUNBytes: int(dun),
					})
				}
			}
		}
	}
	return all
}

func (p Profile) String() string {
	if p.Empty() {
		return "none"
	}
	var parts []string
	for _, c := range p.Configs() {
		if c.Numbering == ByUnit { // the others are the same with dm-crypt's numbering
			parts = append(parts, fmt.Sprintf("%v/%v/%d/%d", c.Mode, c.KeyType, c.DataUnitSize, c.DUNBytes))
		}
	}
	return strings.Join(parts, " ")
}
