package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyway/block"
	"keyway/internal/blocktest"
)

const testSize = 4 << 20

// fileOptions lets the suite open a file, with the options of a query.
func fileSuite(t *testing.T, dir, query string) {
	n := 0
	open := func(t *testing.T) block.Device {
		n++
		path := filepath.Join(dir, fmt.Sprintf("disk%d", n))
		t.Cleanup(func() { os.Remove(path) })
		return openTest(t, "file:"+path+query, Options{Size: testSize, Create: true})
	}
	readOnly := filepath.Join(dir, "read-only")
	if err := os.WriteFile(readOnly, bytes.Repeat([]byte("readonly"), 1<<17), 0o400); err != nil {
		t.Fatal(err)
	}
	blocktest.Device(t, open, blocktest.Options{
		NoAllocs:  true,
		FewBlocks: true,
		OpenReadOnly: func(t *testing.T) block.Device {
			return openTest(t, "file:"+readOnly+query, Options{ReadOnly: true})
		},
	})
}

func TestFileConforms(t *testing.T) { fileSuite(t, t.TempDir(), "") }

func TestDirectFileConforms(t *testing.T) {
	dir := t.TempDir()
	skipUnlessDirect(t, dir)
	fileSuite(t, dir, "?direct=1")
}

// tmpfs has RWF_NOWAIT for neither or both and no ZERO_RANGE: other paths.
func TestFileOnTmpfsConforms(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "keyway")
	if err != nil {
		t.Skip("no tmpfs at /dev/shm: ", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fileSuite(t, dir, "")
}

func skipUnlessDirect(t testing.TB, dir string) {
	path := filepath.Join(dir, "probe")
	defer os.Remove(path)
	dev, err := Open(context.Background(), "file:"+path+"?direct=1", Options{Size: 1 << 20, Create: true})
	if err != nil {
		t.Skip("no O_DIRECT here: ", err)
	}
	dev.Close()
}

// loop attaches a loop device of n bytes, with blocks of the given size.
func loop(t *testing.T, n int64, sector int) string { return loopIn(t, t.TempDir(), n, sector) }

// loopIn is loop with its medium in a directory.
func loopIn(t *testing.T, dir string, n int64, sector int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	if _, err := exec.LookPath("losetup"); err != nil {
		missing(t, "losetup")
	}
	path := filepath.Join(dir, "medium")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", fmt.Sprint(sector), path).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

func TestBlockDeviceConforms(t *testing.T) {
	for _, c := range []struct {
		sector int
		query  string
	}{{512, ""}, {4096, "?direct=1"}, {512, "?direct=1"}, {4096, ""}} {
		t.Run(fmt.Sprintf("%d%s", c.sector, c.query), func(t *testing.T) {
			dev := loop(t, testSize, c.sector)
			var info block.Info
			open := func(t *testing.T) block.Device {
				d := openTest(t, dev+c.query, Options{})
				info = d.Info()
				return d
			}
			blocktest.Device(t, open, blocktest.Options{
				NoAllocs: true, FewBlocks: true,
				OpenReadOnly: func(t *testing.T) block.Device { return openTest(t, dev+c.query, Options{ReadOnly: true}) },
			})
			if info.LogicalBlock != c.sector || info.Size != testSize {
				t.Errorf("%+v for a device of %d bytes with blocks of %d", info, testSize, c.sector)
			}
		})
	}
}

func TestBlockDeviceIsOpenedByOneWriterOnly(t *testing.T) {
	path := loop(t, testSize, 512)
	dev := openTest(t, path, Options{})
	_, err := Open(context.Background(), path, Options{})
	wantBusy(t, err, path)
	_, err = Open(context.Background(), path, Options{ReadOnly: true})
	wantBusy(t, err, path)
	if err := exec.Command("mkfs.ext4", "-q", "-F", path).Run(); err == nil {
		t.Error("mkfs could open the device although a writer has it")
	}
	dev.Close()
	a := openTest(t, path, Options{ReadOnly: true})
	defer a.Close()
	b := openTest(t, path, Options{ReadOnly: true})
	defer b.Close()
	if _, err := Open(context.Background(), path, Options{Size: 2 * testSize, ReadOnly: true}); err == nil {
		t.Error("opened with twice its size")
	}
}

func wantBusy(t *testing.T, err error, path string) {
	t.Helper()
	if !errors.Is(err, block.ErrBusy) || !strings.Contains(err.Error(), path+" is in use by another process") {
		t.Errorf("got error %v, want that %s is in use", err, path)
	}
}

func TestFileIsLockedAgainstASecondOpener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	writer := openTest(t, path, Options{Size: testSize, Create: true})
	for _, o := range []Options{{}, {ReadOnly: true}, {Size: testSize, Create: true}} {
		_, err := Open(context.Background(), path, o)
		wantBusy(t, err, path)
	}
	if err := exec.Command("flock", "--nonblock", "--shared", path, "true").Run(); err == nil {
		t.Error("flock(1) got a lock beside a writer")
	}
	writer.Close()

	a := openTest(t, path, Options{ReadOnly: true})
	b := openTest(t, path, Options{ReadOnly: true})
	_, err := Open(context.Background(), path, Options{})
	wantBusy(t, err, path)
	a.Close()
	_, err = Open(context.Background(), path, Options{})
	wantBusy(t, err, path)
	b.Close()
	openTest(t, path, Options{}).Close()
}

func TestFileAndQemuRespectEachOther(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		missing(t, "qemu-io")
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	dev := openTest(t, path, Options{Size: testSize, Create: true})
	qemu := func(args ...string) error {
		out, err := exec.Command("qemu-io", append([]string{"-f", "raw"}, args...)...).CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("lock")) {
			t.Fatalf("qemu-io: %v: %s", err, out)
		}
		return err
	}
	if qemu("-c", "read 0 512", path) == nil {
		t.Error("qemu opened a file that a device has for writing")
	}
	dev.Close()
	dev = openTest(t, path, Options{ReadOnly: true})
	if qemu("-c", "write 0 512", path) == nil {
		t.Error("qemu writes a file that a device reads")
	}
	if err := qemu("-r", "-c", "read 0 512", path); err != nil {
		t.Errorf("qemu and a device may both read: %v", err)
	}
	dev.Close()

	cmd := exec.Command("qemu-io", "-f", "raw", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "write 0 512")
	buf := make([]byte, 4096)
	for answer := ""; !strings.Contains(answer, "wrote 512"); {
		n, err := out.Read(buf)
		if answer += string(buf[:n]); err != nil {
			t.Fatalf("qemu-io: %v: %s", err, answer)
		}
	}
	for _, o := range []Options{{}, {ReadOnly: true}} {
		_, err := Open(context.Background(), path, o)
		wantBusy(t, err, path)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	openTest(t, path, Options{}).Close()
}

func TestFileSizes(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	file := func(name string, n int64) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, int(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name       string
		there      int64
		o          Options
		size       int64
		wantErrHas string
	}{
		{"taken", 8192, Options{}, 8192, ""},
		{"rest-out-of-reach", 8192 + 511, Options{}, 8192, ""},
		{"beginning", 8192, Options{Size: 4096}, 4096, ""},
		{"beginning-create", 8192, Options{Size: 4096, Create: true}, 4096, ""},
		{"too-small", 8192, Options{Size: 1 << 30}, 0, "has 8192 bytes, and 1073741824 are wanted: make it larger (truncate -s 1G "},
		{"never-grown", 8192, Options{Size: 16384, Create: true}, 0, "has 8192 bytes"},
		{"unaligned-size", 8192, Options{Size: 1000}, 0, "1000 bytes is not a multiple of the block size 512"},
		{"no-block", 511, Options{}, 0, "less than one block of 512"},
		{"empty", 0, Options{}, 0, "less than one block"},
		{"negative", 8192, Options{Size: -512}, 0, "-512"},
	} {
		path := file(c.name, c.there)
		dev, err := Open(ctx, path, c.o)
		if c.wantErrHas != "" {
			if err == nil || !strings.Contains(err.Error(), c.wantErrHas) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.wantErrHas)
			}
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			if got := dev.Info().Size; got != c.size {
				t.Errorf("%s: size %d, want %d", c.name, got, c.size)
			}
			dev.Close()
		}
		if st, err := os.Stat(path); err != nil || st.Size() != c.there {
			t.Errorf("%s: the file has %v bytes afterwards, want %d", c.name, st.Size(), c.there)
		}
	}
}

func TestFileCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new.img")
	ctx := context.Background()
	for _, o := range []Options{{}, {Create: true}, {Size: 1 << 20}, {Size: 1 << 20, Create: true, ReadOnly: true}, {Size: 1000, Create: true}} {
		if dev, err := Open(ctx, path, o); err == nil {
			dev.Close()
			t.Errorf("%+v opened a file that does not exist", o)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatalf("%+v left a file", o)
		}
	}
	openTest(t, path, Options{Size: 1 << 30, Create: true}).Close()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o777 != 0o600 || st.Size != 1<<30 || st.Blocks != 0 {
		t.Errorf("mode %o, %d bytes, %d blocks; want 600, 1 GiB, none", st.Mode&0o777, st.Size, st.Blocks)
	}
}

func TestFileRefusesWhatIsNoDisk(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, "/dev/null", filepath.Join(dir, "missing"), "/proc/self/mem/x"} {
		for _, o := range []Options{{}, {ReadOnly: true}, {Size: 512, Create: path != filepath.Join(dir, "missing")}} {
			dev, err := Open(context.Background(), path, o)
			if err == nil {
				dev.Close()
				t.Errorf("%s opened", path)
			} else if !strings.Contains(err.Error(), path) {
				t.Errorf("the error for %s does not name it: %v", path, err)
			}
		}
	}
}

func TestFileHolesAreMadeAndFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	dev := openTest(t, path, Options{Size: testSize, Create: true})
	defer dev.Close()
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	fill := bytes.Repeat([]byte{1}, 1<<20)
	if got := holes(t, dev); got != testSize {
		t.Errorf("%d bytes of holes in a new file", got)
	}
	for _, op := range []block.Op{block.OpDiscard, block.OpWriteZeroes} {
		if err := do(dev, block.OpWrite, block.FUA, 1<<20, fill); err != nil {
			t.Fatal(err)
		}
		if got := holes(t, dev); got != testSize-1<<20 {
			t.Errorf("%d bytes of holes beside 1 MiB of data", got)
		}
		if err := doRange(dev, op, block.FUA, 1<<20, 1<<20); err != nil {
			t.Fatal(err)
		}
		if got := blocks(); got > 64<<10 { // the file system's own tree may stay
			t.Errorf("%v left %d bytes allocated", op, got)
		}
	}
	if err := doRange(dev, block.OpWriteZeroes, block.NoUnmap, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := blocks(); got < 1<<20 {
		t.Errorf("zeroes that keep their space left %d bytes allocated, want 1 MiB", got)
	}
}

func TestFileCutOffBySomebodyIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	dev := openTest(t, path, Options{Size: testSize, Create: true})
	defer dev.Close()
	if err := os.Truncate(path, 4096+100); err != nil {
		t.Fatal(err)
	}
	err := do(dev, block.OpRead, 0, 0, make([]byte, 8192))
	if !errors.Is(err, block.ErrIO) || !strings.Contains(err.Error(), path) {
		t.Errorf("read beyond the cut: %v", err)
	}
	for e, err := range block.Extents(context.Background(), dev, 0, testSize) {
		if err != nil || e.Len <= 0 {
			t.Errorf("extents of the cut file: %+v, %v", e, err)
		}
	}
}

// The kernel forgets the pages that it could not write: a second fdatasync
// would succeed without them.
func TestFileFailedFlushStaysFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	dev := openTest(t, path, Options{Size: testSize, Create: true})
	defer dev.Close()
	f := dev.(*file)
	lost := f.lose(unix.EIO)
	if !errors.Is(lost, block.ErrIO) || !errors.Is(lost, unix.EIO) || !strings.Contains(lost.Error(), path) {
		t.Errorf("error %v", lost)
	}
	for name, got := range map[string]error{
		"flush":        doRange(dev, block.OpFlush, 0, 0, 0),
		"write":        do(dev, block.OpWrite, block.FUA, 0, make([]byte, 512)),
		"discard":      doRange(dev, block.OpDiscard, block.FUA, 0, 4096),
		"write-zeroes": doRange(dev, block.OpWriteZeroes, block.FUA, 0, 4096),
		"second error": f.lose(unix.ENOSPC),
	} {
		if got != lost {
			t.Errorf("%s that must be durable: %v, want the first error", name, got)
		}
	}
	if err := do(dev, block.OpWrite, 0, 0, make([]byte, 512)); err != nil {
		t.Errorf("a write that promises nothing: %v", err)
	}
}

// The same with a real disk that fails: a loop device whose file has no room.
func TestBlockDeviceThatLosesWritesSaysSo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mount tmpfs: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	path := loopIn(t, dir, 8<<20, 512)
	dev := openTest(t, path, Options{})
	defer dev.Close()
	if err := do(dev, block.OpWrite, 0, 0, bytes.Repeat([]byte{1}, 6<<20)); err != nil {
		t.Fatalf("the page cache takes it: %v", err)
	}
	first := doRange(dev, block.OpFlush, 0, 0, 0)
	if !errors.Is(first, block.ErrIO) && !errors.Is(first, block.ErrNoSpace) {
		t.Fatalf("flush of what did not fit: %v", first)
	}
	if again := doRange(dev, block.OpFlush, 0, 0, 0); again != first {
		t.Errorf("the second flush: %v, want the error of the first", again)
	}
}

// A full file system: ENOSPC is ErrNoSpace, and does not break the device.
func TestFileNoSpace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mount tmpfs: ", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	dev := openTest(t, filepath.Join(dir, "disk"), Options{Size: 8 << 20, Create: true})
	defer dev.Close()
	for _, f := range []block.Flags{0, block.FUA} {
		err := do(dev, block.OpWrite, f, 0, make([]byte, 4<<20))
		if !errors.Is(err, block.ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("write to a full file system, flags %d: %v", f, err)
		}
	}
	if err := doRange(dev, block.OpDiscard, 0, 0, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := do(dev, block.OpWrite, block.FUA, 0, make([]byte, 4096)); err != nil {
		t.Errorf("write after space was freed: %v", err)
	}
	if err := doRange(dev, block.OpFlush, 0, 0, 0); err != nil {
		t.Errorf("flush after space was freed: %v", err)
	}
}

// missing skips a test for want of a tool, which in CI is a failure.
func missing(t *testing.T, tool string) {
	t.Helper()
	if os.Getenv("KEYWAY_CI") != "" {
		t.Fatalf("%s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
}
