package luks

import (
	"fmt"
	"strings"

	"keyway/adiantum"
	"keyway/essiv"
	"keyway/sm4xts"
	"keyway/xts"
)

// decryptArea decrypts a keyslot's material in place: whole sectors of 512 bytes,
// numbered from 0.
func decryptArea(cipher string, key, b []byte) error {
	switch cipher {
	case "aes-xts-plain64", "aes-xts-plain": // the same up to sector 2^32
		c, err := xts.NewAllowWeak(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		c.Decrypt(b, b, [2]uint64{})
	case "aes-cbc-essiv:sha256":
		c, err := essiv.New(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		c.Decrypt(b, b, [2]uint64{})
	case "sm4-xts-plain64":
		c, err := sm4xts.NewAllowWeak(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		c.Decrypt(b, b, [2]uint64{})
	case "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64":
		newCipher := adiantum.New
		if strings.HasPrefix(cipher, "xchacha20") {
			newCipher = adiantum.New20
		}
		c, err := newCipher(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		c.Decrypt(b, b, [4]uint64{})
	default:
		return fmt.Errorf("cipher %q of the key material: %w", cipher, ErrUnsupported)
	}
	return nil
}
