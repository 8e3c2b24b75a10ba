package memory

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"keyway/control"
	"keyway/test/fixtures/fsimages"
	"keyway/test/harness"
)

// The daemon reads files under every policy: contents by engine and by fallback, names in
// every mode. In the middle of a file its client is killed: the daemon forgets all of it.
func TestEveryPolicyLeavesNoKey(t *testing.T) {
	needRoot(t)
	var fs *fsimages.FileSystem
	for _, f := range fsimages.All(t, "ext4") {
		if f.Name == "ext4-4k" {
			fs = f
		}
	}
	public := spares(t)
	sc := &scene{t: t, Daemon: harness.New(t)}
	args, held := addFixture(t, &sc.set, fs)
	sc.WriteConfig(fmt.Sprintf("[daemon]\nkey-memory = \"locked\"\n[device.phone]\nbackend = \"file:%s\"\nengine = \"ufs?slots=4&keys=raw\"\n",
		writeFile(t, "image", fs.Disk(t, "a"))))
	sc.Begin()
	sc.client = &control.Client{Socket: sc.Socket}

	args = append([]string{"fscrypt", "cat", "phone"}, args...)
	var size int64
	for _, f := range fs.Files {
		if !strings.HasSuffix(f.Path, "/far") {
			args, size = append(args, f.Path), size+f.Size
		}
	}
	cat := command(t, sc.Daemon, append(args, "sm4/far")...) // gigabytes of nothing
	var said bytes.Buffer
	cat.Stderr = &said
	out, err := cat.StdoutPipe()
	sc.must(err)
	harness.Spawn(t, cat)
	if n, err := io.CopyN(io.Discard, out, size+1); err != nil {
		t.Fatalf("%d bytes: %v\n%s", n, err, said.String())
	}

	interrupt(t, sc.Pid())
	rep := sc.look()
	sc.nothingOutside("in use", rep)
	for _, name := range held {
		if rep.exactly(name) == 0 {
			t.Errorf("%s: is not found while it is in use: the test is blind", name)
		}
	}
	if rep.Of(held[0]+", inode of nonce ") == 0 {
		t.Error("the key of the file that is read is not found: the test is blind")
	}
	sc.must(Stopped(sc.Pid(), func() { sc.must(sc.set.AddKept(sc.Pid(), contents, public)) }))

	sc.must(cat.Process.Kill())
	if err := cat.Wait(); err == nil {
		t.Error("the client has not been killed")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		d, err := sc.client.Device(t.Context(), "phone")
		sc.must(err)
		if d.Open == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a minute after its client was killed the device is open: %+v", d)
		}
	}
	interrupt(t, sc.Pid())
	sc.nothing("at the end", sc.look())
	if e := sc.engine("phone"); len(e.Keys) != 0 || e.Programs == 0 || e.Evictions != e.Programs {
		t.Errorf("keyslots have %v at the end; %d evictions of %d programs", e.Keys, e.Evictions, e.Programs)
	}
}

// addFixture adds the keys of all directories and files. It returns the arguments that
// give the master keys, and the names of those.
func addFixture(t *testing.T, s *Set, fs *fsimages.FileSystem) (args, held []string) {
	t.Helper()
	dec := func(text string) []byte {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	masters := map[string]*Master{}
	for _, d := range fs.Directories {
		m := masters[d.MasterKey]
		if m == nil {
			m = s.AddMaster(fmt.Sprintf("master key %d", len(masters)), dec(d.MasterKey))
			masters[d.MasterKey] = m
			held = append(held, m.name)
			source := writeFile(t, "key", dec(d.MasterKey))
			if d.Descriptor != "" {
				source = d.Descriptor + "=" + source
			}
			args = append(args, "--key", source)
		}
		if d.Path == "sm4" { // whose file is read at last
			held = append([]string{m.name}, held...)
		}
		p := Policy{d.PolicyVersion, d.ContentsMode, d.NamesMode, d.Flags, dec(fs.UUIDHex)}
		m.AddDirectory(p, dec(d.Nonce))
		for _, f := range fs.Files {
			if strings.HasPrefix(f.Path, d.Path+"/") {
				m.AddFile(p, dec(f.Nonce))
			}
		}
	}
	return args, held
}
