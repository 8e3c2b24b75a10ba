package dmcrypt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A layout says where in a key of a Spec its parts are, in bytes: keys of equal
// size for the bulk of the data first, then what the IV mode takes.
type layout struct{ each, extra int }

const whitening = 16 // bytes of tcw's second secret

// CheckKey refuses a key of n bytes that the cipher does not take.
func (p Spec) CheckKey(n int) error {
	_, err := p.layout(n)
	return err
}

func (p Spec) layout(n int) (l layout, err error) {
	switch p.iv {
	case "elephant":
		if n%2 == 0 && fits(blocks["aes"].sizes, n/2) {
			l.extra = n / 2
		} else {
			l.extra = -1
		}
	case "tcw":
		l.extra = chains[p.chain] + whitening
	case "lmk":
		if n%p.keys != 0 {
			l.extra = n / (p.keys + 1) // one more of the same size is the seed
			if n%(p.keys+1) != 0 || l.extra < lmkSeed {
				l.extra = -1
			}
		}
	}
	rest := n - l.extra
	l.each = rest / p.keys
	if l.extra < 0 || rest < 0 || rest%p.keys != 0 || !p.fits(l.each) {
		return l, fmt.Errorf("a key of %d bytes does not fit cipher %v (each of its keys: %s)", n, p, p.sizes())
	}
	return l, nil
}

// fits reports whether one key for the bulk of the data may have n bytes.
func (p Spec) fits(n int) bool {
	switch p.chain {
	case "xts":
		return n%2 == 0 && fits(blocks[p.block].sizes, n/2)
	case "lrw":
		return fits(blocks[p.block].sizes, n-lrwTweak)
	case "adiantum":
		return n == 32
	}
	return fits(blocks[p.block].sizes, n)
}

func (p Spec) sizes() string {
	var all []string
	for n := range 129 {
		if p.fits(n) {
			all = append(all, fmt.Sprint(n))
		}
	}
	return strings.Join(all, ", ") + " bytes"
}

func fits(sizes []int, n int) bool { return slices.Contains(sizes, n) }

func names[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
