//go:build arm64 && !purego

package adiantum

// nhNEON puts NH of bytes bytes at text, a multiple of 16 up to nhChunk, with the
// key in pairs of distance 1 (see pair), into sums, four words.
//
//go:noescape
func nhNEON(low, high, sums *uint64, text *byte, bytes int)

// subkeysNEON makes four keys of 32 bytes from as many nonces of 16 bytes: HChaCha.
//
//go:noescape
func subkeysNEON(key, sub *uint32, nonces *byte, rounds int)

// streamNEON writes bytes bytes at text, a multiple of 16 and not 0, xor the
// stream of the key at sub from the given block on, to text and to dst.
//
//go:noescape
func streamNEON(sub *uint32, dst, text *byte, bytes int, block uint32, rounds int)
