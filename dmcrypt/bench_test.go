package dmcrypt

import (
	"fmt"
	"testing"
)

// BenchmarkRuns encrypts and decrypts 256 KiB in sectors of 512 bytes, and of 4096
// bytes whose IVs count 512-byte sectors, as LUKS2 has them.
func BenchmarkRuns(b *testing.B) {
	for _, c := range []struct {
		cipher string
		key    int
	}{
		{"aes-xts-plain64", 64}, {"aes-xts-plain64be", 64}, {"aes-cbc-essiv:sha256", 32}, {"aes-cbc-plain64", 32}, {"aes-hctr2-plain64", 32},
		{"xchacha12,aes-adiantum-plain64", 32}, {"aes-lrw-benbi", 48}, {"serpent-xts-plain64", 64}, {"twofish-xts-plain64", 64},
		{"camellia-xts-plain64", 64}, {"camellia-cbc-plain64", 32},
	} {
		for _, sector := range []int{512, 4096} {
			p, err := Parse(c.cipher)
			if err != nil {
				b.Fatal(err)
			}
			k, err := New(p, Options{SectorSize: sector}, make([]byte, c.key))
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 256<<10)
			for verb, op := range map[string]func(dst, src []byte, first uint64){"encrypt": k.Encrypt, "decrypt": k.Decrypt} {
				b.Run(fmt.Sprintf("%s/%d/%s", c.cipher, sector, verb), func(b *testing.B) {
					b.SetBytes(int64(len(buf)))
					for b.Loop() {
						op(buf, buf, 8)
					}
				})
			}
			k.Wipe()
		}
	}
}
