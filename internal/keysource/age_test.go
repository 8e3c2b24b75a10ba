package keysource

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"keyway/test/terminal"
)

func TestAgeFilesForIdentities(t *testing.T) {
	tool(t, "age")
	dir := t.TempDir()
	id, other := filepath.Join(dir, "id"), filepath.Join(dir, "other")
	for _, f := range []string{id, other} {
		run(t, tool(t, "age-keygen"), "-o", f)
	}
	recipient := strings.TrimSpace(run(t, "age-keygen", "-y", id))
	key := write(t, "k", theKey)
	for _, form := range [][]string{{}, {"--armor"}} {
		file := filepath.Join(dir, "k.age")
		os.Remove(file)
		run(t, "age", append(form, "-r", recipient, "-o", file, key)...)
		gives(t, &Env{}, theKey, "age:"+file+"?identity="+id)
		gives(t, &Env{Credentials: dir}, theKey, "age:"+file+"?identity-credential=id")
		refuses(t, &Env{}, "none of the identities opens it", "age -d -i", "age:"+file+"?identity="+other)
		refuses(t, answers("passphrase"), "not encrypted for a passphrase: ?identity=FILE opens it", "", "age:"+file)

		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, bad := range map[string][]byte{
			"cut": b[:len(b)-20], "header cut": b[:60], "changed": flip(b, len(b)-70), "header changed": flip(b, 40),
		} {
			if _, err := parse(t, "age:"+write(t, "k.age", bad)+"?identity="+id).Read(t.Context(), &Env{}); err == nil ||
				!strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "none of the identities") {
				t.Errorf("%s, %v: %v", what, form, err)
			}
		}
	}
	// Several recipients, several identities.
	both := write(t, "both", append(append([]byte("# a comment\n\n"), mustRead(t, other)...), mustRead(t, id)...))
	file := filepath.Join(dir, "k.age")
	gives(t, &Env{}, theKey, "age:"+file+"?identity="+both)

	empty, long := write(t, "empty", nil), write(t, "long", make([]byte, maxText+1))
	for in, want := range map[string]string{empty: "what is encrypted in it is empty", long: "what is encrypted in it has more than 16384 bytes"} {
		out := filepath.Join(t.TempDir(), "x.age")
		run(t, "age", "-r", recipient, "-o", out, in)
		refuses(t, &Env{}, want, "", "age:"+out+"?identity="+id)
	}
	for text, want := range map[string]string{
		"nothing of age\n":                "identity file, line 1: is no identity of age",
		"#\nAGE-SECRET-KEY-1A55A\n":       "identity file, line 2: is no identity of age",
		"AGE-SECRET-KEY-PQ-1A55A\n":       "identity file, line 1: is no identity of age",
		"AGE-PLUGIN-YUBIKEY-1QQQ\n":       "is for a plugin",
		"-----BEGIN OPENSSH PRIVATE KEY-": "is an SSH or PEM key",
		"# nothing\n":                     "there is no identity in the identity file",
		string(mustRead(t, file)):         "is encrypted itself",
	} {
		refuses(t, &Env{}, want, "", "age:"+file+"?identity="+write(t, "id", []byte(text)))
	}
	refuses(t, &Env{}, "identity "+empty+": is empty", "", "age:"+file+"?identity="+empty)
	refuses(t, &Env{}, "is empty", "", "age:"+empty+"?identity="+id)
	refuses(t, &Env{}, "is no age file, or is damaged", "", "age:"+key+"?identity="+id)
	refuses(t, &Env{}, "is a directory", "name", "age:/tmp?identity="+id)
	refuses(t, &Env{}, "is not a regular file", "", "age:"+fifo(t)+"?identity="+id)
	refuses(t, &Env{}, "identity /nothere: no such file", "", "age:"+file+"?identity=/nothere")
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// sealed makes a file for a passphrase with a work factor of choice, which the tool
// does not offer.
func sealed(t *testing.T, pass string, work int) string {
	t.Helper()
	r, err := age.NewScryptRecipient(pass)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(work)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r)
	if err == nil {
		_, err = w.Write(theKey)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return write(t, "k.age", b.Bytes())
}

func TestAgeFilesForPassphrases(t *testing.T) {
	const pass = "correct horse"
	file := sealed(t, pass, 10)
	gives(t, answers(pass), theKey, "age:"+file)
	pf := write(t, "pass", []byte(pass+"\n"))
	gives(t, &Env{}, theKey, "age:"+file+"?key-file="+pf)
	gives(t, &Env{Credentials: filepath.Dir(pf)}, theKey, "age:"+file+"?credential=pass")
	gives(t, answers(pass), theKey, "age:"+file+"?max-work-factor=10")

	refuses(t, answers("incorrect"), "the passphrase is wrong", "try again", "age:"+file)
	refuses(t, &Env{}, "the passphrase is wrong", "first line", "age:"+file+"?key-file="+write(t, "p", []byte("x"+pass)))
	refuses(t, &Env{}, "its passphrase is empty", "", "age:"+file+"?key-file="+write(t, "p", []byte("\n"+pass)))
	refuses(t, &Env{}, "nobody can be asked", "?key-file=FILE", "age:"+file)
	refuses(t, answers(pass), "a work factor of 2^10, above the limit of 2^9", "max-work-factor", "age:"+file+"?max-work-factor=9")
	// One that would take 8 GiB is refused before any work.
	b := bytes.Replace(mustRead(t, file), []byte(" 10\n"), []byte(" 23\n"), 1)
	refuses(t, answers(pass), "a work factor of 2^23, above the limit of 2^20", "max-work-factor", "age:"+write(t, "k.age", b))
	id := write(t, "id", []byte(newIdentity(t)))
	refuses(t, &Env{}, "it is encrypted for a passphrase, and not for an identity", "", "age:"+file+"?identity="+id)
}

func newIdentity(t *testing.T) string {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// The tool asks on a terminal; what it writes, armored or not, is opened here.
func TestAgeFilesForPassphrasesOfTheTool(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k.age")
	const pass = "correct horse"
	cmd := exec.Command(tool(t, "age"), "-p", "-a", "-o", file, write(t, "k", theKey))
	if shown, err := terminal.Type(cmd, 2*time.Minute, pass, pass); err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	gives(t, answers(pass), theKey, "age:"+file)
}

func TestAgeFilesForHybridIdentities(t *testing.T) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, id.Recipient())
	if err == nil {
		_, err = w.Write(theKey)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	gives(t, &Env{}, theKey, "age:"+write(t, "k.age", b.Bytes())+"?identity="+write(t, "id", []byte(id.String()+"\n")))
}
