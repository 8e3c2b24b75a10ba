package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"keyway/internal/secret"
)

// What comes from who runs the command: a descriptor, standard input, a person.

func init() {
	gone := func(what string) func(*Source) string {
		return func(*Source) string { return "it comes from " + what }
	}
	Register(Scheme{
		Name: "fd", Place: "N", Summary: "what can be read from a descriptor of the command, to its end",
		Check: func(s *Source) error {
			if n, err := strconv.Atoi(s.Place); err != nil || n < 0 || n > 1<<20 || strconv.Itoa(n) != s.Place {
				return errors.New("N is the number of a descriptor")
			}
			return nil
		},
		Fleeting: gone("a descriptor of a command"),
		Read: func(ctx context.Context, s *Source, _ *Env) (*secret.Buffer, error) {
			n, _ := strconv.Atoi(s.Place) // checked
			f := os.NewFile(uintptr(n), "descriptor")
			if f == nil {
				return nil, errors.New("is no descriptor")
			}
			if _, err := f.Stat(); err != nil {
				return nil, withWay(errors.New("is not open"), "a shell opens it by "+s.Place+"<FILE at the end of the command")
			}
			return ReadStdin(ctx, f, maxText)
		},
	})
	Register(Scheme{
		Name: "stdin", Summary: "standard input to its end",
		Fleeting: gone("standard input"),
		Read: func(ctx context.Context, _ *Source, e *Env) (*secret.Buffer, error) {
			if e.Stdin == nil {
				return nil, errors.New("is not read by this process")
			}
			return ReadStdin(ctx, e.Stdin, maxText)
		},
	})
	Register(Scheme{
		Name: "prompt", Summary: "a line that somebody types, in hex unless encoding says otherwise",
		Fleeting: gone("a person"),
		Read: func(ctx context.Context, s *Source, e *Env) (*secret.Buffer, error) {
			if enc := s.get("encoding"); enc != "" {
				return ask(ctx, e, "key ("+enc+")")
			}
			b, err := ask(ctx, e, "key (hex)")
			if err != nil {
				return nil, err
			}
			return decode(b, "hex")
		},
	})
}

func ask(ctx context.Context, e *Env, what string) (*secret.Buffer, error) {
	if e.Ask == nil {
		return nil, errors.New("nobody can be asked for it here")
	}
	return e.Ask(ctx, what)
}

// ReadStdin reads 1 to max bytes from a descriptor that somebody else has opened, and
// whose flags are not ours to change, to its end; not more than 64 KiB where its size
// does not show beforehand. It is read no more after ctx ends, but for the call that
// waits then: what that reads is wiped.
func ReadStdin(ctx context.Context, f *os.File, max int) (*secret.Buffer, error) {
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if st.IsDir() {
		return nil, errors.New("is a directory")
	} else if st.Mode().IsRegular() {
		return rest(f, st.Size(), max)
	}
	type result struct {
		b   *secret.Buffer
		err error
	}
	got := make(chan result, 1)
	go func() {
		b, err := read(f, min(max, maxPipe))
		got <- result{b, err}
	}()
	select {
	case r := <-got:
		return r.b, r.err
	case <-ctx.Done():
		go func() { (<-got).b.Wipe() }()
		return nil, context.Cause(ctx)
	}
}

// rest reads a file of size bytes from where it stands.
func rest(f *os.File, size int64, max int) (*secret.Buffer, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	n := size - at
	switch {
	case n > int64(max):
		return nil, fmt.Errorf("has %d bytes, more than %d", n, max)
	case n <= 0:
		return nil, errEmpty
	}
	return read(f, int(n))
}
