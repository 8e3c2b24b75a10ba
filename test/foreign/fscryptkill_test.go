package foreign

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"keyway/test/fixtures"
	"keyway/test/harness"
	"keyway/test/spawn"
)

// A killBench is an image with a large file, and its old and new contents.
type killBench struct {
	image            string
	before, old, new []byte
}

func newKillBench(t *testing.T) *killBench {
	t.Helper()
	harness.Need(t, "mke2fs")
	dir := harness.Dir(t)
	b := &killBench{image: filepath.Join(dir, "image"), old: fixtures.Pattern("mix", 40, 9*miB+777), new: fixtures.Pattern("mix", 41, 9*miB+777)}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"before": b.new[:miB], "large": b.old, "behind": b.new[miB:]} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	harness.ToolOK(t, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", root, b.image, "32M")
	b.before = b.read(t)
	return b
}

func (b *killBench) read(t *testing.T) []byte {
	t.Helper()
	all, err := os.ReadFile(b.image)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// begin starts a command that writes the file, and gives it a part of what it will
// write. It returns when some of that is in the image.
func (b *killBench) begin(t *testing.T, d *harness.Daemon, volume string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), "fscrypt", "write", volume, "large", "--length", fmt.Sprint(len(b.new)))
	cmd.Env = append(os.Environ(), "KEYWAY_SOCKET="+d.Socket)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	err = spawn.Start(cmd)
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	fed := make(chan error, 1)
	go func() {
		_, err := out.Write(b.new[:6*miB+100])
		fed <- err
	}()
	t.Cleanup(func() { out.Close(); <-fed })
	for end := time.Now().Add(time.Minute); bytes.Equal(b.read(t), b.before); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			cmd.Process.Kill()
			t.Fatal("nothing was written within a minute")
		}
	}
	return cmd
}

// check wants every data unit of the file old or new, some of both, and everything
// else in the image as it was.
func (b *killBench) check(t *testing.T) {
	t.Helper()
	after := b.read(t)
	anew, units := 0, 0
	at := 0 // of the file
	for off := 0; off < len(after); off += 512 {
		was, is := b.before[off:off+512], after[off:off+512]
		if bytes.Equal(was, is) {
			continue
		}
		// Which sector of the file was here?
		if n := bytes.Index(b.old[at:], was[:min(512, len(b.old)-at)]); n >= 0 {
			at += n
		} else if at = bytes.Index(b.old, was); at < 0 {
			t.Fatalf("byte %d of the image changed, which is not of the file", off)
		}
		units++
		if want := b.new[at:min(at+512, len(b.new))]; !bytes.Equal(is[:len(want)], want) {
			t.Fatalf("byte %d of the file is neither old nor new", at)
		}
		anew++
	}
	if whole := (len(b.new) + 511) / 512; anew == 0 || anew == whole {
		t.Errorf("%d of %d units are new: it was not killed in the middle", anew, whole)
	}
	t.Logf("%d units are new", units)
}

// A write in place that is killed, the command on an image or the daemon on a device,
// leaves every sector of the file old or new, and nothing else changed. The same write
// then succeeds.
func TestKillNineInTheMiddleOfWritingInPlace(t *testing.T) {
	b := newKillBench(t)
	d := harness.Start(t)
	again := func(volume string) {
		t.Helper()
		d.OKInput(string(b.new), "fscrypt", "write", volume, "large")
		if got := d.OK("fscrypt", "cat", volume, "large"); got != string(b.new) {
			t.Error("reads other bytes than were written")
		}
		d.OKInput(string(b.old), "fscrypt", "write", volume, "large")
		if !bytes.Equal(b.read(t), b.before) {
			t.Error("with its old contents, the image is not what it was")
		}
	}

	cmd := b.begin(t, d, b.image)
	cmd.Process.Kill()
	cmd.Wait()
	b.check(t)
	again(b.image)

	d.OK("create", "leaf", "--backend", "file:"+b.image, "--engine", "cpu")
	create(d, "vol", "0 65536 linear leaf 0")
	cmd = b.begin(t, d, "vol")
	d.Kill()
	if err := cmd.Wait(); err == nil {
		t.Error("the command succeeds though the daemon was killed")
	}
	b.check(t)
	d.Begin()
	again("vol")

	// The client goes away; the daemon goes on.
	cmd = b.begin(t, d, "vol")
	cmd.Process.Kill()
	cmd.Wait()
	for end := time.Now().Add(time.Minute); d.Run("fscrypt", "write", "vol", "large").Code != 0; { // of nothing: once the call has ended
		if time.Now().After(end) {
			t.Fatal("a minute after its client has gone, the call has not ended")
		}
	}
	b.check(t)
	again("vol")
}
