package foreign

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyway/test/harness"
)

func TestNbdinfoSeesEveryExportAndItsLimits(t *testing.T) {
	harness.Need(t, "nbdinfo")
	d := harness.Start(t)
	d.OK("create", "one", "--backend", "mem:64M")
	d.OK("create", "two", "--backend", "mem:8M")
	sock := filepath.Join(d.Dir, "both.sock")
	d.OK("export", "add", "one", "--nbd", "unix:"+sock, "--name", "one")
	d.OK("export", "add", "two", "--nbd", "unix:"+sock, "--name", "second", "--read-only")

	type export struct {
		Name      string          `json:"export-name"`
		Size      json.RawMessage `json:"export-size"`
		ReadOnly  bool            `json:"is_read_only"`
		Flush     bool            `json:"can_flush"`
		FUA       bool            `json:"can_fua"`
		MultiConn bool            `json:"can_multi_conn"`
		Trim      bool            `json:"can_trim"`
		Zero      bool            `json:"can_zero"`
		FastZero  bool            `json:"can_fast_zero"`
		Cache     bool            `json:"can_cache"`
		DF        bool            `json:"can_df"`
		Min       json.RawMessage `json:"block_size_minimum"`
		Preferred json.RawMessage `json:"block_size_preferred"`
		Max       json.RawMessage `json:"block_size_maximum"`
		Contexts  []string        `json:"contexts"`
	}
	var all struct {
		Protocol   string   `json:"protocol"`
		Structured bool     `json:"structured"`
		Exports    []export `json:"exports"`
	}
	out := harness.ToolOK(t, "nbdinfo", "--json", "--list", "nbd+unix:///?socket="+sock)
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if all.Protocol != "newstyle-fixed" || !all.Structured || len(all.Exports) != 2 {
		t.Fatalf("protocol %q, structured %v, %d exports; want newstyle-fixed, true, 2\n%s", all.Protocol, all.Structured, len(all.Exports), out)
	}
	for _, e := range all.Exports {
		size, ro := "67108864", false
		if e.Name == "second" {
			size, ro = "8388608", true
		} else if e.Name != "one" {
			t.Errorf("export %q listed; want one and second", e.Name)
		}
		if string(e.Size) != size || e.ReadOnly != ro {
			t.Errorf("export %s: size %s, read-only %v; want %s, %v", e.Name, e.Size, e.ReadOnly, size, ro)
		}
		if !e.MultiConn || !e.Flush || !e.DF || !e.Cache {
			t.Errorf("export %s: multi-conn %v, flush %v, DF %v, cache %v; want all", e.Name, e.MultiConn, e.Flush, e.DF, e.Cache)
		}
		if !ro && (!e.FUA || !e.Trim || !e.Zero || !e.FastZero) {
			t.Errorf("export %s: FUA %v, trim %v, zero %v, fast zero %v; want all", e.Name, e.FUA, e.Trim, e.Zero, e.FastZero)
		}
		if strings.Join(e.Contexts, " ") != "base:allocation" {
			t.Errorf("export %s: contexts %q, want base:allocation", e.Name, e.Contexts)
		}
		for what, v := range map[string]json.RawMessage{"minimum": e.Min, "preferred": e.Preferred, "maximum": e.Max} {
			if len(v) == 0 || string(v) == "null" {
				t.Errorf("export %s: no %s block size", e.Name, what)
			}
		}
	}
	if r := harness.Tool(t, "nbdinfo", nbdURI(sock, "three")); r.Code == 0 {
		t.Errorf("an export that does not exist was opened:\n%s", r.Stdout)
	}
}

