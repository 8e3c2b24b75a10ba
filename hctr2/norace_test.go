//go:build !race

package hctr2

const raceEnabled = false
