package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyway/test/fixtures"
)

// A kernel with cryptsetup opens, by their passphrase, volumes that keyway formatted,
// reads what keyway wrote, and keyway reads what it writes.
func TestKernelOpensOurLUKSVolumes(t *testing.T) {
	needKernel(t)
	b := newLUKSBench(t)
	const offset, size = 4 * miB, 4 * miB
	for i, x := range [][]string{
		{"--type", "luks2", "--sector-size", "4096"},
		{"--type", "luks1", "--cipher", "aes-cbc-essiv:sha256"},
	} {
		t.Run(x[1], func(t *testing.T) {
			b := b.in(t)
			name := fmt.Sprint("k", i)
			image := filepath.Join(b.Dir, name+".img")
			b.OK(append(append([]string{
				"luks", "format", image, "--size", fmt.Sprint(offset + size), "--offset", fmt.Sprint(offset / 512), "--key-file", b.pass,
			}, x...), ours["pbkdf2"]...)...)
			run := func(mode string, seed uint64) {
				t.Helper()
				raw := name + mode
				b.OK("create", raw, "--backend", "file:"+image)
				_, uri := export(b.Daemon, raw)
				acceptance(t, "kernel-dmcrypt-on-nbd.sh", uri, mode, "luks:"+passLUKS,
					fmt.Sprintf("0:65536:%d", seed), fmt.Sprintf("%d:12288:%d", miB-4096, seed+1), fmt.Sprintf("%d:65536:%d", size-65536, seed+2))
				b.OK("export", "remove", raw)
				b.OK("remove", raw)
			}
			regions := func(seed uint64, each func(off int64, plain []byte)) {
				for i, r := range []struct {
					off int64
					n   int
				}{{0, 65536}, {miB - 4096, 12288}, {size - 65536, 65536}} {
					each(r.off, fixtures.Pattern("mix", seed+uint64(i), r.n))
				}
			}
			if i == 0 { // each boot takes its time: to write, it has to open LUKS1 as well
				c := b.open(image, name)
				regions(10, func(off int64, plain []byte) { write(t, c, off, plain) })
				flush(t, c)
				b.shut(c, name)
				run("read", 10)
			}
			run("write", 20)
			c := b.open(image, name)
			regions(20, func(off int64, plain []byte) {
				if k := firstDifference(read(t, c, off, len(plain)), plain); k >= 0 {
					t.Errorf("region at %d, written by the kernel, differs at byte %d", off, k)
				}
			})
			b.shut(c, name)
			os.Remove(image)
		})
	}
}
