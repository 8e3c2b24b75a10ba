package memory

import (
	"os/exec"
	"path/filepath"
	"testing"

	"keyway/test/harness"
)

// Other servers of encrypted disks do not hide their keys: what the scanner finds in
// them shows that it would find such a thing in keyway.
func TestScannerFindsWhatOtherServersLeave(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name  string
		start func(sock, image, secret string) *exec.Cmd
	}{
		{"nbdkit", func(sock, image, secret string) *exec.Cmd {
			return exec.Command("nbdkit", "-f", "-U", sock, "--filter=luks", "file", image, "passphrase=+"+secret)
		}},
		{"qemu-nbd", func(sock, image, secret string) *exec.Cmd {
			return exec.Command("qemu-nbd", "--socket", sock, "--persistent", "--object", "secret,id=s,file="+secret,
				"--image-opts", "driver=luks,key-secret=s,file.driver=file,file.filename="+image)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			harness.Need(t, c.name)
			im := format(t, "luks1", small("pbkdf2")...)
			var s Set
			im.addTo(t, &s, "LUKS1")
			sock := filepath.Join(harness.Dir(t), "s")
			cmd := c.start(sock, im.path, writeFile(t, "passphrase", im.passphrase))
			harness.Spawn(t, cmd)
			harness.WaitSocket(t, sock)
			use(t, nbd(t, sock, ""))
			var rep *Report
			var err error
			if e := Stopped(cmd.Process.Pid, func() { rep, err = Process(cmd.Process.Pid, &s) }); e != nil || err != nil {
				t.Fatal(e, err)
			}
			t.Logf("%d bytes, %d needles:\n%s", rep.Bytes, s.Len(), Describe(rep.Hits))
			if len(rep.Outside()) == 0 || rep.Of("LUKS1 volume key") == 0 {
				t.Errorf("%s hides its keys, or the scanner sees nothing", c.name)
			}
			if rep := gcore(t, cmd.Process.Pid, false, &s); rep.Of("LUKS1 volume key") == 0 {
				t.Errorf("%s has no key in its core file, or the scanner sees nothing:\n%s", c.name, Describe(rep.Hits))
			}
		})
	}
}
