//go:build !amd64 || purego

package argon2

func setAVX2(bool) {}
