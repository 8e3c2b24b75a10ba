//go:build !race

package keyslot_test

const raceEnabled = false
