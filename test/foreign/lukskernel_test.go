package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

// A kernel with cryptsetup opens, by their passphrase, volumes that keyway formatted,
// reads what keyway wrote, and keyway reads what it writes; and keyway opens what
// cryptsetup formats with ciphers for which it needs a kernel.
func TestKernelOpensOurLUKSVolumes(t *testing.T) {
	needKernel(t)
	b := newLUKSBench(t)
	const offset, size = 4 * miB, 4 * miB
	regions := func(seed uint64, each func(off int64, plain []byte)) {
		for i, r := range []struct {
			off int64
			n   int
		}{{0, 65536}, {miB - 4096, 12288}, {size - 65536, 65536}} {
			each(r.off, fixtures.Pattern("mix", seed+uint64(i), r.n))
		}
	}
	all := []struct {
		typ, cipher  string
		bits, sector int
		theirs       bool // cryptsetup formats it
		image, name  string
	}{
		{typ: "luks2", cipher: "aes-xts-plain64", bits: 512, sector: 4096},
		{typ: "luks1", cipher: "aes-cbc-essiv:sha256", bits: 256},
		{typ: "luks2", cipher: "camellia-xts-plain64", bits: 512, sector: 4096},
		{typ: "luks1", cipher: "camellia-cbc-essiv:sha256", bits: 256},
		{typ: "luks2", cipher: "aes-lrw-benbi", bits: 384, sector: 512},
		{typ: "luks1", cipher: "twofish-lrw-benbi", bits: 256},
		{typ: "luks2", cipher: "xchacha12,aes-adiantum-plain64", bits: 256, sector: 4096},
		{typ: "luks2", cipher: "xchacha20,aes-adiantum-plain64", bits: 256, sector: 512},
		// HCTR2 is not in the kernels of Debian 12.
		{typ: "luks2", cipher: "camellia-xts-plain64", bits: 512, sector: 4096, theirs: true},
		{typ: "luks2", cipher: "aes-lrw-benbi", bits: 384, sector: 512, theirs: true},
		{typ: "luks1", cipher: "twofish-lrw-benbi", bits: 256, theirs: true},
		{typ: "luks2", cipher: "xchacha12,aes-adiantum-plain64", bits: 256, sector: 4096, theirs: true},
	}
	var items []string
	for i := range all {
		x, seed := &all[i], uint64(100*i)
		x.name = fmt.Sprint("k", i)
		x.image = filepath.Join(b.Dir, x.name+".img")
		item := fmt.Sprintf("%s:%d", x.name, seed)
		if x.theirs {
			b.blank(x.name+".img", offset+size)
			item += fmt.Sprintf(":%s:%s:%d:%d", x.typ, x.cipher, x.bits, x.sector)
		} else {
			args := []string{"luks", "format", x.image, "--size", fmt.Sprint(offset + size), "--type", x.typ, "--cipher", x.cipher,
				"--key-size", fmt.Sprint(x.bits), "--offset", fmt.Sprint(offset / 512), "--key-file", b.pass}
			if x.sector != 0 {
				args = append(args, "--sector-size", fmt.Sprint(x.sector))
			}
			b.OK(append(args, ours["pbkdf2"]...)...)
			c := b.open(x.image, x.name)
			regions(seed, func(off int64, plain []byte) { write(t, c, off, plain) })
			flush(t, c)
			b.shut(c, x.name)
		}
		items = append(items, item)
	}
	for i := range all {
		b.OK("create", all[i].name, "--backend", "file:"+all[i].image)
		b.OK("export", "add", all[i].name, "--nbd", "unix:"+b.sock, "--name", all[i].name)
	}
	harness.WaitSocket(t, b.sock)
	acceptance(t, "kernel-luks-on-nbd.sh", append([]string{nbdURI(b.sock, all[0].name), passLUKS}, items...)...)
	for i := range all {
		b.OK("export", "remove", all[i].name)
		b.OK("remove", all[i].name)
	}
	for i := range all {
		x := &all[i]
		c := b.open(x.image, x.name)
		regions(uint64(100*i+10), func(off int64, plain []byte) {
			if k := firstDifference(read(t, c, off, len(plain)), plain); k >= 0 {
				t.Errorf("%s %s: region at %d, written by the kernel, differs at byte %d", x.typ, x.cipher, off, k)
			}
		})
		b.shut(c, x.name)
		os.Remove(x.image)
	}
}
