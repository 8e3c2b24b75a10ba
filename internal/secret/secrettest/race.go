//go:build race

package secrettest

const raced = true
