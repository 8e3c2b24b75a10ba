package keysource

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"keyway/internal/secret"
)

func init() {
	Register(Scheme{
		Name: "age", Place: "PATH", Path: true, Heavy: true, Summary: "a file that age encrypted, for a passphrase or for X25519 and hybrid identities, armored or not",
		Options: append([]Option{
			{Name: "identity", Kind: Path, Value: "FILE", Summary: "with identities, as age-keygen writes it"},
			{Name: "identity-credential", Kind: Text, Value: "NAME", Summary: "of systemd, which is such a file"},
		}, append(passphraseOptions(),
			Option{Name: "max-work-factor", Kind: Number, Max: mostWorkFactor, Value: "N", Summary: "2^N is the most work that a passphrase may take (default 20: 1 GiB of memory)"})...),
		Check: func(s *Source) error {
			return s.only("identity", "identity-credential", "key-file", "credential")
		},
		Fleeting: func(s *Source) string {
			return s.unattended("identity", "identity-credential", "key-file", "credential")
		},
		Read: readAge,
	})
}

// Work factors of scrypt, as powers of two: 2^20 takes 1 GiB and some seconds, and
// age itself writes 2^18.
const (
	usualWorkFactor = 20
	mostWorkFactor  = 22
)

// ageLimit bounds a decryption, which is work and waits for nobody.
const ageLimit = 2 * time.Minute

// maxAge bounds an age file, in bytes: a key, and some hundred recipients.
const maxAge = 1 << 20

// HelperCommand is the command of this program that calls HelperMain with the
// arguments after it.
const HelperCommand = "key-helper"

// readAge decrypts in a process of its own: age's library has passphrase, identity,
// file key and plaintext on the heap, which nobody can wipe, and their memory goes
// with the process. It gets the file and the secret by descriptor, and the key comes
// by a pipe.
func readAge(ctx context.Context, s *Source, e *Env) (*secret.Buffer, error) {
	f, st, err := regular(s.Place)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch {
	case st.Size() == 0:
		return nil, errEmpty
	case st.Size() > maxAge:
		return nil, tooLong(maxAge)
	}
	how := "identity"
	opens, err := s.fromFile(ctx, e, "identity", "identity-credential", maxAgeSecret)
	if opens == nil && err == nil {
		how = "passphrase"
		opens, err = s.passphrase(ctx, e, maxAgeSecret)
	}
	if err != nil {
		return nil, err
	}
	defer opens.Wipe()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { w.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.Write(opens.Bytes()) // the helper sees it if this ends early
		w.Close()
	}()
	b, err := command{
		path: "/proc/self/exe", name: os.Args[0], args: []string{HelperCommand, how, strconv.Itoa(s.number("max-work-factor", usualWorkFactor))},
		extra: []*os.File{f, r}, limit: ageLimit, max: maxText, quiet: true,
	}.run(ctx)
	cancel() // before opens is wiped
	<-written
	if x, ok := errors.AsType[*exitError](err); ok {
		switch x.status {
		case exitWrong:
			return nil, withWay(err, s.wrongWay(how))
		case exitWork:
			return nil, withWay(err, "?max-work-factor= takes up to "+strconv.Itoa(mostWorkFactor)+"; a higher one takes more memory than it is worth")
		}
	}
	return b, err
}

func (s *Source) wrongWay(how string) string {
	if how == "identity" {
		return "\"age -d -i FILE\" tells whether the identity is one of its recipients"
	}
	if s.get("key-file") != "" || s.get("credential") != "" {
		return "the passphrase is the first line of the file, without its end"
	}
	return "try again: nothing has changed"
}

// firstLine returns b up to the end of its first line.
func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}
