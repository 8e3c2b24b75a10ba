package naive

import (
	"crypto/aes"
	"crypto/sha256"
	"encoding/binary"
)

// ESSIV transforms data units of unit bytes by AES-CBC-ESSIV with SHA-256, block by
// block over crypto/aes.
//
//go:norace
func ESSIV(dst, src, key []byte, unit int, dun [2]uint64, decrypt bool) {
	salt := sha256.Sum256(key)
	data, err1 := aes.NewCipher(key)
	number, err2 := aes.NewCipher(salt[:])
	if err1 != nil || err2 != nil {
		panic("naive: bad key")
	}
	for len(src) > 0 {
		var before, b [16]byte
		binary.LittleEndian.PutUint64(before[:8], dun[0])
		binary.LittleEndian.PutUint64(before[8:], dun[1])
		number.Encrypt(before[:], before[:])
		for i := 0; i < unit; i += 16 {
			if decrypt {
				data.Decrypt(b[:], src[i:])
				for j := range b {
					dst[i+j] = b[j] ^ before[j]
				}
				copy(before[:], src[i:])
				continue
			}
			for j := range b {
				b[j] = src[i+j] ^ before[j]
			}
			data.Encrypt(before[:], b[:])
			copy(dst[i:], before[:])
		}
		dst, src = dst[unit:], src[unit:]
		if dun[0]++; dun[0] == 0 {
			dun[1]++
		}
	}
}
