package keysource

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestCredentialsOfTheUnit(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{"disk0": theKey, "empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	e := &Env{Credentials: dir}
	gives(t, e, theKey, "systemd:disk0")
	refuses(t, e, "is empty", "", "systemd:empty")
	refuses(t, e, "no such credential in "+dir, "LoadCredentialEncrypted= or SetCredential= with disk1", "systemd:disk1")
	refuses(t, &Env{}, "$CREDENTIALS_DIRECTORY is not set", "LoadCredential=", "systemd:disk0")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	gives(t, Process(nil), theKey, "systemd:disk0")
}

// encrypted makes a file as LoadCredentialEncrypted= takes it.
func encrypted(t *testing.T, name string) string {
	t.Helper()
	creds := tool(t, "systemd-creds")
	if os.Geteuid() != 0 {
		if os.Getenv("KEYWAY_CI") == "1" {
			t.Fatal("the key of this machine's credentials is root's")
		}
		t.Skip("the key of this machine's credentials is root's")
	}
	path := filepath.Join(t.TempDir(), "k.cred")
	run(t, creds, "encrypt", "--with-key=host", "--name="+name, write(t, "k", theKey), path)
	return path
}

func TestEncryptedCredentials(t *testing.T) {
	path := encrypted(t, "disk0")
	gives(t, &Env{}, theKey, "systemd-creds:"+path+"?name=disk0")
	refuses(t, &Env{}, "exit status 1: ", "?name= says", "systemd-creds:"+path)
	refuses(t, &Env{}, "exit status 1: ", "?name= says", "systemd-creds:"+path+"?name=disk1")
	named := filepath.Join(filepath.Dir(path), "disk0")
	if err := os.Link(path, named); err != nil {
		t.Fatal(err)
	}
	gives(t, &Env{}, theKey, "systemd-creds:"+named)

	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{b[:len(b)/2], append([]byte("AAAA"), b[4:]...), []byte("no credential")} {
		refuses(t, &Env{}, "exit status 1: ", "", "systemd-creds:"+write(t, "disk0", bad))
	}
	refuses(t, &Env{}, "is empty", "", "systemd-creds:"+write(t, "disk0", nil))
	refuses(t, &Env{}, "no such file", "", "systemd-creds:/nothere")
	refuses(t, &Env{}, "is a directory", "name the file", "systemd-creds:/tmp")
	refuses(t, &Env{}, "is not a regular file", "", "systemd-creds:"+fifo(t))
	t.Setenv("PATH", "/nothere")
	refuses(t, &Env{}, "systemd-creds is not installed", "LoadCredentialEncrypted=", "systemd-creds:"+path)
}

// What the service manager does with LoadCredentialEncrypted= is what systemd-creds
// decrypt does: the key comes out of its directory then.
func TestDecryptedCredentialsOfTheUnit(t *testing.T) {
	path := encrypted(t, "disk0")
	dir := t.TempDir()
	given := filepath.Join(dir, "disk0")
	run(t, tool(t, "systemd-creds"), "decrypt", "--name=disk0", path, given)
	if err := os.Chmod(given, 0o400); err != nil {
		t.Fatal(err)
	}
	gives(t, &Env{Credentials: dir}, theKey, "systemd:disk0")
	if out, err := exec.Command("systemd-creds", "cat", "disk0").CombinedOutput(); err == nil {
		t.Errorf("without a directory the tool knows a credential: %q", out)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got := run(t, "systemd-creds", "cat", "disk0"); got != string(theKey) {
		t.Error("the tool sees another credential there")
	}
}
