package blkcrypto

import (
	"bytes"
	"math/big"
	"math/rand/v2"
	"testing"
	"testing/quick"
)

var two256 = new(big.Int).Lsh(big.NewInt(1), 256)

func (d DUN) big() *big.Int {
	v := new(big.Int)
	for i := len(d) - 1; i >= 0; i-- {
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(d[i]))
	}
	return v
}

// power returns 2^n - 1.
func power(n uint) (d DUN) {
	for i := range d {
		switch {
		case n >= 64*uint(i+1):
			d[i] = ^uint64(0)
		case n > 64*uint(i):
			d[i] = 1<<(n-64*uint(i)) - 1
		}
	}
	return d
}

// blkcrypto.md invariant 3, against math/big.
func TestDUNArithmeticCarriesThroughAllLimbs(t *testing.T) {
	check := func(d DUN, n uint64) bool {
		sum, wrapped := d.Add(n)
		want := new(big.Int).Add(d.big(), new(big.Int).SetUint64(n))
		over := want.Cmp(two256) >= 0
		want.Mod(want, two256)
		if sum.big().Cmp(want) != 0 || wrapped != over {
			t.Errorf("%x + %d = %x, %v; want %x, %v", d, n, sum, wrapped, want, over)
			return false
		}
		if back := sum.Sub(n); back != d {
			t.Errorf("%x + %d - %d = %x", d, n, n, back)
			return false
		}
		if got, want := d.Bytes(), max(1, (d.big().BitLen()+7)/8); got != want {
			t.Errorf("%x needs %d bytes, Bytes says %d", d, want, got)
			return false
		}
		if d.IsContiguous(n, sum) == over {
			t.Errorf("%x and %x after %d: contiguous %v although wrapped %v", d, sum, n, !over, over)
			return false
		}
		return true
	}
	for _, n := range []uint{0, 1, 8, 32, 63, 64, 65, 128, 192, 255, 256} {
		for _, add := range []uint64{0, 1, 2, 1 << 32, 1<<64 - 1} {
			check(power(n), add)
		}
	}
	// Limbs of all ones make carries likely.
	if err := quick.Check(func(d DUN, ones uint8, n uint64) bool {
		for i := range d {
			if ones&(1<<i) != 0 {
				d[i] = ^uint64(0)
			}
		}
		return check(d, n)
	}, nil); err != nil {
		t.Error(err)
	}
	if DUN64(5).IsContiguous(2, DUN64(8)) {
		t.Error("5 and 2 units on is not 8")
	}
}

func TestPutIVIsLittleEndian(t *testing.T) {
	d := DUN{0x0706050403020100, 0x0f0e0d0c0b0a0908, 0x1716151413121110, 0x1f1e1d1c1b1a1918}
	for n := range 33 {
		iv := bytes.Repeat([]byte{0xee}, n)
		d.PutIV(iv)
		for i, b := range iv {
			if int(b) != i {
				t.Fatalf("an IV of %d bytes is %x", n, iv)
			}
		}
	}
}

// blkcrypto.md invariant 4, for every width.
func TestFitsIsExact(t *testing.T) {
	for bytes := 1; bytes <= 32; bytes++ {
		c := Config{Mode: Adiantum, KeyType: Raw, DataUnitSize: 4096, DUNBytes: bytes}
		last := power(8 * uint(bytes))
		for _, x := range []struct {
			d    DUN
			n    uint64
			want bool
		}{
			{last, 0, true}, {last, 1, true}, {last, 2, false}, {last.Sub(1), 2, true}, {last.Sub(1), 3, false},
			{DUN64(0), 256, true}, {DUN64(0), 257, bytes > 1},
			{last.Sub(100), 101, true}, {last.Sub(100), 102, false},
		} {
			if got := c.Fits(x.d, x.n); got != x.want {
				t.Errorf("%d DUN bytes: %d units from %x fit: %v, want %v", bytes, x.n, x.d, got, x.want)
			}
			// Numbered by sector a unit of 4096 bytes takes eight numbers.
			if x.n > 0 {
				s := c
				s.Numbering = BySector
				end, wrapped := x.d.Add((x.n - 1) * 8)
				want := !wrapped && end.big().Cmp(last.big()) <= 0
				if got := s.Fits(x.d, x.n); got != want {
					t.Errorf("%d DUN bytes, by sector: %d units from %x fit: %v, want %v", bytes, x.n, x.d, got, want)
				}
			}
		}
	}
}

func testConfigs() []Config {
	all := []Config{}
	for _, unit := range UnitSizes() {
		for _, numbering := range []Numbering{ByUnit, BySector} {
			all = append(all, Config{AES256XTS, Raw, unit, 16, numbering})
		}
	}
	return all
}

func configKey(t *testing.T, c Config) *Key {
	t.Helper()
	k, err := NewKey("test", c, buffer(t, c.Mode.KeySize(), counting))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// blkcrypto.md invariants 3 and 10: whatever the steps, the number of each
// data unit is that of the first plus its distance.
func TestContextAdvancesAndRewindsExactly(t *testing.T) {
	for _, c := range testConfigs() {
		k := configKey(t, c)
		per := uint64(1)
		if c.Numbering == BySector {
			per = uint64(c.DataUnitSize / 512)
		}
		for _, start := range []DUN{DUN64(0), power(32), power(64), power(128), power(192), power(256), power(64).Sub(3)} {
			ctx := Context{k, start}
			rnd := rand.New(rand.NewPCG(1, uint64(c.DataUnitSize)))
			at := uint64(0)
			for range 100 {
				step := rnd.Uint64N(1000)
				was := ctx
				ctx = ctx.Advance(int64(step) * int64(c.DataUnitSize))
				at += step
				want, _ := start.Add(at * per)
				if ctx.DUN != want || ctx.Key != k {
					t.Fatalf("%v: %d units from %x: %x, want %x", c, at, start, ctx.DUN, want)
				}
				if c.DUN(start, int64(at)*int64(c.DataUnitSize)) != want {
					t.Fatalf("%v: Config.DUN differs from Advance", c)
				}
				if back := ctx.Rewind(int64(step) * int64(c.DataUnitSize)); back != was {
					t.Fatalf("%v: rewinding %d units from %x gave %x, want %x", c, step, ctx.DUN, back.DUN, was.DUN)
				}
			}
		}
	}
	none := Context{}
	if none.Active() || none.Advance(1) != none || none.Rewind(511) != none {
		t.Error("a context without a key has no number")
	}
}

func TestContextNeverMovesIntoADataUnit(t *testing.T) {
	for _, c := range testConfigs() {
		ctx := Context{configKey(t, c), DUN64(1)}
		for _, n := range []int64{1, -1, 511, int64(c.DataUnitSize) / 2, int64(c.DataUnitSize) + 1} {
			for name, move := range map[string]func(int64) Context{"Advance": ctx.Advance, "Rewind": ctx.Rewind} {
				func() {
					defer func() {
						if recover() == nil {
							t.Errorf("%v: %s(%d) did not panic", c, name, n)
						}
					}()
					move(n)
				}()
			}
		}
	}
}
