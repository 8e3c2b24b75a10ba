package foreign

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/test/fixtures"
	"keyway/test/harness"
	"keyway/test/spawn"
)

// drainLimit is how long a daemon with no stuck request may take to end.
const drainLimit = time.Minute

// SIGTERM answers what was accepted, makes it durable, and ends with status 0.
func TestSIGTERMDrains(t *testing.T) {
	const blocks, conns = 1024, 4
	d := harness.Start(t)
	addKey(t, d, "k", 4096, testKey(41))
	d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "4M", "--engine", "cpu")
	create(d, "vol", fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:k 0 leaf 0 2 sector_size:4096 iv_large_sectors", blocks*8))
	sock, _ := export(d, "vol")
	acked := make([]uint64, blocks)
	var wg sync.WaitGroup
	for i := range conns {
		c := dial(t, sock, "vol")
		wg.Go(func() {
			buf := make([]byte, blockSize)
			for g := uint64(1); ; g++ {
				b := i*blocks/conns + int(g)%(blocks/conns)
				tagged(buf, uint64(b), g)
				e, err := c.Do(harness.NBDWrite, 0, int64(b)*blockSize, 0, buf)
				if errors.Is(err, harness.ErrDisconnected) || e == 108 { // ESHUTDOWN
					return
				}
				if e != 0 || err != nil {
					t.Errorf("write: NBD error %d, %v", e, err)
					return
				}
				acked[b] = g
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // some traffic first
	code, took := d.Term(drainLimit)
	wg.Wait()
	if code != 0 {
		t.Errorf("exit status %d after SIGTERM, want 0", code)
	}
	t.Logf("drained in %v", took.Round(time.Millisecond))
	for _, s := range []string{sock, d.Socket} {
		if _, err := os.Stat(s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind (%v)", filepath.Base(s), err)
		}
	}

	d.Begin()
	c := dial(t, sock, "vol")
	var n int
	for b, want := range acked {
		if want == 0 {
			continue
		}
		n++
		// A write whose answer was cut off by the end may be there as well.
		g, err := generation(read(t, c, int64(b)*blockSize, blockSize), uint64(b))
		if err != nil || g < want {
			t.Errorf("block %d: generation %d, %v; %d was acknowledged", b, g, err, want)
		}
	}
	if n == 0 {
		t.Error("nothing was written before SIGTERM")
	}
}

func TestSocketsAndStateBelongToTheirOwner(t *testing.T) {
	d := harness.Start(t)
	d.OK("create", "disk", "--backend", "mem:1M")
	sock, _ := export(d, "disk")
	for path, forbidden := range map[string]os.FileMode{d.Socket: 0o007, sock: 0o002, d.State: 0o077} {
		i, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if i.Mode().Perm()&forbidden != 0 {
			t.Errorf("%s has mode %v; nothing of %v may be set", filepath.Base(path), i.Mode(), forbidden)
		}
	}
}

// A flush and a FUA write are answered after the medium has them: the daemon has
// called fdatasync or pwritev2 with RWF_DSYNC.
func TestFlushAndFUAReachTheMedium(t *testing.T) {
	harness.Need(t, "strace")
	d := harness.Start(t)
	trace := filepath.Join(d.Dir, "trace")
	tracer := exec.Command("strace", "-f", "-e", "trace=fdatasync,fsync,pwritev2", "-o", trace, "-p", fmt.Sprint(d.Pid()))
	says, err := tracer.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	harness.Spawn(t, tracer)
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		t.Fatalf("strace: %q, %v", line, err)
	}
	addKey(t, d, "k", 4096, testKey(51))
	d.OK("create", "leaf", "--backend", "file:"+filepath.Join(d.Dir, "disk.img"), "--size", "4M", "--engine", "cpu")
	create(d, "vol", "0 8192 default-key aes-xts-plain64 :64:logon:k 0 leaf 0 2 sector_size:4096 iv_large_sectors")
	sock, _ := export(d, "vol")
	c := dial(t, sock, "vol")
	durable := regexp.MustCompile(`fdatasync\([^\n]*= 0|fsync\([^\n]*= 0|pwritev2\([^\n]*RWF_DSYNC[^\n]*= 4096|f(?:data)?sync resumed[^\n]*= 0|pwritev2 resumed[^\n]*RWF_DSYNC[^\n]*= 4096`)
	calls := func() int {
		b, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		return len(durable.FindAll(b, -1))
	}
	b := make([]byte, 4096)
	for what, do := range map[string]func() (uint32, error){
		"flush after a write": func() (uint32, error) {
			if e, err := c.Do(harness.NBDWrite, 0, 8192, 0, b); e != 0 || err != nil {
				return e, err
			}
			return c.Do(harness.NBDFlush, 0, 0, 0, nil)
		},
		"write with FUA": func() (uint32, error) { return c.Do(harness.NBDWrite, harness.NBDFUA, 16384, 0, b) },
	} {
		before := calls()
		if e, err := do(); e != 0 || err != nil {
			t.Fatalf("%s: NBD error %d, %v", what, e, err)
		}
		if calls() == before {
			t.Errorf("%s was answered without a durable write or fdatasync", what)
		}
	}
}

// Without configuration `keyway serve` makes one encrypted disk, says how to
// attach it, and finds it again the next time.
func TestZeroConfigServesAnEncryptedDisk(t *testing.T) {
	harness.Need(t, "nbdinfo", "qemu-io")
	home := harness.Dir(t)
	start := func() (uri string, stop func()) {
		notify, err := spawn.NewNotify(filepath.Join(home, "notify"))
		if err != nil {
			t.Fatal(err)
		}
		run := filepath.Join(home, "run")
		os.Mkdir(run, 0o700)
		out, err := os.Create(filepath.Join(home, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(harness.Binary(t), "serve", "--state", filepath.Join(home, "state"), "--socket", filepath.Join(home, "control.sock"))
		cmd.Dir = home
		cmd.Env = []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + run, "PATH=" + os.Getenv("PATH"), notify.Env()}
		cmd.Stdout, cmd.Stderr = out, out
		if err := spawn.Start(cmd); err != nil {
			t.Fatal(err)
		}
		exited := make(chan struct{})
		go func() { cmd.Wait(); close(exited) }()
		stop = func() { cmd.Process.Kill(); <-exited }
		t.Cleanup(stop)
		err = notify.Ready(exited, harness.StartTimeout)
		text, _ := os.ReadFile(out.Name())
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for _, word := range []string{"qemu-img", "nbd-client", "nbd"} {
			if !strings.Contains(string(text), word) {
				t.Errorf("what serve prints does not mention %s:\n%s", word, text)
			}
		}
		uri = regexp.MustCompile(`nbd\+unix://[^\s'"]+`).FindString(string(text))
		if uri == "" {
			t.Fatalf("no NBD URI in what serve prints:\n%s", text)
		}
		return uri, stop
	}
	uri, stop := start()
	harness.ToolOK(t, "nbdinfo", uri)
	src := filepath.Join(home, "tag")
	plain := fixtures.Pattern("tag", 0x1234, 65536)
	if err := os.WriteFile(src, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.ToolOK(t, "qemu-io", "-f", "raw", "-c", "write -s "+src+" 1M 64k", "-c", "flush", uri)
	stop()
	os.Remove(src)

	found := filepath.WalkDir(home, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, plain[:64]) {
			t.Errorf("%s holds the plaintext", path)
		}
		return err
	})
	if found != nil {
		t.Fatal(found)
	}
	again, _ := start()
	if again != uri {
		t.Errorf("served at %s, then at %s", uri, again)
	}
	u, err := url.Parse(again)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, dial(t, u.Query().Get("socket"), strings.TrimPrefix(u.Path, "/")), miB, len(plain))
	if i := firstDifference(got, plain); i >= 0 {
		t.Errorf("after a kill and a new start the data differs at byte %d", i)
	}
}

// A configuration declares a leaf with an engine, a generated key, a device and an
// export; the disk is there after a restart, and declared things stay declared.
func TestConfigurationServesWhatItDeclares(t *testing.T) {
	harness.Need(t, "nbdinfo", "qemu-io")
	d := harness.StartConfig(t, `
[device.disk0]
backend = "file:disk0.img"
size    = "64M"               # created sparse when absent
engine  = "cpu"

[key.disk0]
mode      = "AES-256-XTS"
data-unit = 4096
file      = "disk0.key"
generate  = true

[device.vol]
table = "0 131072 default-key aes-xts-plain64 :64:logon:disk0 0 disk0 0 2 sector_size:4096 iv_large_sectors"

[export.vol]
device = "vol"
nbd    = "unix:vol.sock"
`)
	uri := nbdURI(filepath.Join(d.Dir, "vol.sock"), "vol")
	harness.ToolOK(t, "nbdinfo", uri)
	key := filepath.Join(d.Dir, "disk0.key")
	if i, err := os.Stat(key); err != nil || i.Mode().Perm() != 0o600 || i.Size() != keySize {
		t.Errorf("generated key: %v, %v; want %d bytes of mode 0600", i, err, keySize)
	}
	before := fileSum(t, key)
	harness.ToolOK(t, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 64k", "-c", "flush", uri)
	d.Kill()
	d.Begin()
	if fileSum(t, key) != before {
		t.Error("the key was generated again")
	}
	harness.ToolOK(t, "qemu-io", "-f", "raw", "-c", "read -P 0x5a 1M 64k", uri)
	if n := strings.Count(d.OK("ls"), "vol"); n != 1 {
		t.Errorf("device vol is listed %d times after a restart", n)
	}
}
