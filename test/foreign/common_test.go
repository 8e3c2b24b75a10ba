package foreign

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	miB = 1 << 20
	// keySize is that of AES-256-XTS.
	keySize = 64
)

// testKey returns a reproducible key that is good (its halves differ).
func testKey(seed uint64) []byte { return fixtures.Pattern("mix", seed, keySize) }

// addKey gives the daemon key bytes under a name, from a file, as a user would.
func addKey(t testing.TB, d *harness.Daemon, name string, dataUnit int, key []byte) {
	t.Helper()
	file := filepath.Join(d.Dir, name+".key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	d.OK("key", "add", name, "--mode", "AES-256-XTS", "--data-unit", fmt.Sprint(dataUnit), "--file", file)
}

// create makes a mapped device from table text.
func create(d *harness.Daemon, name, table string) {
	d.OKInput(table+"\n", "create", name, "--table", "-")
}

// export serves a device on a Unix socket of its own and returns the socket and
// the URI for clients.
func export(d *harness.Daemon, device string) (sock, uri string) {
	sock = filepath.Join(d.Dir, device+".sock")
	d.OK("export", "add", device, "--nbd", "unix:"+sock, "--name", device)
	return sock, nbdURI(sock, device)
}

func nbdURI(sock, export string) string { return "nbd+unix:///" + export + "?socket=" + sock }

// A server is something that serves one disk of diskSize to the client tests.
type server struct {
	name  string
	start func(t *testing.T) (sock, export string)
	alien bool // not ours
}

const diskSize = 64 * miB

// servers are the stacks that every client must be able to use alike.
func servers() []server {
	s := []server{
		{name: "memory", start: func(t *testing.T) (string, string) {
			d := harness.Start(t)
			d.OK("create", "disk", "--backend", "mem:64M")
			sock, _ := export(d, "disk")
			return sock, "disk"
		}},
		{name: "file", start: func(t *testing.T) (string, string) {
			d := harness.Start(t)
			d.OK("create", "disk", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "64M")
			sock, _ := export(d, "disk")
			return sock, "disk"
		}},
		// An engine under a key of the whole disk; 4096-byte data units, so that
		// clients who send 512 bytes go through read-modify-write.
		{name: "default-key on engine", start: func(t *testing.T) (string, string) {
			d := harness.Start(t)
			addKey(t, d, "k", 4096, testKey(1))
			d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "64M", "--engine", "cpu")
			create(d, "disk", "0 131072 default-key aes-xts-plain64 :64:logon:k 0 leaf 0 2 sector_size:4096 iv_large_sectors")
			sock, _ := export(d, "disk")
			return sock, "disk"
		}},
		// The cipher of the crypt target itself, rows that end inside any larger block.
		{name: "crypt over rows", start: func(t *testing.T) (string, string) {
			d := harness.Start(t)
			addKey(t, d, "k", 512, testKey(2))
			d.OK("create", "a", "--backend", "mem:64M")
			d.OK("create", "b", "--backend", "mem:64M")
			create(d, "rows", "0 1001 linear a 7\n1001 65527 linear b 0\n66528 64544 striped 2 8 a 1008 b 66000")
			create(d, "disk", "0 131072 crypt aes-xts-plain64 :64:logon:k 0 rows 0")
			sock, _ := export(d, "disk")
			return sock, "disk"
		}},
	}
	if os.Getenv("KEYWAY_CONTROL") == "1" {
		s = append(s, server{name: "nbdkit", alien: true, start: func(t *testing.T) (string, string) {
			sock := filepath.Join(harness.Dir(t), "s")
			cmd := exec.Command("nbdkit", "-f", "-U", sock, "memory", "64M")
			harness.Spawn(t, cmd)
			harness.WaitSocket(t, sock)
			return sock, ""
		}})
	}
	return s
}

// onAll runs f once per server, each freshly started.
func onAll(t *testing.T, f func(t *testing.T, uri string)) {
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			sock, name := s.start(t)
			f(t, nbdURI(sock, name))
		})
	}
}

// patternFile writes n bytes of the mix pattern to a file of the test.
func patternFile(t testing.TB, seed uint64, n int) string {
	t.Helper()
	path := filepath.Join(harness.Dir(t), "pattern")
	if err := os.WriteFile(path, fixtures.Pattern("mix", seed, n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fileSum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// dial connects the test's own client and closes it with the test.
func dial(t testing.TB, sock, name string) *harness.NBD {
	t.Helper()
	c, err := harness.DialNBD("unix", sock, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// write and read go through the test's own client and must succeed.
func write(t testing.TB, c *harness.NBD, off int64, b []byte) {
	t.Helper()
	for len(b) > 0 {
		n := min(len(b), miB)
		if e, err := c.Do(harness.NBDWrite, 0, off, 0, b[:n]); e != 0 || err != nil {
			t.Fatalf("write of %d bytes at %d: NBD error %d, %v", n, off, e, err)
		}
		b, off = b[n:], off+int64(n)
	}
}

func read(t testing.TB, c *harness.NBD, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	for o := 0; o < n; o += miB {
		p := b[o:min(n, o+miB)]
		if e, err := c.Do(harness.NBDRead, 0, off+int64(o), 0, p); e != 0 || err != nil {
			t.Fatalf("read of %d bytes at %d: NBD error %d, %v", len(p), off, e, err)
		}
	}
	return b
}

func flush(t testing.TB, c *harness.NBD) {
	t.Helper()
	if e, err := c.Do(harness.NBDFlush, 0, 0, 0, nil); e != 0 || err != nil {
		t.Fatalf("flush: NBD error %d, %v", e, err)
	}
}

// firstDifference returns where a and b part, or -1.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
