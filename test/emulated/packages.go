package main

import "strings"

// A subject is a package that is tested on other machines.
type subject struct {
	dir string // in the repository
	// impls are, by machine, the implementations that must be there: one that is
	// missing, or of which no test passes, is a failure. A package without any has
	// its tests run all the same: it is built upon, and its code differs by CPU.
	impls map[string][]string
}

// subjects are what is tested if nothing is named. Not internal/secret: QEMU's
// user-mode emulation accepts its calls of madvise, but shows neither their effect
// nor the flags of a mapping, and cannot execute the test binary again.
var subjects = []subject{
	{dir: "xts", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256"},
		"arm64":  {"armv8", "generic"},
	}},
	{dir: "essiv", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256"},
		"arm64":  {"armv8", "generic"},
	}},
	{dir: "adiantum", impls: map[string][]string{
		"avx512": {"avx512"},
		"arm64":  {"neon", "generic"},
	}},
	{dir: "sm4xts", impls: map[string][]string{
		"avx512": {"gfni512", "gfni256", "vaes256"},
		"arm64":  {"sm4e", "generic"},
	}},
	{dir: "internal/aes"},
	{dir: "internal/cipher"},
	{dir: "internal/dataunit"},
}

func find(dir string) subject {
	for _, s := range subjects {
		if s.dir == dir {
			return s
		}
	}
	return subject{dir: dir}
}

// elsewhere are implementations that any amd64 machine tests: on the slow one
// their subtests are left out.
var elsewhere = map[string][]string{
	"avx512": {"avx2", "aesni256", "aesni", "generic"},
}

// skipping is the flag that leaves out subtests, at any depth, which bear one of
// the names.
func skipping(names []string) string {
	last := "/^(" + strings.Join(names, "|") + ")$"
	var all []string
	for depth := 1; depth <= 4; depth++ {
		all = append(all, ".*"+strings.Repeat("/.*", depth-1)+last)
	}
	return "-test.skip=" + strings.Join(all, "|")
}
