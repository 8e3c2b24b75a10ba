package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"keyway/test/harness"
	"keyway/test/terminal"
)

// ageFile encrypts b for a passphrase, at little work.
func ageFile(b []byte, pass string) ([]byte, error) {
	r, err := age.NewScryptRecipient(pass)
	if err != nil {
		return nil, err
	}
	r.SetWorkFactor(10)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

func cmdAge(ts *testscript.TestScript, _ bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err = ageFile(b, args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// sourceCanaries are keys and passphrases of every kind of source.
type sourceCanaries struct {
	all    []canary
	names  []string // of the keys that the configuration declares
	config string
	add    []sourceAdd
}

// A sourceAdd is "keyway key add --from ARG...".
type sourceAdd struct {
	ok    bool
	stdin []byte
	args  []string
}

// newSourceCanaries makes what sources read in dir, with write.
func newSourceCanaries(t *testing.T, dir string, write func(name string, b []byte) string) *sourceCanaries {
	s := &sourceCanaries{}
	canaryOf := func(name string) canary {
		c := newCanary(name)
		s.all = append(s.all, c)
		return c
	}
	// Passphrases in hex: those that age takes are lines.
	phrase := func(name string) []byte { return []byte(hex.EncodeToString(canaryOf(name).raw)) }
	declare := func(name, source string) {
		s.names = append(s.names, name)
		s.config += fmt.Sprintf("[key.%s]\nmode = \"AES-256-XTS\"\nsource = %s\n", name, source)
	}
	add := func(ok bool, stdin []byte, args ...string) { s.add = append(s.add, sourceAdd{ok, stdin, args}) }

	cred := canaryOf("credential")
	write("disk0", cred.raw)
	declare("cred", `"systemd:disk0"`)

	ran := canaryOf("key of a program")
	ranFile := write("ran", ran.raw)
	declare("run", fmt.Sprintf(`["exec:/bin/cat", %q]`, ranFile))
	both := write("both.sh", fmt.Appendf(nil, "#!/bin/sh\ncat %s\ncat %s >&2\nexit 1\n", ranFile, ranFile))
	if err := os.Chmod(both, 0o700); err != nil {
		t.Fatal(err)
	}
	add(true, nil, "exec:/bin/cat", "--", ranFile)
	add(false, nil, "exec:"+both)
	add(false, nil, "exec:/bin/cat?encoding=hex", "--", ranFile)
	hexFile := write("hex", []byte(hex.EncodeToString(ran.raw)))
	declare("text", fmt.Sprintf(`"file:%s?encoding=hex"`, hexFile))
	add(false, nil, hexFile+"?encoding=base64")
	add(true, []byte(hex.EncodeToString(ran.raw)+"\n"), "prompt:")
	add(false, []byte(hex.EncodeToString(ran.raw)+"x\n"), "prompt:")

	aged, pass := canaryOf("key of age"), phrase("passphrase of age")
	b, err := ageFile(aged.raw, string(pass))
	if err != nil {
		t.Fatal(err)
	}
	ageF, passF := write("k.age", b), write("k.pass", pass)
	declare("aged", fmt.Sprintf(`"age:%s?key-file=%s"`, ageF, passF))
	add(true, pass, "age:"+ageF)
	add(false, append(pass, 'x'), "age:"+ageF)
	add(false, nil, "age:"+ageF+"?identity="+passF)
	add(false, nil, "age:"+passF+"?key-file="+passF)

	volume, open := canaryOf("volume key"), phrase("passphrase of LUKS")
	harness.Need(t, "cryptsetup")
	image := write("v.img", nil)
	if err := os.Truncate(image, 20<<20); err != nil {
		t.Fatal(err)
	}
	openF := write("v.pass", open)
	cmd := exec.Command("cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-size", "512", "--master-key-file", write("v.key", volume.raw), "--key-file", openF, image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup: %v\n%s", err, out)
	}
	declare("volume", fmt.Sprintf(`"luks:%s?key-file=%s"`, image, openF))
	add(true, open, "luks:"+image)
	add(false, append(open, 'x'), "luks:"+image)

	if os.Geteuid() == 0 {
		harness.Need(t, "systemd-creds")
		enc := canaryOf("encrypted credential")
		path := filepath.Join(dir, "enc")
		if out, err := exec.Command("systemd-creds", "encrypt", "--with-key=host", write("plain", enc.raw), path).CombinedOutput(); err != nil {
			t.Fatalf("systemd-creds: %v\n%s", err, out)
		}
		declare("enc", fmt.Sprintf(`"systemd-creds:%s"`, path))
		add(false, nil, "systemd-creds:"+path+"?name=other")
	}
	return s
}

// A passphrase is asked for on the terminal of the command, which shows nothing of it.
func TestPassphrasesAreAskedForOnTheTerminal(t *testing.T) {
	dir := t.TempDir()
	b, err := ageFile(bytes.Repeat([]byte{7}, 64), "open sesame")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "k.age")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := clientDir()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"open barley": "keyway: error: key from age:" + file + ": the passphrase is wrong",
		"open sesame": "keyway: error: no daemon listens at " + dir,
	} {
		cmd := exec.Command(filepath.Join(client, "keyway"), "key", "add", "k", "--mode", "AES-256-XTS", "--from", "age:"+file, "--socket", dir+"/none.sock")
		shown, err := terminal.Type(cmd, time.Minute, line)
		if err == nil || !bytes.Contains(shown, []byte("passphrase of "+file+": ")) || !bytes.Contains(shown, []byte(want)) {
			t.Errorf("%v\n%s\nwant %s", err, shown, want)
		}
		if bytes.Contains(shown, []byte(line)) {
			t.Error("the terminal shows the passphrase")
		}
	}
}
