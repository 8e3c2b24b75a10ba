//go:build race

package dataunittest

const raceEnabled = true
