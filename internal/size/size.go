// Package size reads and writes sizes in bytes as people do: "64M", "1G".
package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const units = "KMGT"

// Parse returns the bytes that text stands for: a decimal number, or one
// followed by K, M, G or T (upper or lower case) for powers of 1024.
func Parse(text string) (int64, error) {
	number, shift := text, 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte(units, text[n-1]&^0x20); i >= 0 {
			number, shift = text[:n-1], 10*(i+1)
		}
	}
	v, err := strconv.ParseUint(number, 10, 64)
	switch {
	case number == "" || strings.Trim(number, "0123456789") != "":
		return 0, fmt.Errorf("size %q is not a whole number of bytes with an optional K, M, G or T", text)
	case err != nil || v > math.MaxInt64>>shift:
		return 0, fmt.Errorf("size %q is more than %d bytes", text, int64(math.MaxInt64))
	}
	return int64(v) << shift, nil
}

// Format returns n in the largest unit that divides it: what Parse reads back
// as n.
func Format(n int64) string {
	for i := len(units); i > 0; i-- {
		if unit := int64(1) << (10 * i); n != 0 && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + units[i-1:i]
		}
	}
	return strconv.FormatInt(n, 10)
}
