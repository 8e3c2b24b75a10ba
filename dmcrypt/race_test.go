//go:build race

package dmcrypt

const raceEnabled = true
