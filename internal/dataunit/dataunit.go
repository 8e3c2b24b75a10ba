// Package dataunit is what the packages of data-unit ciphers share: the choice
// among implementations and the rules of a call.
package dataunit

import (
	"fmt"
	"math/bits"
	"os"
	"strings"
	"unsafe"
)

// Impl is one implementation of a cipher. Open is whatever its package needs to
// make one.
type Impl[F any] struct {
	Name      string
	Supported bool // by this CPU
	Open      F
}

// Choice is the implementations of one cipher and the one that serves.
type Choice[F any] struct {
	pkg, env  string
	supported []Impl[F]
	best      Impl[F]
	err       error
}

// Choose takes the implementations of package pkg, the best first, and chooses
// the first that this CPU supports, or the one that the environment variable
// KEYWAY_ and the name of the package in capitals (KEYWAY_XTS) asks for.
func Choose[F any](pkg string, impls ...Impl[F]) *Choice[F] {
	c := &Choice[F]{pkg: pkg, env: "KEYWAY_" + strings.ToUpper(pkg)}
	for _, im := range impls {
		if im.Supported {
			c.supported = append(c.supported, im)
		}
	}
	c.force(os.Getenv(c.env))
	return c
}

func (c *Choice[F]) force(name string) {
	for _, im := range c.supported {
		if name == "" || name == im.Name {
			c.best, c.err = im, nil
			return
		}
	}
	c.best = Impl[F]{}
	c.err = fmt.Errorf("%s: %s=%q: this CPU has %s: unset it or name one of these",
		c.pkg, c.env, name, strings.Join(c.Names(), ", "))
}

// Names are the supported implementations, the best first.
func (c *Choice[F]) Names() []string {
	var names []string
	for _, im := range c.supported {
		names = append(names, im.Name)
	}
	return names
}

// Best is the chosen implementation, or an error if the environment asks for one
// that cannot be had.
func (c *Choice[F]) Best() (Impl[F], error) { return c.best, c.err }

// Named is the implementation with this name.
func (c *Choice[F]) Named(name string) (Impl[F], error) {
	for _, im := range c.supported {
		if im.Name == name {
			return im, nil
		}
	}
	return Impl[F]{}, fmt.Errorf("%s: no implementation %q: this CPU has %s", c.pkg, name, strings.Join(c.Names(), ", "))
}

// Check returns how many data units of unit bytes src holds. It panics in the
// name of package pkg unless src is whole units and dst is as long at least and
// the same memory or disjoint: going on would lose data.
func Check(pkg string, unit int, dst, src []byte) int {
	units := len(src) / unit
	if units*unit != len(src) {
		panic(pkg + ": input is not whole data units")
	}
	if len(dst) < len(src) {
		panic(pkg + ": output is shorter than input")
	}
	if units == 0 {
		return 0
	}
	d, s, n := uintptr(unsafe.Pointer(&dst[0])), uintptr(unsafe.Pointer(&src[0])), uintptr(len(src))
	if d != s && d < s+n && s < d+n {
		panic(pkg + ": input and output overlap")
	}
	return units
}

// Add128 returns dun + n modulo 2^128; the low half is first.
func Add128(dun [2]uint64, n int) [2]uint64 { return Plus128(dun, uint64(n)) }

// Plus128 is Add128 for any step.
func Plus128(dun [2]uint64, n uint64) [2]uint64 {
	lo, carry := bits.Add64(dun[0], n, 0)
	return [2]uint64{lo, dun[1] + carry}
}

// Add256 returns dun + n modulo 2^256; the lowest quarter is first.
func Add256(dun [4]uint64, n int) [4]uint64 { return Plus256(dun, uint64(n)) }

// Plus256 is Add256 for any step.
func Plus256(dun [4]uint64, n uint64) [4]uint64 {
	var c uint64
	dun[0], c = bits.Add64(dun[0], n, 0)
	dun[1], c = bits.Add64(dun[1], 0, c)
	dun[2], c = bits.Add64(dun[2], 0, c)
	dun[3] += c
	return dun
}
