package daemon

import (
	"math/big"
	"strings"
	"testing"

	"keyway/blkcrypto"
)

func TestDUNsAreReadAndPrinted(t *testing.T) {
	most := new(big.Int).Lsh(big.NewInt(1), 256)
	most.Sub(most, big.NewInt(1))
	for _, c := range []struct {
		text string
		dun  blkcrypto.DUN
		back string
	}{
		{"0", blkcrypto.DUN{}, "0"},
		{"0x100", blkcrypto.DUN{256}, "256"},
		{"18446744073709551616", blkcrypto.DUN{0, 1}, "18446744073709551616"},
		{"0x1" + strings.Repeat("0", 47) + "2", blkcrypto.DUN{2, 0, 0, 1}, "6277101735386680763835789423207666416102355444464034512898"},
		{most.String(), blkcrypto.DUN{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}, most.String()},
	} {
		dun, err := parseDUN(c.text)
		if err != nil || dun != c.dun {
			t.Errorf("%s: %v, %v, want %v", c.text, dun, err, c.dun)
		}
		if got := formatDUN(c.dun); got != c.back {
			t.Errorf("%v prints as %s, want %s", c.dun, got, c.back)
		}
	}
	for _, bad := range []string{"-1", "x", "1.5", "0x1" + strings.Repeat("0", 64), "1 "} {
		if dun, err := parseDUN(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, dun)
		}
	}
}
