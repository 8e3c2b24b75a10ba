// Package oracle lets tests in Go boot a real Linux kernel (README.md) that reads
// encrypted file systems, or makes them.
package oracle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/harness"
)

// Need skips, or fails in CI, without QEMU or the kernel to boot in it.
func Need(tb testing.TB) {
	tb.Helper()
	harness.Need(tb, "qemu-system-x86_64", "busybox", "cpio", "zstd", "gcc", "nbd-client", "dmsetup", "mke2fs", "socat", "setpriv")
	dir := os.Getenv("ORACLE_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			tb.Fatal(err)
		}
		dir = filepath.Join(cache, "keyway-oracle")
	}
	if _, err := os.Stat(filepath.Join(dir, "kernels/stock/vmlinuz")); err != nil {
		const how = "the stock kernel is not there: run scripts/install-tools --kernel"
		if harness.CI() {
			tb.Fatal(how)
		}
		tb.Skip(how)
	}
}

// boot runs a script of guest/ in the guest, with files below /host/job and disks
// as /dev/vda and on, and returns the directory of what it left in /host/out.
func boot(tb testing.TB, script string, job map[string]string, disks []string) string {
	tb.Helper()
	dir := tb.TempDir()
	args := []string{"-t", "420", "-m", "512", "-o", filepath.Join(dir, "out")}
	for name, text := range job {
		path := filepath.Join(dir, "job", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "-f", path+"=job/"+name)
	}
	for _, d := range disks {
		args = append(args, "-d", d+",cache=unsafe") // the guest flushes for nobody: who reads comes after it
	}
	here := filepath.Join(harness.Root(), "test/oracle")
	r := harness.ToolFor(tb, 8*time.Minute, nil, filepath.Join(here, "vm-run"), append(args, filepath.Join(here, "guest", script))...)
	if r.Code != 0 || !strings.HasSuffix(strings.TrimSpace(r.Stdout), "PASS") {
		tb.Fatalf("the guest's %s: exit status %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
	return filepath.Join(dir, "out")
}
