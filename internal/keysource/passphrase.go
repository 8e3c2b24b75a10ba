package keysource

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"keyway/internal/secret"
)

// Sources that a passphrase opens take it from a file, from a credential, or from a
// person, who is asked on the terminal of the command.

// Bounds of passphrases in files, in bytes: as long as cryptsetup takes one, and
// what age is given.
const (
	maxLUKSKeyFile = 8 << 20
	maxAgeSecret   = 32 << 10
)

func passphraseOptions() []Option {
	return []Option{
		{Name: "key-file", Kind: Path, Value: "FILE", Summary: "whose bytes are the passphrase"},
		{Name: "credential", Kind: Text, Value: "NAME", Summary: "of systemd, which is the passphrase"},
	}
}

// only refuses more than one of the options, which say the same thing in other ways.
func (s *Source) only(names ...string) error {
	found := ""
	for _, n := range names {
		switch {
		case s.get(n) == "":
		case found != "":
			return fmt.Errorf("option %q does not go with %q", n, found)
		default:
			found = n
		}
	}
	return nil
}

// unattended says whether no passphrase has to be asked for.
func (s *Source) unattended(names ...string) string {
	for _, n := range names {
		if s.get(n) != "" {
			return ""
		}
	}
	return fmt.Sprintf("a person has to give its passphrase; one of the options %s says where it is", strings.Join(names, ", "))
}

// fromFile reads from the file or the credential that the options say; nil, nil if
// neither is given.
func (s *Source) fromFile(ctx context.Context, e *Env, file, credential string, max int) (*secret.Buffer, error) {
	if path := s.get(file); path != "" {
		b, err := ReadFile(ctx, e, path, max)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", file, path, err)
		}
		return b, nil
	}
	if name := s.get(credential); name != "" {
		b, err := readCredential(ctx, e, name, max)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", credential, name, err)
		}
		return b, nil
	}
	return nil, nil
}

// passphrase returns what opens s.
func (s *Source) passphrase(ctx context.Context, e *Env, max int) (*secret.Buffer, error) {
	b, err := s.fromFile(ctx, e, "key-file", "credential", max)
	if b != nil || err != nil {
		return b, err
	}
	if e.Ask == nil {
		return nil, withWay(errors.New("it takes a passphrase, and nobody can be asked for it here"), "?key-file=FILE or ?credential=NAME says where it is")
	}
	return e.Ask(ctx, "passphrase of "+s.Place)
}
