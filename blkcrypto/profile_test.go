package blkcrypto

import (
	oldrand "math/rand"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
)

// Generate makes random profiles of few configs, so that sets meet.
func (Profile) Generate(_ *oldrand.Rand, size int) reflect.Value {
	return reflect.ValueOf(randomProfile())
}

func randomConfig() Config {
	modes := Modes()
	m := modes[rand.IntN(len(modes))]
	return Config{Mode: m, KeyType: KeyType(1 + rand.IntN(2)), DataUnitSize: 512 << rand.IntN(8), DUNBytes: 1 + rand.IntN(m.IVSize())}
}

func randomProfile() (p Profile) {
	for range rand.IntN(100) {
		p.Add(randomConfig())
	}
	return p
}

func everyConfig() (all []Config) {
	for _, m := range Modes() {
		for _, kt := range []KeyType{Raw, HWWrapped} {
			for _, unit := range UnitSizes() {
				for dun := 1; dun <= m.IVSize(); dun++ {
					all = append(all, Config{Mode: m, KeyType: kt, DataUnitSize: unit, DUNBytes: dun})
				}
			}
		}
	}
	return all
}

// blkcrypto.md invariant 27: exactly what was added, and fewer DUN bytes.
func TestProfileSupportsExactlyWhatWasAdded(t *testing.T) {
	for range 50 {
		var p Profile
		added := make([]Config, rand.IntN(10))
		for i := range added {
			added[i] = randomConfig()
			p.Add(added[i])
		}
		for _, c := range everyConfig() {
			want := false
			for _, a := range added {
				want = want || a.Mode == c.Mode && a.KeyType == c.KeyType && a.DataUnitSize == c.DataUnitSize && c.DUNBytes <= a.DUNBytes
			}
			if got := p.Supports(c); got != want {
				t.Fatalf("%v after %v: %v, want %v", c, added, got, want)
			}
		}
	}
	p := Everything()
	for _, c := range []Config{
		{}, {Mode: 99, KeyType: Raw, DataUnitSize: 512, DUNBytes: 8}, {Mode: AES256XTS, KeyType: 0, DataUnitSize: 512, DUNBytes: 8},
		{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 256, DUNBytes: 8}, {Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 0},
		{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 17}, {Mode: AES256XTS, KeyType: 3, DataUnitSize: 512, DUNBytes: 8},
		{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: -1}, {Mode: AES256XTS, KeyType: Raw, DataUnitSize: -512, DUNBytes: 8},
	} {
		if p.Supports(c) {
			t.Errorf("everything supports %+v, which no key can have", c)
		}
	}
}

// blkcrypto.md invariant 28.
func TestProfileAlgebra(t *testing.T) {
	every := everyConfig()
	laws := map[string]any{
		"intersection is what both support": func(p, q Profile) bool {
			both := p.Intersect(q)
			for _, c := range every {
				if both.Supports(c) != (p.Supports(c) && q.Supports(c)) {
					return false
				}
			}
			return true
		},
		"commutative":               func(p, q Profile) bool { return p.Intersect(q) == q.Intersect(p) },
		"associative":               func(p, q, r Profile) bool { return p.Intersect(q).Intersect(r) == p.Intersect(q.Intersect(r)) },
		"idempotent":                func(p Profile) bool { return p.Intersect(p) == p },
		"nothing absorbs":           func(p Profile) bool { return p.Intersect(Profile{}) == Profile{} },
		"everything is neutral":     func(p Profile) bool { return p.Intersect(Everything()) == p },
		"superset is reflexive":     func(p Profile) bool { return p.Contains(p) },
		"superset is antisymmetric": func(p, q Profile) bool { return !(p.Contains(q) && q.Contains(p)) || p == q },
		"superset is transitive": func(p, q, r Profile) bool {
			a, b, c := p, p.Intersect(q), p.Intersect(q).Intersect(r)
			return a.Contains(b) && b.Contains(c) && a.Contains(c)
		},
		"superset is what supports all": func(p, q Profile) bool {
			if rand.IntN(2) == 0 {
				q = p.Intersect(q) // or it would never be one
			}
			all := true
			for _, c := range every {
				all = all && (!q.Supports(c) || p.Supports(c))
			}
			return p.Contains(q) == all
		},
		"the configs make the profile again": func(p Profile) bool {
			var q Profile
			for _, c := range p.Configs() {
				q.Add(c)
			}
			return q == p && (len(p.Configs()) == 0) == p.Empty()
		},
		"dividing keeps what divides": func(p Profile, sectors uint16) bool {
			n := int64(sectors) * 512
			d := p.Dividing(n)
			for _, c := range every {
				if d.Supports(c) != (p.Supports(c) && n%int64(c.DataUnitSize) == 0) {
					return false
				}
			}
			return true
		},
	}
	for name, law := range laws {
		if err := quick.Check(law, &quick.Config{MaxCount: 60}); err != nil {
			t.Errorf("%s: %v", name, strings.SplitN(err.Error(), "\n", 2)[0])
		}
	}
}

// Linux keeps one DUN limit for all modes; an intersection there loses configs
// that both sides have.
func TestIntersectionIsExactPerMode(t *testing.T) {
	var p, q Profile
	a := Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 512, DUNBytes: 16}
	b := Config{Mode: Adiantum, KeyType: HWWrapped, DataUnitSize: 4096, DUNBytes: 4}
	p.Add(a)
	p.Add(b)
	q.Add(a)
	q.Add(Config{Mode: Adiantum, KeyType: HWWrapped, DataUnitSize: 4096, DUNBytes: 2})
	both := p.Intersect(q)
	if !both.Supports(a) || both.Supports(b) {
		t.Errorf("%v", both)
	}
	if want := "AES-256-XTS/raw/512/16 Adiantum/hw-wrapped/4096/2"; both.String() != want {
		t.Errorf("String %q, want %q", both, want)
	}
	if (Profile{}).String() != "none" {
		t.Errorf("the empty profile is %q", Profile{})
	}
}

func TestProfileAddPanicsOnWhatNoKeyCanHave(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var p Profile
	p.Add(Config{Mode: AES256XTS, KeyType: Raw, DataUnitSize: 500, DUNBytes: 8})
}

func TestSoftwareHasEverythingButWrappedKeys(t *testing.T) {
	p := AllRaw()
	for _, c := range everyConfig() {
		if p.Supports(c) != (c.KeyType == Raw) {
			t.Errorf("%v: %v", c, p.Supports(c))
		}
	}
}
