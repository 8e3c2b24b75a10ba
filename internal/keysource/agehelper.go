package keysource

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"golang.org/x/sys/unix"

	"keyway/internal/secret"
)

// Exit statuses of the helper, beside 0 and 1.
const (
	exitWrong = 3 // passphrase or identity
	exitWork  = 4 // factor above the limit
)

// Descriptors of the helper.
const (
	fdFile   = 3 // the age file
	fdSecret = 4 // what opens it
)

// HelperMain decrypts the age file that is its descriptor 3 with what comes from its
// descriptor 4, and writes what is in it to standard output. args are "identity" or
// "passphrase", and the most work as a power of two. It returns the exit status; what
// went wrong is on standard error, in words that repeat nothing of the secret.
func HelperMain(args []string) int {
	err := secret.Seclude()
	if err == nil && secret.Held().Limit < 0 {
		// Never swapped, where that has no limit that the heap would meet.
		_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	if err == nil {
		err = helper(args)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	switch {
	case errors.Is(err, errWrong):
		return exitWrong
	case errors.Is(err, errWork):
		return exitWork
	}
	return 1
}

var (
	errWrong = errors.New("does not open it")
	errWork  = errors.New("work factor")
)

func helper(args []string) error {
	if len(args) != 2 {
		return errors.New("this command is the program's own: it decrypts an age file for \"keyway key add\" and the daemon")
	}
	most, err := strconv.Atoi(args[1])
	if err != nil || most < 0 || most > mostWorkFactor {
		return errors.New("the work factor of the command is out of range")
	}
	text, err := io.ReadAll(io.LimitReader(os.NewFile(fdSecret, "secret"), maxAgeSecret+1))
	if err != nil {
		return errors.New("what opens it does not come")
	}
	var ids []age.Identity
	if args[0] == "passphrase" {
		ids, err = passphraseIdentity(firstLine(text), most)
	} else {
		ids, err = parseIdentities(text)
	}
	if err != nil {
		return err
	}
	key, err := decryptAge(io.LimitReader(os.NewFile(fdFile, "file"), maxAge), ids)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(key); err != nil {
		return errors.New("nobody takes the key")
	}
	return nil
}

// decryptAge returns what is in an age file, armored or not.
func decryptAge(in io.Reader, ids []age.Identity) ([]byte, error) {
	b := bufio.NewReader(in)
	in = b
	if begin, _ := b.Peek(len(armor.Header)); string(begin) == armor.Header {
		in = armor.NewReader(b)
	}
	out, err := age.Decrypt(in, ids...)
	if r, ok := errors.AsType[*refusal](err); ok {
		return nil, r
	}
	if err != nil {
		return nil, fmt.Errorf("is no age file, or is damaged: %w", err)
	}
	key, err := io.ReadAll(io.LimitReader(out, maxText+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("is damaged: %w", err)
	case len(key) == 0:
		return nil, errors.New("what is encrypted in it is empty")
	case len(key) > maxText:
		return nil, fmt.Errorf("what is encrypted in it %w", tooLong(maxText))
	}
	return key, nil
}

// errKind: the file is for another kind of secret than was given.
var errKind = errors.New("another kind of secret")

// A refusal is an error of a guard.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string        { return r.text }
func (r *refusal) Is(target error) bool { return target == r.kind }

// A guard is an identity with errors of ours, and with a limit.
type guard struct {
	age.Identity
	passphrase bool
	most       int // work factor
}

func (g guard) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if (s.Type == "scrypt") != g.passphrase {
			if g.passphrase {
				return nil, &refusal{errKind, "it is not encrypted for a passphrase: ?identity=FILE opens it"}
			}
			return nil, &refusal{errKind, "it is encrypted for a passphrase, and not for an identity"}
		}
		if s.Type == "scrypt" && len(s.Args) == 2 {
			if n, err := strconv.Atoi(s.Args[1]); err == nil && n > g.most {
				return nil, &refusal{errWork, fmt.Sprintf("its passphrase takes a work factor of 2^%d, above the limit of 2^%d", n, g.most)}
			}
		}
	}
	key, err := g.Identity.Unwrap(stanzas)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		r := &refusal{errWrong, "none of the identities opens it"}
		if g.passphrase {
			r.text = "the passphrase is wrong"
		}
		return nil, fmt.Errorf("%w: %w", age.ErrIncorrectIdentity, r)
	}
	return key, err
}

func passphraseIdentity(p []byte, most int) ([]age.Identity, error) {
	if len(p) == 0 {
		return nil, errors.New("its passphrase is empty")
	}
	id, err := age.NewScryptIdentity(string(p))
	if err != nil {
		return nil, errors.New("its passphrase cannot be used")
	}
	if most > 0 {
		id.SetMaxWorkFactor(most)
	}
	return []age.Identity{guard{id, true, most}}, nil
}

// parseIdentities reads an identity file. Errors say which line, and nothing of it.
func parseIdentities(text []byte) (ids []age.Identity, err error) {
	if bytes.HasPrefix(text, []byte("age-encryption.org/")) || bytes.HasPrefix(text, []byte(armor.Header)) {
		return nil, errors.New("the identity file is encrypted itself: decrypt it, or let LoadCredentialEncrypted= give it as ?identity-credential=NAME")
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var id age.Identity
		switch {
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
			id, err = age.ParseHybridIdentity(line)
		case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
			id, err = age.ParseX25519Identity(line)
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			return nil, fmt.Errorf("identity file, line %d: is for a plugin, and none is run here: exec: with age itself does that", n)
		case strings.HasPrefix(line, "-----BEGIN"):
			return nil, fmt.Errorf("identity file, line %d: is an SSH or PEM key; age-keygen makes identities", n)
		default:
			err = errWrong
		}
		if err != nil {
			return nil, fmt.Errorf("identity file, line %d: is no identity of age (AGE-SECRET-KEY-1...)", n)
		}
		ids = append(ids, guard{id, false, 0})
	}
	if ids == nil {
		return nil, errors.New("there is no identity in the identity file")
	}
	return ids, nil
}
