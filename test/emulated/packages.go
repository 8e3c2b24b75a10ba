package main

import (
	"cmp"
	"slices"
	"strings"

	"keyway/test/emulated/report"
)

// A subject is a package that is tested on other machines.
type subject struct {
	dir string // in the repository
	// impls are, by machine, the implementations that must be there: one that is
	// missing, or of which no test passes, is a failure. A package without any has
	// its tests run all the same: it is built upon, and its code differs by CPU.
	impls map[string][]string
	// cost is how long the tests take in Bochs, in seconds, for split.
	cost int
}

// subjects are what is tested if nothing is named. Not internal/secret: QEMU's
// user-mode emulation accepts its calls of madvise, but shows neither their effect
// nor the flags of a mapping, and cannot execute the test binary again.
var subjects = []subject{
	{dir: "xts", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256"},
		"arm64":  {"armv8", "generic"},
	}, cost: 40},
	{dir: "essiv", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256"},
		"arm64":  {"armv8", "generic"},
	}, cost: 25},
	{dir: "adiantum", impls: map[string][]string{
		"avx512": {"avx512"},
		"arm64":  {"neon", "generic"},
	}, cost: 25},
	{dir: "hctr2", impls: map[string][]string{
		"avx512": {"vaes256"},
		"arm64":  {"armv8", "generic"},
	}, cost: 15},
	{dir: "sm4xts", impls: map[string][]string{
		"avx512": {"gfni512", "gfni256", "vaes256"},
		"arm64":  {"sm4e", "generic"},
	}, cost: 45},
	{dir: "internal/aes", cost: 15},
	{dir: "internal/cipher", cost: 1},
	{dir: "internal/dataunit", cost: 1},
}

func find(dir string) subject {
	for _, s := range subjects {
		if s.dir == dir {
			return s
		}
	}
	return subject{dir: dir}
}

// split deals jobs out to n machines or fewer, none idle for long.
func split(jobs []report.Job, n int) [][]report.Job {
	cost := func(j report.Job) int { return find(strings.TrimPrefix(j.Package, "keyway/")).cost }
	jobs = slices.Clone(jobs)
	slices.SortStableFunc(jobs, func(a, b report.Job) int { return cmp.Compare(cost(b), cost(a)) })
	parts := make([][]report.Job, min(n, len(jobs)))
	sums := make([]int, len(parts))
	for _, j := range jobs {
		i := slices.Index(sums, slices.Min(sums))
		parts[i], sums[i] = append(parts[i], j), sums[i]+cost(j)+1
	}
	return parts
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
