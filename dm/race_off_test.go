//go:build !race

package dm_test

const raceEnabled = false