func TestNbdinfoMapShowsHoles(t *testing.T) {
	harness.Need(t, "nbdinfo")
	d := harness.Start(t)
	d.OK("create", "disk", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "8M")
	sock, uri := export(d, "disk")
	c := dial(t, sock, "disk")
	write(t, c, 2*miB, make([]byte, 65536))
	flush(t, c)
	type row struct {
		Offset, Length int64
		Type           int
	}
	var rows []row
	out := harness.ToolOK(t, "nbdinfo", "--map", "--json", uri)
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const hole = 3 // hole and zero
	var next, data int64
	for _, r := range rows {
		if r.Offset != next || r.Length <= 0 {
			t.Fatalf("row %+v does not follow %d:\n%s", r, next, out)
		}
		next += r.Length
		if r.Type != hole {
			data += r.Length
			if r.Offset > 2*miB || r.Offset+r.Length < 2*miB+65536 {
				t.Errorf("data row %+v, wanted only around %d", r, 2*miB)
			}
		}
	}
	if next != 8*miB || data == 0 || data > miB {
		t.Errorf("map ends at %d with %d bytes of data; want 8 MiB and about 64 KiB\n%s", next, data, out)
	}
}

// nbdsh runs statements in libnbd's shell; the script must end normally.
func nbdsh(t *testing.T, uri, script string) {
	t.Helper()
	harness.Need(t, "nbdsh")
	file := filepath.Join(harness.Dir(t), "script.py")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	r := harness.Tool(t, "nbdsh", "-u", uri, "-c", "exec(open("+pyString(file)+").read())")
	if r.Code != 0 {
		t.Errorf("nbdsh: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

func pyString(s string) string { b, _ := json.Marshal(s); return string(b) }

// expect runs a call that the server must refuse with one of the given errors.
const pyExpect = `
import errno
h.set_strict_mode(0)
size = h.get_size()
def expect(what, f, *names):
    try:
        f()
    except nbd.Error as e:
        assert e.errno in names, "%s: %s, want %s" % (what, e.errno, names)
        return
    raise AssertionError("%s: succeeded, want %s" % (what, names))
`

func TestNbdshEdgesAreRefusedAndTheConnectionLives(t *testing.T) {
	onAll(t, func(t *testing.T, uri string) {
		nbdsh(t, uri, pyExpect+`
b = bytes(512)
expect("read at the end",        lambda: h.pread(512, size), "EINVAL")
expect("read across the end",    lambda: h.pread(1024, size - 512), "EINVAL")
expect("read far outside",       lambda: h.pread(512, 1 << 62), "EINVAL")
expect("write at the end",       lambda: h.pwrite(b, size), "ENOSPC", "EINVAL")
expect("write across the end",   lambda: h.pwrite(bytes(1024), size - 512), "ENOSPC", "EINVAL")
expect("write near 2^63",        lambda: h.pwrite(b, (1 << 63) - 512), "ENOSPC", "EINVAL")
expect("trim across the end",    lambda: h.trim(8192, size - 4096), "EINVAL", "ENOSPC")
expect("zero across the end",    lambda: h.zero(8192, size - 4096), "EINVAL", "ENOSPC")
expect("trim far outside",       lambda: h.trim(4096, 1 << 62), "EINVAL", "ENOSPC")
expect("write, unknown flag",    lambda: h.pwrite(b, 0, 0x4000), "EINVAL")
expect("read, unknown flag",     lambda: h.pread(512, 0, 0x4000), "EINVAL")
expect("flush, unknown flag",    lambda: h.flush(0x4000), "EINVAL")
# all the same, the last byte and an odd byte are there
h.pwrite(b"Z", size - 1); assert h.pread(1, size - 1) == b"Z"
h.pwrite(b"abc", 4095); assert h.pread(5, 4094)[1:4] == b"abc"
h.pwrite(b"q" * 777, 1234567); assert h.pread(777, 1234567) == b"q" * 777
h.flush()
`)
	})
}

func TestNbdshReadWriteZeroTrimStatus(t *testing.T) {
	onAll(t, func(t *testing.T, uri string) {
		nbdsh(t, uri, pyExpect+`
h2 = nbd.NBD(); h2.add_meta_context("base:allocation"); h2.connect_uri(h.get_uri())
assert h2.can_meta_context("base:allocation")
n = 256 * 1024
d = bytes((i * 7 + 3) & 255 for i in range(n))
h.pwrite(d, 65536, nbd.CMD_FLAG_FUA)
assert h.pread(n, 65536) == d, "data written with FUA"
assert h.pread(n, 65536, nbd.CMD_FLAG_DF) == d if h.can_df() else True
h.zero(8192, 65536 + 4096)
assert h.pread(8192, 65536 + 4096) == bytes(8192), "zeroed"
assert h.pread(4096, 65536) == d[:4096] and h.pread(n - 12288, 65536 + 12288) == d[12288:], "neighbours of the zeroes"
h.zero(8192, 131072, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(8192, 131072) == bytes(8192), "zeroed without a hole"
h.zero(1000, 200001)
assert h.pread(1002, 200000) == d[200000-65536:200001-65536] + bytes(1000) + d[201001-65536:201002-65536], "zeroed off the blocks"
if h.can_fast_zero():
    try:
        h.zero(65536, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
        assert h.pread(65536, 1 << 20) == bytes(65536)
    except nbd.Error as e:
        assert e.errno == "ENOTSUP", e.errno
if h.can_trim(): h.trim(8192, 65536)
h.flush()
h.cache(65536, 0) if h.can_cache() else None
got = []
h2.block_status(size, 0, lambda ctx, off, ext, err: got.extend(ext))
assert got and sum(got[::2]) <= size and all(x > 0 for x in got[::2]), got
# a request of the largest size that is promised
big = h.get_block_size(nbd.SIZE_MAXIMUM) or (1 << 25)
big = min(big, 1 << 25)
d = bytes(range(256)) * (big // 256)
h.pwrite(d, 4096); assert h.pread(big, 4096) == d, "largest request"
`)
	})
}

// Reads and writes larger than promised are refused, or end that connection; in
// either case nobody else notices.
func TestOversizeHarmsNobodyElse(t *testing.T) {
	onAll(t, func(t *testing.T, uri string) {
		nbdsh(t, uri, pyExpect+`
other = nbd.NBD(); other.connect_uri(h.get_uri())
other.pwrite(b"x" * 4096, 0)
for f in (lambda: h.pread(48 << 20, 0), lambda: h.pwrite(bytes(48 << 20), 0)):
    h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri(other.get_uri())
    try:
        f()
    except nbd.Error:
        pass
    assert len(other.pread(4096, 4096)) == 4096
third = nbd.NBD(); third.connect_uri(other.get_uri())
assert len(third.pread(4096, 0)) == 4096
`)
	})
}

func TestUnknownCommandIsRefusedAndTheConnectionLives(t *testing.T) {
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			if s.alien {
				t.Skip("nbdkit ends the connection, which the protocol allows")
			}
			sock, name := s.start(t)
			c := dial(t, sock, name)
			const einval = 22
			for _, cmd := range []uint16{8, 99, 0xffff} {
				if e, err := c.Do(cmd, 0, 0, 0, nil); err != nil || e != einval {
					t.Errorf("command %d: NBD error %d, %v; want %d", cmd, e, err, einval)
				}
			}
			write(t, c, 0, []byte("still here"))
			if got := read(t, c, 0, 10); string(got) != "still here" {
				t.Errorf("read %q", got)
			}
		})
	}
}

