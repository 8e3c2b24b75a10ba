//go:build !race

package sm4xts

const raced = false
