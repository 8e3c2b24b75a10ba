package luks

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// memory is how many bytes this process may have at most: those of the machine, or
// fewer by the limits of its control group (version 2). 0: not known.
func memory() uint64 {
	var n uint64
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		n = uint64(info.Totalram) * uint64(info.Unit)
	}
	if of, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		if l := groupLimit(os.DirFS("/sys/fs/cgroup"), of); l > 0 && (n == 0 || l < n) {
			n = l
		}
	}
	return n
}

// groupLimit is the least memory.max of the control group that of, a process's
// /proc/PID/cgroup, names, and of those above it. 0: there is none.
func groupLimit(groups fs.FS, of []byte) (least uint64) {
	for line := range bytes.Lines(of) {
		name, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("0::/"))
		if !ok {
			continue
		}
		for dir := path.Clean(string(name)); ; dir = path.Dir(dir) {
			text, err := fs.ReadFile(groups, path.Join(dir, "memory.max"))
			if n, bad := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64); err == nil && bad == nil && (least == 0 || n < least) {
				least = n // "max" is no number, and the root has no such file
			}
			if dir == "." {
				break
			}
		}
	}
	return least
}
