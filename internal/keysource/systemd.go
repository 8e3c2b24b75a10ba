package keysource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"keyway/internal/secret"
)

// Credentials of systemd: those that the service manager gives to a unit, already
// decrypted (systemd.exec(5), CREDENTIALS), and encrypted files that nobody has
// decrypted yet (systemd-creds(1)).

func init() {
	Register(Scheme{
		Name: "systemd", Place: "NAME", Summary: "a credential of the unit: LoadCredential=, LoadCredentialEncrypted=, SetCredential= and the like",
		Check: func(s *Source) error { return checkCredential(s.Place) },
		Read: func(ctx context.Context, s *Source, e *Env) (*secret.Buffer, error) {
			return readCredential(ctx, e, s.Place, maxText)
		},
	})
	Register(Scheme{
		Name: "systemd-creds", Place: "PATH", Path: true, Summary: "a file that \"systemd-creds encrypt\" wrote, decrypted by systemd-creds",
		Options: []Option{
			{Name: "name", Kind: Text, Value: "NAME", Summary: "that it was encrypted under (default: the name of the file)"},
		},
		Check: func(s *Source) error {
			if n := s.get("name"); n != "" {
				return checkCredential(n)
			}
			return nil
		},
		Read: readEncryptedCredential,
	})
}

// checkCredential refuses what systemd would not take as the name of a credential,
// so that no name leads out of their directory.
func checkCredential(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f || c == '/' || c == 0xfffd }) {
		return errors.New("the name of a credential has 1 to 255 printable characters, and no slash")
	}
	return nil
}

// readCredential reads a credential that the service manager has given to this
// process.
func readCredential(ctx context.Context, e *Env, name string, max int) (*secret.Buffer, error) {
	const way = "the unit needs LoadCredential=, LoadCredentialEncrypted= or SetCredential= with "
	if e.Credentials == "" {
		return nil, withWay(errors.New("$CREDENTIALS_DIRECTORY is not set: no service manager has given credentials to this process"), way+name)
	}
	b, err := ReadFile(ctx, e, filepath.Join(e.Credentials, name), max)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withWay(fmt.Errorf("no such credential in %s", e.Credentials), way+name)
	}
	return b, err
}

// decryptLimit is how long systemd-creds may take: a TPM needs seconds at worst.
const decryptLimit = time.Minute

func readEncryptedCredential(ctx context.Context, s *Source, _ *Env) (*secret.Buffer, error) {
	// The tool's own errors do not say which file.
	f, st, err := regular(s.Place)
	if err != nil {
		return nil, err
	}
	f.Close()
	if st.Size() == 0 {
		return nil, errEmpty
	}
	tool, err := exec.LookPath("systemd-creds")
	if err != nil {
		return nil, withWay(errors.New("systemd-creds is not installed here"), "let the service manager decrypt it: LoadCredentialEncrypted= in the unit, and systemd:NAME")
	}
	c := command{path: tool, args: []string{"decrypt"}, limit: decryptLimit, max: maxText}
	if n := s.get("name"); n != "" {
		c.args = append(c.args, "--name="+n)
	}
	c.args = append(c.args, "--", s.Place, "-")
	b, err := c.run(ctx)
	if err != nil && strings.Contains(err.Error(), "does not match") {
		err = withWay(err, "?name= says under which name it was encrypted")
	}
	return b, err
}
