package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyway/test/fixtures"
	"keyway/test/harness"
	"keyway/test/spawn"
)

// An imageServer is "keyway serve IMAGE".
type imageServer struct {
	dir       string
	cmd       *exec.Cmd
	out, errs syncedBuffer
	done      chan struct{}
}

// serveImage runs "keyway serve" in dir with standard input and arguments, and waits
// until it serves.
func serveImage(t *testing.T, dir string, stdin []byte, args ...string) (*imageServer, error) {
	t.Helper()
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	s := &imageServer{dir: dir, cmd: exec.Command(bin, append([]string{"serve"}, args...)...), done: make(chan struct{})}
	s.cmd.Dir = dir
	s.cmd.Env = []string{"HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "PATH=" + clientPath(t), notify.Env()}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = bytes.NewReader(stdin), &s.out, &s.errs
	if err := spawn.Start(s.cmd); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { s.cmd.Process.Kill(); <-s.done })
	return s, notify.Ready(s.done, time.Minute)
}

// end drains the server, which must leave nothing behind.
func (s *imageServer) end(t *testing.T) {
	t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		t.Fatal("still there a minute after SIGTERM")
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("status %d\n%s", code, s.errs.String())
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "keyway", "*")); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

func (s *imageServer) dial(t *testing.T, name string) *harness.NBD {
	t.Helper()
	c, err := harness.DialNBD("unix", filepath.Join(s.dir, "keyway", name+".sock"), name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// diskFiles writes a fixture as vault.img, and its header as vault.header if that is
// apart.
func diskFiles(t *testing.T, dir string, d *fixtures.LUKSDisk) (args []string) {
	t.Helper()
	header, data := d.Devices(t)
	if err := os.WriteFile(filepath.Join(dir, "vault.img"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if d.Header == nil {
		return []string{"vault.img"}
	}
	if err := os.WriteFile(filepath.Join(dir, "vault.header"), header, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"vault.img", "--header", "vault.header"}
}

func contents(t *testing.T, file string) (all []byte, sum [32]byte) {
	t.Helper()
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return all, sha256.Sum256(all)
}

// Every image that may be opened is served with the data that was written to it, and
// not a byte of it changes.
func TestServeImageReadsAndWritesNothing(t *testing.T) {
	for _, name := range []string{
		"luks1-xts512", "luks1-xts256-sha512-detached", "luks2-argon2id", "luks2-argon2id-64m-4k", "luks2-detached",
		"luks2-bad-primary", "luks2-adiantum", "luks2-cbc-essiv", "qemu-default",
	} {
		d := luksDisk(t, name)
		t.Run(d.Name, func(t *testing.T) {
			dir := shortDir(t)
			args := diskFiles(t, dir, d)
			slot := d.SlotNumbers()[0]
			if err := os.WriteFile(filepath.Join(dir, "key"), d.Key(slot), 0o600); err != nil {
				t.Fatal(err)
			}
			_, before := contents(t, filepath.Join(dir, "vault.img"))
			s, err := serveImage(t, dir, nil, append(args, "--key-file", "key")...)
			if err != nil {
				t.Fatalf("%v\n%s", err, s.errs.String())
			}
			c := s.dial(t, "vault")
			if c.Size != d.PayloadSize {
				t.Errorf("size %d, want %d", c.Size, d.PayloadSize)
			}
			for _, r := range d.Regions {
				b := make([]byte, r.Length)
				if e, err := c.Do(harness.NBDRead, 0, r.Offset, 0, b); e != 0 || err != nil || fixtures.SumHex(b) != r.PlainSHA256 {
					t.Errorf("region at %d: NBD error %d, %v, sha256 %s, want %s", r.Offset, e, err, fixtures.SumHex(b), r.PlainSHA256)
				}
			}
			if e, err := c.Do(harness.NBDFlush, 0, 0, 0, nil); e != 0 || err != nil {
				t.Errorf("flush: %d, %v", e, err)
			}
			c.Close()
			out := s.out.String()
			if !strings.Contains(out, "nbd+unix:///vault?socket="+filepath.Join(dir, "keyway", "vault.sock")) {
				t.Errorf("it prints no URI:\n%s", out)
			}
			s.end(t)
			if _, after := contents(t, filepath.Join(dir, "vault.img")); after != before {
				t.Error("the image changed, and nobody wrote to it")
			}
		})
	}
}

// Who was killed leaves a state directory, and the next one clears it away; that of a
// server that runs stays.
func TestServeImageClearsAwayWhatAKilledOneLeft(t *testing.T) {
	d := luksDisk(t, "luks2-argon2id")
	dir := shortDir(t)
	args := append(diskFiles(t, dir, d), "--key-file", "key", "--read-only")
	if err := os.WriteFile(filepath.Join(dir, "key"), d.Key(d.SlotNumbers()[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(more ...string) *imageServer {
		t.Helper()
		os.Remove(filepath.Join(dir, "notify"))
		s, err := serveImage(t, dir, nil, append(slices.Clone(args), more...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.errs.String())
		}
		return s
	}
	states := func() int {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, "keyway", imageStatePrefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}

	killed := serve()
	killed.cmd.Process.Kill()
	<-killed.done
	if n := states(); n != 1 {
		t.Fatalf("a killed server left %d state directories, want 1: nothing to clear away", n)
	}
	first := serve()
	if n := states(); n != 1 {
		t.Errorf("%d state directories beside one server", n)
	}
	second := serve("--socket", filepath.Join(dir, "keyway", "second.sock"), "--nbd", "unix:"+filepath.Join(dir, "second-nbd.sock"))
	if n := states(); n != 2 {
		t.Errorf("%d state directories beside two servers", n)
	}
	second.cmd.Process.Signal(syscall.SIGTERM)
	<-second.done
	first.end(t)
}

// What a client writes is in the payload, encrypted; --read-only refuses it.
func TestServeImageWritesWhatClientsWrite(t *testing.T) {
	dir := shortDir(t)
	d := luksDisk(t, "luks2-argon2id")
	diskFiles(t, dir, d)
	before, _ := contents(t, filepath.Join(dir, "vault.img"))
	data := fixtures.Pattern("mix", 5, 4096)
	line := append(bytes.Clone(d.Key(1)), '\n')

	s, err := serveImage(t, dir, line, "vault.img", "--read-only")
	if err != nil {
		t.Fatalf("%v\n%s", err, s.errs.String())
	}
	c := s.dial(t, "vault")
	if e, err := c.Do(harness.NBDWrite, 0, 8192, 0, data); e == 0 || err != nil {
		t.Errorf("read-only: a write: NBD error %d, %v", e, err)
	}
	c.Close()
	if out := s.out.String(); !strings.Contains(out, "read-only as device") || !strings.Contains(out, "keyslot 1") {
		t.Errorf("it does not say how it is served:\n%s", out)
	}
	s.end(t)

	for range 2 { // the second reads what the first has written
		if s, err = serveImage(t, dir, line, "vault.img"); err != nil {
			t.Fatalf("%v\n%s", err, s.errs.String())
		}
		c = s.dial(t, "vault")
		got := make([]byte, len(data))
		if e, err := c.Do(harness.NBDRead, 0, 8192, 0, got); e != 0 || err != nil {
			t.Fatalf("read: %d, %v", e, err)
		}
		if first := !bytes.Equal(got, data); first {
			if e, err := c.Do(harness.NBDWrite, harness.NBDFUA, 8192, 0, data); e != 0 || err != nil {
				t.Fatalf("write: %d, %v", e, err)
			}
		}
		c.Close()
		s.end(t)
	}
	if got := func() bool { a, _ := contents(t, filepath.Join(dir, "vault.img")); return bytes.Contains(a, data[:64]) }(); got {
		t.Error("the plaintext is in the image")
	}
	after, _ := contents(t, filepath.Join(dir, "vault.img"))
	const payload = 2048 * 512
	want := append(bytes.Clone(before[:payload+8192]), after[payload+8192:payload+12288]...)
	want = append(want, before[payload+12288:]...)
	if !bytes.Equal(after, want) || bytes.Equal(after, before) {
		t.Error("the write changed more than its sectors, or nothing")
	}
}

// What cannot be served is refused before anything is started.
func TestServeImageRefuses(t *testing.T) {
	dir := shortDir(t)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vault, re := luksDisk(t, "luks2-argon2id"), luksDisk(t, "luks2-reencrypting")
	write("vault.img", vault.Image.Bytes(t))
	write("re.img", re.Image.Bytes(t))
	write("re.key", re.Key(re.SlotNumbers()[0]))
	write("plain.img", make([]byte, 1<<20))
	write("c.toml", nil)
	for _, c := range []struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		{"wrong\n", []string{"vault.img"}, 1, "error: vault.img: luks: no keyslot opens with this passphrase"},
		{"\n", []string{"vault.img"}, 1, "error: the passphrase is empty"},
		{"", []string{"re.img", "--key-file", "re.key"}, 1, "a reencryption is under way"},
		{"x\n", []string{"plain.img"}, 1, "error: plain.img: luks: no LUKS header"},
		{"x\n", []string{"absent.img"}, 1, "absent.img"},
		{"x\n", []string{"vault.img", "--config", "c.toml"}, 2, "with an image there is no --config"},
		{"x\n", []string{"vault.img", "--state", "st"}, 2, "with an image there is no --state"},
		{"x\n", []string{"vault.img", "--key-slot", "99"}, 2, "--key-slot 99 is not 0 to 31"},
		{"x\n", []string{"vault.img", "--nbd", "udp:1"}, 2, "--nbd"},
		{"", []string{"--read-only", "--config", "c.toml"}, 2, "--read-only belongs to an image"},
		{"x\n", []string{"vault.img", "--key-file", "re.key", "--key-fd", "0"}, 2, "two passphrases"},
	} {
		s, err := serveImage(t, dir, []byte(c.stdin), c.args...)
		if err == nil {
			t.Errorf("%q is served", c.args)
			s.cmd.Process.Kill()
		}
		<-s.done
		if code, msg := s.cmd.ProcessState.ExitCode(), s.errs.String(); code != c.code || !strings.Contains(msg, c.want) {
			t.Errorf("%q: status %d and %q, want %d and %q", c.args, code, msg, c.code, c.want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "keyway", "*")); left != nil {
			t.Errorf("%q left behind %q", c.args, left)
		}
	}
}

// inTwo makes two crypt segments of the only one of a LUKS2 image, cut after n bytes:
// the second goes on counting sectors where the first ends, so the data stay the same.
func inTwo(t *testing.T, image []byte, n int64) {
	t.Helper()
	size := binary.BigEndian.Uint64(image[8:])
	for _, at := range []uint64{0, size} {
		head := image[at : at+size]
		text, _, _ := bytes.Cut(head[4096:], []byte{0})
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		var meta map[string]any
		if err := dec.Decode(&meta); err != nil {
			t.Fatal(err)
		}
		segments := meta["segments"].(map[string]any)
		first := segments["0"].(map[string]any)
		second := maps.Clone(first)
		offset, err := strconv.ParseInt(first["offset"].(string), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first["size"] = strconv.FormatInt(n, 10)
		second["offset"], second["iv_tweak"] = strconv.FormatInt(offset+n, 10), strconv.FormatInt(n/512, 10)
		segments["1"] = second
		meta["digests"].(map[string]any)["0"].(map[string]any)["segments"] = []string{"0", "1"}
		text, err = json.Marshal(meta)
		if err != nil {
			t.Fatal(err)
		}
		clear(head[4096:])
		copy(head[4096:], text)
		clear(head[448:512])
		sum := sha256.Sum256(head)
		copy(head[448:], sum[:])
	}
}

// A volume of several segments is one device, in one piece.
func TestServeImageOfTwoSegments(t *testing.T) {
	dir := shortDir(t)
	d := luksDisk(t, "luks2-argon2id")
	image := bytes.Clone(d.Image.Bytes(t))
	inTwo(t, image, 256<<10)
	if err := os.WriteFile(filepath.Join(dir, "vault.img"), image, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := serveImage(t, dir, append(bytes.Clone(d.Key(0)), '\n'), "vault.img", "--header-policy", "strict")
	if err != nil {
		t.Fatalf("%v\n%s", err, s.errs.String())
	}
	c := s.dial(t, "vault")
	if c.Size != d.PayloadSize {
		t.Errorf("size %d, want %d", c.Size, d.PayloadSize)
	}
	crossed := false
	for _, r := range d.Regions {
		b := make([]byte, r.Length)
		if e, err := c.Do(harness.NBDRead, 0, r.Offset, 0, b); e != 0 || err != nil || fixtures.SumHex(b) != r.PlainSHA256 {
			t.Errorf("region at %d: NBD error %d, %v, sha256 %s, want %s", r.Offset, e, err, fixtures.SumHex(b), r.PlainSHA256)
		}
		crossed = crossed || r.Offset+int64(r.Length) > 256<<10
	}
	if !crossed {
		t.Error("no region lies in the second segment")
	}
	// Over the border, and back.
	plain := fixtures.Pattern("mix", 9, 8192)
	got := make([]byte, len(plain))
	if e, err := c.Do(harness.NBDWrite, 0, 256<<10-4096, 0, plain); e != 0 || err != nil {
		t.Errorf("write: NBD error %d, %v", e, err)
	}
	if e, err := c.Do(harness.NBDRead, 0, 256<<10-4096, 0, got); e != 0 || err != nil || !bytes.Equal(got, plain) {
		t.Errorf("what was written over the border reads back otherwise: NBD error %d, %v", e, err)
	}
	c.Close()
	s.end(t)
}
