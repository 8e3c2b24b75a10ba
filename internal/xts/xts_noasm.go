//go:build !amd64 || purego

package xts

func native() []implementation { return nil }