func TestNbdcopyBothWaysOnFourConnections(t *testing.T) {
	harness.Need(t, "nbdcopy")
	src := patternFile(t, 42, diskSize)
	want := fileSum(t, src)
	onAll(t, func(t *testing.T, uri string) {
		back := filepath.Join(harness.Dir(t), "back")
		harness.ToolOK(t, "nbdcopy", "--connections=4", "--requests=32", "--flush", src, uri)
		harness.ToolOK(t, "nbdcopy", "--connections=4", "--requests=32", uri, back)
		if got := fileSum(t, back); got != want {
			t.Errorf("copied back: sha256 %s, want %s", got, want)
		}
	})
}

func TestQemuIOPatterns(t *testing.T) {
	harness.Need(t, "qemu-io")
	onAll(t, func(t *testing.T, uri string) {
		args := []string{"-f", "raw"}
		for _, c := range []string{
			"write -P 0xab 0 64k", "read -P 0xab 0 64k",
			"write -P 0x11 1000 3000", "read -P 0xab 0 1000", "read -P 0x11 1000 3000", "read -P 0xab 4000 61536",
			"write -f -P 0x22 67104768 4096", "read -P 0x22 67104768 4096",
			"write -z 8k 8k", "read -P 0 8k 8k", "read -P 0xab 4k 4k", "read -P 0xab 16k 48k",
			"write -z -u 32k 16k", "read -P 0 32k 16k", "read -P 0xab 48k 16k",
			"discard 1M 1M", "aio_write -P 0x33 3M 2M", "aio_write -P 0x44 5M 2M", "aio_flush",
			"read -P 0x33 3M 2M", "read -P 0x44 5M 2M", "flush",
			"writev -P 0x55 9M 512 1024 1536 4096", "read -P 0x55 9M 7168",
		} {
			args = append(args, "-c", c)
		}
		r := harness.Tool(t, "qemu-io", append(args, uri)...)
		if r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "failed") {
			t.Errorf("qemu-io: exit status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

func TestQemuImgConvertCompareMapBench(t *testing.T) {
	harness.Need(t, "qemu-img")
	src := patternFile(t, 7, 16*miB)
	if err := os.Truncate(src, diskSize); err != nil { // three quarters are a hole
		t.Fatal(err)
	}
	onAll(t, func(t *testing.T, uri string) {
		dir := harness.Dir(t)
		qcow := filepath.Join(dir, "src.qcow2")
		harness.ToolOK(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", src, qcow)
		harness.ToolOK(t, "qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "qcow2", "-O", "raw", qcow, uri)
		harness.ToolOK(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", src, uri)
		back := filepath.Join(dir, "back.raw")
		harness.ToolOK(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, back)
		if got, want := fileSum(t, back), fileSum(t, src); got != want {
			t.Errorf("converted back: sha256 %s, want %s", got, want)
		}

		var rows []struct {
			Start, Length int64
			Data, Zero    bool
		}
		out := harness.ToolOK(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var next int64
		for _, r := range rows {
			if r.Start != next {
				t.Fatalf("map has a gap at %d:\n%s", next, out)
			}
			next += r.Length
			if r.Start < 16*miB && !r.Data && r.Zero {
				t.Errorf("data at %d is called a hole:\n%s", r.Start, out)
			}
		}
		if next != diskSize {
			t.Errorf("map ends at %d, want %d", next, diskSize)
		}
		harness.ToolOK(t, "qemu-img", "bench", "-c", "2000", "-d", "32", "-s", "4096", "-f", "raw", uri)
		harness.ToolOK(t, "qemu-img", "bench", "-w", "-c", "2000", "-d", "32", "-s", "65536", "--flush-interval", "64", "-f", "raw", uri)
	})
}

func fio(t *testing.T, limit time.Duration, uri string, args ...string) {
	t.Helper()
	harness.Need(t, "fio")
	args = append([]string{
		"--name=v", "--ioengine=nbd", "--uri=" + uri, "--size=32M", "--thread",
		"--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--do_verify=1", "--output-format=normal",
	}, args...)
	r := harness.ToolFor(t, limit, nil, "fio", args...)
	// fio reports some failed verifications with status 0.
	if bad := regexp.MustCompile(`(?m)(verify: bad|verify failed|err=\s*[1-9]|error=)[^\n]*`).FindString(r.Stdout + r.Stderr); r.Code != 0 || bad != "" {
		t.Fatalf("fio: exit status %d, %q\n%s%s", r.Code, bad, r.Stdout, r.Stderr)
	}
}

func TestFioVerifies(t *testing.T) {
	harness.Need(t, "fio")
	onAll(t, func(t *testing.T, uri string) {
		fio(t, 2*time.Minute, uri, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--randseed=1", "--fsync=64")
		fio(t, 2*time.Minute, uri, "--rw=randrw", "--bsrange=4096-131072", "--blockalign=4096", "--iodepth=16", "--randseed=2")
	})
}
