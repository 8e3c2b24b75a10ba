package dmcrypt

import (
	"bytes"
	"testing"

	"keyway/test/fixtures"
)

// TestKernelDisks reads and writes anew every region that the kernel's dm-crypt wrote.
func TestKernelDisks(t *testing.T) {
	n := 0
	for _, d := range fixtures.DMCrypt(t) {
		n++
		t.Run(d.Name, func(t *testing.T) {
			p, err := Parse(d.Cipher)
			if err != nil {
				t.Fatal(err)
			}
			c, err := New(p, Options{d.SectorSize(), d.LargeIV()}, d.Key())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Wipe()
			disk := d.Image.Bytes(t)
			for _, r := range d.Regions {
				at := d.DeviceStartSector*512 + r.Offset
				want, plain := disk[at:at+int64(r.Length)], r.Plain()
				first := d.IVOffset + uint64(r.Offset)/512
				got := make([]byte, r.Length)
				c.Encrypt(got, plain, first)
				if !bytes.Equal(got, want) {
					t.Errorf("region at %d: ciphertext %x..., the kernel's %x...", r.Offset, got[:32], want[:32])
				}
				c.Decrypt(got, want, first)
				if !bytes.Equal(got, plain) {
					t.Errorf("region at %d: plaintext %x..., the kernel's %x...", r.Offset, got[:32], plain[:32])
				}
				inPlace := bytes.Clone(plain)
				c.Encrypt(inPlace, inPlace, first)
				if !bytes.Equal(inPlace, want) {
					t.Errorf("region at %d: in place %x..., the kernel's %x...", r.Offset, inPlace[:32], want[:32])
				}
				c.Decrypt(inPlace, inPlace, first)
				if !bytes.Equal(inPlace, plain) {
					t.Errorf("region at %d: back in place %x..., the kernel's %x...", r.Offset, inPlace[:32], plain[:32])
				}
			}
		})
	}
	if n < 40 {
		t.Errorf("%d disks, want at least 40", n)
	}
}
