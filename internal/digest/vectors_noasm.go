//go:build !amd64 || purego

package digest

func clearVectors() {}
