package memory

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"keyway/control"
	"keyway/test/harness"
)

// Linux made this file system, with a thousand files that have keys of their own, and a
// large one with a hole (testdata/thousand.guest).
var (
	//go:embed testdata/thousand.img.zst
	thousandPacked []byte
	//go:embed testdata/thousand.key
	thousandKey []byte
)

// A thousand is that file system with all that is secret of it.
type thousand struct {
	image, key string // paths
	inodes     int    // that have keys of their own
	paths      []string
	contents   string // of the paths but the last, one after the other
}

const large = 64 << 20 // bytes of the last path

func makeThousand(t *testing.T, s *Set) *thousand {
	t.Helper()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	image, err := d.DecodeAll(thousandPacked, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &thousand{image: writeFile(t, "thousand.img", image), key: writeFile(t, "thousand.key", thousandKey)}
	m := s.AddMaster("master", thousandKey)
	p := Policy{Version: 2, Contents: 1, Names: 4, Flags: 3}
	nonces := m.Nonces(image, p)
	for _, n := range nonces {
		m.AddFile(p, n)
		m.AddDirectory(p, n) // one of them is
	}
	if x.inodes = len(nonces); x.inodes != 1000+2 { // the large one, and the directory
		t.Fatalf("%d inodes with keys, want 1002", x.inodes)
	}
	var b strings.Builder
	for i := range 1000 {
		x.paths = append(x.paths, fmt.Sprintf("files/%04d", i+1))
		fmt.Fprintf(&b, "file %04d has a key of its own, and this is all that is in it\n", i+1)
	}
	x.paths, x.contents = append(x.paths, "files/large"), b.String()
	return x
}

// inodes counts those of whose keys something was found.
func (rep *Report) inodes() int {
	found := map[string]bool{}
	for _, h := range rep.Hits {
		if at := strings.Index(h.Secret, "inode of nonce "); at >= 0 {
			found[h.Secret[at:][:len("inode of nonce ")+32]] = true
		}
	}
	return len(found)
}

// A daemon reads a thousand files and more, and is held up in the last: then it has the
// master key and what belongs to that file, in key memory, and of all others nothing any
// more; at the end it has nothing, and no keyslot has a key.
func TestThousandFilesLeaveNoKey(t *testing.T) {
	needRoot(t)
	public := spares(t)
	sc := &scene{t: t, Daemon: harness.New(t)}
	x := makeThousand(t, &sc.set)
	sc.WriteConfig(fmt.Sprintf("[daemon]\nkey-memory = \"locked\"\n[device.phone]\nbackend = \"file:%s\"\nengine = \"ufs?units=512,1024,4096&keys=raw\"\n", x.image))
	sc.Begin()
	sc.client = &control.Client{Socket: sc.Socket}

	cat := command(t, sc.Daemon, append([]string{"fscrypt", "cat", "phone", "--key", x.key}, x.paths...)...)
	var said bytes.Buffer
	cat.Stderr = &said
	out, err := cat.StdoutPipe()
	sc.must(err)
	harness.Spawn(t, cat)
	got := make([]byte, len(x.contents))
	if _, err := io.ReadFull(out, got); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if string(got) != x.contents {
		t.Fatal("the contents are not what Linux wrote")
	}

	// 64 MiB do not fit between here and there: the large file is open.
	interrupt(t, sc.Pid())
	rep := sc.look()
	sc.nothingOutside("in use", rep)
	for _, part := range []string{"master", "master, extracted key, state behind the inner pad"} {
		if rep.exactly(part) == 0 {
			t.Errorf("%s: is not found while it is in use: the test is blind", part)
		}
	}
	if n := rep.inodes(); n != 1 {
		t.Errorf("keys of %d inodes are there, want those of the file that is open:\n%s", n, Describe(rep.Hits))
	}
	if e := sc.engine("phone"); len(e.Keys) != 1 || e.Programs < 1001 {
		t.Errorf("keyslots have %v, want one key; %d programs, want a thousand and one", e.Keys, e.Programs)
	}
	// The client has brought the master key, and is not done.
	var client *Report
	sc.must(Stopped(cat.Process.Pid, func() { client, err = Process(cat.Process.Pid, &sc.set) }))
	sc.must(err)
	sc.nothingOutside("in the client", client)
	sc.must(Stopped(sc.Pid(), func() { sc.must(sc.set.AddKept(sc.Pid(), contents, public)) }))

	n, err := io.Copy(io.Discard, out)
	if err := cat.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if err != nil || n != large {
		t.Errorf("%d bytes of the large file, want %d (%v)", n, int64(large), err)
	}
	interrupt(t, sc.Pid())
	sc.nothing("at the end", sc.look())
	if e := sc.engine("phone"); len(e.Keys) != 0 || e.Evictions != e.Programs {
		t.Errorf("keyslots have %v at the end; %d evictions of %d programs", e.Keys, e.Evictions, e.Programs)
	}
}

// engine is that of a leaf device.
func (sc *scene) engine(device string) control.Keyslot {
	sc.t.Helper()
	c, err := sc.client.Crypto(context.Background(), device)
	sc.must(err)
	return c.Engines[0]
}

// The command that opens an image itself has wiped all of that when it ends.
func TestThousandFilesLeaveNoKeyInTheCommand(t *testing.T) {
	needRoot(t)
	var s Set
	x := makeThousand(t, &s)
	s.AddBytes("no secret", []byte(x.image))
	cmd := exec.Command(harness.Binary(t), append([]string{"fscrypt", "cat", x.image, "--engine", "cpu", "--key", x.key}, x.paths[:1000]...)...)
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = out
	atExit(t, cmd, func(pid int) {
		rep, err := Process(pid, &s)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d MB, %d needles", rep.Bytes>>20, s.Len())
		if rep.exactly("no secret") == 0 {
			t.Error("the command's arguments are not found: the test is blind")
		}
		var keys []Hit
		for _, h := range rep.Hits {
			if h.Secret != "no secret" {
				keys = append(keys, h)
			}
		}
		if len(keys) > 0 {
			t.Errorf("keys are in memory at the end:\n%s", Describe(keys))
		}
	})
	got, err := os.ReadFile(out.Name())
	if err != nil || string(got) != x.contents {
		t.Errorf("the contents are not what Linux wrote (%v)", err)
	}
}
