package emul

import (
	"encoding/binary"

	"keyway/internal/aes"
	"keyway/internal/secret"
)

// What the known hardware derives from a wrapped key (blkcrypto.md, section
// 10.4): SP 800-108 in counter mode, with AES-256-CMAC as the PRF.
var (
	kdfLabel = []byte{0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20}

	inlineContext = kdfContext("inline encryption key", 6, 0x02, 0x43, 0x00, 0x82, 0x50)
	secretContext = kdfContext("raw secret", 9, 0x02, 0x17, 0x00, 0x80, 0x50)
)

const (
	inlineSize = 64 // bytes of the key that goes into a slot: AES-256-XTS
	secretSize = 32 // bytes of the software secret
)

func kdfContext(name string, zeroes int, policy ...byte) []byte {
	b := append([]byte(name), make([]byte, zeroes)...)
	return append(append(b, policy...), 0, 0, 0, 0)
}

// derive fills out, whole blocks, from key.
func derive(key, context, out []byte) error {
	m, err := newMAC(key)
	if err != nil {
		return err
	}
	defer m.wipe()
	var in []byte
	for i := 0; i < len(out)/aes.BlockSize; i++ {
		in = binary.BigEndian.AppendUint32(in[:0], uint32(i+1))
		in = append(append(append(in, kdfLabel...), 0), context...)
		in = binary.BigEndian.AppendUint32(in, uint32(8*len(out)))
		t := m.sum(in)
		copy(out[i*aes.BlockSize:], t[:])
		secret.Wipe(t[:])
	}
	return nil
}
