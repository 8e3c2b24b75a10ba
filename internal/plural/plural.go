// Package plural says how many of something there are.
package plural

import "fmt"

// Of returns "1 key", "2 keys": n of what one names, whose plural takes an s.
func Of[N ~int | ~int32 | ~int64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
