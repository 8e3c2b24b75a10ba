package luks

import (
	"fmt"
	"strings"

	"keyway/adiantum"
	"keyway/dmcrypt"
	"keyway/essiv"
	"keyway/sm4xts"
	"keyway/xts"
)

// cryptArea encrypts or decrypts a keyslot's material in place: whole sectors of
// 512 bytes, numbered from 0.
func cryptArea(encrypt bool, cipher string, key, b []byte) error {
	switch cipher {
	case "aes-xts-plain64", "aes-xts-plain": // the same up to sector 2^32
		c, err := xts.NewAllowWeak(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		cryptUnits(encrypt, c, b, [2]uint64{})
	case "aes-cbc-essiv:sha256":
		c, err := essiv.New(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		cryptUnits(encrypt, c, b, [2]uint64{})
	case "sm4-xts-plain64":
		c, err := sm4xts.NewAllowWeak(key, sectorBytes)
		if err != nil {
			return err
		}
		defer c.Wipe()
		cryptUnits(encrypt, c, b, [2]uint64{})
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
		cryptUnits(encrypt, c, b, [4]uint64{})
	default:
		return cryptSectors(encrypt, cipher, key, b)
	}
	return nil
}

// cryptUnits is for the ciphers that have fast packages of their own.
func cryptUnits[N any](encrypt bool, c interface {
	Encrypt(dst, src []byte, n N)
	Decrypt(dst, src []byte, n N)
}, b []byte, first N) {
	if encrypt {
		c.Encrypt(b, b, first)
	} else {
		c.Decrypt(b, b, first)
	}
}

// cryptSectors is for all others that dm-crypt has.
func cryptSectors(encrypt bool, cipher string, key, b []byte) error {
	spec, err := areaSpec(cipher)
	if err != nil {
		return err
	}
	c, err := dmcrypt.New(spec, dmcrypt.Options{SectorSize: sectorBytes}, key)
	if err != nil {
		return err
	}
	defer c.Wipe()
	if encrypt {
		c.Encrypt(b, b, 0)
	} else {
		c.Decrypt(b, b, 0)
	}
	return nil
}

// areaSpec parses the cipher of a keyslot's area. Not every cipher of the data is
// one: cryptsetup encrypts areas itself and knows neither the kernel's names
// (capi:) nor the IV modes of other formats, which change the data as well.
func areaSpec(cipher string) (dmcrypt.Spec, error) {
	spec, err := dmcrypt.Parse(cipher)
	switch {
	case err != nil:
		return spec, fmt.Errorf("cipher of the key material: %w: %w", err, ErrUnsupported)
	case spec.Keyless():
		return spec, fmt.Errorf("cipher %q of the key material encrypts nothing: %w", cipher, ErrUnsupported)
	case strings.HasPrefix(cipher, "capi:"):
		return spec, fmt.Errorf("cipher %q of the key material: the form capi: is for data: %w", cipher, ErrUnsupported)
	}
	full := spec.String()
	name, mode, _ := strings.Cut(full, "-")
	if strings.Contains(name, ":") {
		return spec, fmt.Errorf("cipher %q of the key material: several keys are for data: %w", cipher, ErrUnsupported)
	}
	_, iv, _ := strings.Cut(mode, "-")
	for _, other := range []string{"lmk", "tcw", "elephant"} {
		if iv == other {
			return spec, fmt.Errorf("cipher %q of the key material: IV mode %s is for data: %w", cipher, iv, ErrUnsupported)
		}
	}
	return spec, nil
}

// areaCipherFor chooses the cipher of a keyslot's area and the size of its key, in
// bytes, by those of the data: the same, or what cryptsetup takes instead.
func areaCipherFor(data string, key int) (string, int) {
	if spec, err := areaSpec(data); err == nil && spec.CheckKey(key) == nil {
		return data, key
	}
	return "aes-xts-plain64", 64
}
