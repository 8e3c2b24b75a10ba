// Package blkcrypto is the vocabulary of inline encryption: modes, configs,
// keys, data unit numbers, the context that a request carries and the profile
// of what a device supports. It transforms no data itself.
//
// The names and the rules are those of Linux's blk-crypto; where this package
// is stricter (the range of data unit numbers, weak keys, the exact profile,
// key identity) the comment at that place says so.
package blkcrypto
