package foreign

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/fixtures"
	"keyway/test/harness"
	"keyway/test/oracle"
)

// acceptance runs one of the scripts that boot a Linux kernel as our client.
func acceptance(t *testing.T, script string, args ...string) {
	t.Helper()
	r := harness.ToolFor(t, 8*time.Minute, []string{"FIO_BYTES=4M", "LIMIT=420"},
		filepath.Join(harness.Root(), "test/oracle/acceptance", script), args...)
	if r.Code != 0 || !strings.HasSuffix(strings.TrimSpace(r.Stdout), "PASS") {
		t.Fatalf("%s %s: exit status %d\n%s%s", script, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
}

// needKernel skips, or fails in CI, without QEMU or the kernel to boot in it.
func needKernel(t *testing.T) {
	t.Helper()
	oracle.Need(t)
}

// The kernel's NBD client makes a file system on our disk, uses it, detaches,
// attaches again and checks it.
func TestKernelNBDClient(t *testing.T) {
	needKernel(t)
	d := harness.Start(t)
	addKey(t, d, "k", 4096, testKey(31))
	d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "96M", "--engine", "cpu")
	// 4096-byte data units under a kernel that sends 512-byte requests.
	create(d, "engine", "0 196608 default-key aes-xts-plain64 :64:logon:k 0 leaf 0 3 allow_discards sector_size:4096 iv_large_sectors")
	addKey(t, d, "k5", 512, testKey(32))
	d.OK("create", "ram", "--backend", "mem:96M")
	create(d, "crypt", "0 196608 crypt aes-xts-plain64 :64:logon:k5 0 ram 0 1 allow_discards")
	for _, x := range []struct{ dev, conns string }{{"engine", "1"}, {"crypt", "4"}} {
		t.Run(x.dev+" on "+x.conns+" connections", func(t *testing.T) {
			_, uri := export(d, x.dev)
			acceptance(t, "kernel-nbd-client.sh", uri, x.conns)
		})
	}
}

// What our targets write the kernel's dm-crypt reads, and the other way round,
// over an export of the raw disk below.
func TestKernelDMCryptReadsOursAndWritesForUs(t *testing.T) {
	needKernel(t)
	const sectors = 65536 // of the mapped device
	key := testKey(33)
	for _, x := range []struct {
		target string
		unit   int
		engine string
		table  string // ours; %s is the key
		kernel string // dm-crypt's; %s is the key, @ the disk
	}{
		{"crypt", 512, "none", "crypt aes-xts-plain64 %s 77 leaf 16", "aes-xts-plain64 %s 77 @ 16"},
		{"inlinecrypt", 4096, "cpu", "inlinecrypt aes-xts-plain64 %s 8 leaf 64 2 sector_size:4096 iv_large_sectors", "aes-xts-plain64 %s 8 @ 64 2 sector_size:4096 iv_large_sectors"},
		{"default-key", 4096, "none", "default-key aes-xts-plain64 %s 0 leaf 0 3 allow_discards sector_size:4096 iv_large_sectors", "aes-xts-plain64 %s 0 @ 0 2 sector_size:4096 iv_large_sectors"},
	} {
		t.Run(x.target, func(t *testing.T) {
			d := harness.Start(t)
			addKey(t, d, "k", x.unit, key)
			d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", fmt.Sprint(sectors*512+65536), "--engine", x.engine)
			create(d, "vol", fmt.Sprintf("0 %d ", sectors)+fmt.Sprintf(x.table, ":64:logon:k"))
			sock, _ := export(d, "vol")
			_, raw := export(d, "leaf")
			c := dial(t, sock, "vol")
			tail := fmt.Sprintf(x.kernel, hex.EncodeToString(key))

			type region struct {
				off  int64
				n    int
				seed uint64
			}
			regions := func(seed uint64) (rs []region, args []string) {
				for i, r := range []region{{0, 65536, 0}, {1<<20 - 4096, 3 * 4096, 0}, {sectors*512 - 1<<20, 1 << 20, 0}} {
					r.seed = seed + uint64(i)
					rs = append(rs, r)
					args = append(args, fmt.Sprintf("%d:%d:%d", r.off, r.n, r.seed))
				}
				return rs, args
			}

			ours, args := regions(100)
			for _, r := range ours {
				write(t, c, r.off, fixtures.Pattern("mix", r.seed, r.n))
			}
			flush(t, c)
			acceptance(t, "kernel-dmcrypt-on-nbd.sh", append([]string{raw, "read", tail}, args...)...)

			theirs, args := regions(200)
			acceptance(t, "kernel-dmcrypt-on-nbd.sh", append([]string{raw, "write", tail}, args...)...)
			for _, r := range theirs {
				got, want := read(t, c, r.off, r.n), fixtures.Pattern("mix", r.seed, r.n)
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("region at %d, written by the kernel, differs at byte %d: %x, want %x", r.off, i, got[i], want[i])
				}
			}
		})
	}
}
