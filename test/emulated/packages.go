package main

// A subject is a package that is tested on other machines, with the
// implementations which must be there: one that is missing is a failure.
type subject struct {
	dir   string              // in the repository
	impls map[string][]string // by machine
}

// subjects are what is tested if nothing is named. A package that has no
// implementations of its own runs all the same: it may stand on one that has.
var subjects = []subject{
	{dir: "internal/aes"},
	{dir: "internal/dataunit"},
	{dir: "internal/secret"},
	{dir: "essiv", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256", "aesni", "generic"},
	}},
	{dir: "xts", impls: map[string][]string{
		"avx512": {"vaes512", "vaes256", "aesni", "generic"},
		"arm64":  {"armv8", "generic"},
	}},
}

func find(dir string) subject {
	for _, s := range subjects {
		if s.dir == dir {
			return s
		}
	}
	return subject{dir: dir}
}
