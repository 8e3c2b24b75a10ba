package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"keyway/internal/keysource"
	"keyway/internal/secret"
)

// Bounds of passphrases, in bytes: a line as cryptsetup takes one, and a key file.
const (
	maxLine    = 512
	maxKeyFile = 8 << 20
)

// readPassphrase reads a part of a key file, "-" being standard input to its end, or if
// file is "" one line: from the terminal, without echo, or from standard input. The
// caller wipes it.
func readPassphrase(ctx context.Context, file string, part keysource.Part, prompt string) (*secret.Buffer, error) {
	if file == "" {
		return readLine(ctx, os.Stdin, prompt)
	}
	var b *secret.Buffer
	var err error
	if file == "-" {
		if b, err = keysource.ReadStdin(ctx, os.Stdin, maxKeyFile); err == nil {
			b, err = part.Cut(b)
		}
	} else {
		b, err = keysource.ReadPart(ctx, &keysource.Env{}, file, part, maxKeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", file, err)
	}
	return b, nil
}

// readSecret reads what is open to its end, or until ctx ends, and returns a part of it;
// name says what it is. The caller wipes the result.
func readSecret(ctx context.Context, in *os.File, part keysource.Part, name string) (*secret.Buffer, error) {
	b, err := keysource.ReadStdin(ctx, in, maxKeyFile)
	if err == nil {
		b, err = part.Cut(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// readLine reads up to the end of a line, which is not part of it. A terminal gets
// the prompt and shows nothing of what is typed; at the end of ctx it is as before.
func readLine(ctx context.Context, in *os.File, prompt string) (*secret.Buffer, error) {
	fd := int(in.Fd())
	if old, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		quiet := *old
		quiet.Lflag &^= unix.ECHO
		quiet.Lflag |= unix.ICANON | unix.ISIG
		if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &quiet); err != nil {
			return nil, fmt.Errorf("the terminal shows what is typed: %w", err)
		}
		defer func() {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
			fmt.Fprintln(os.Stderr)
		}()
		fmt.Fprintf(os.Stderr, "%s: ", prompt)
	}
	type line struct {
		b   *secret.Buffer
		err error
	}
	// It owns what it has read until somebody takes it; the process ends else.
	got := make(chan line, 1)
	go func() {
		b, err := scanLine(in)
		got <- line{b, err}
	}()
	select {
	case l := <-got:
		return l.b, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// scanLine reads byte by byte: what follows the line is for somebody else.
func scanLine(in io.Reader) (*secret.Buffer, error) {
	b, err := secret.New(maxLine + 1)
	if err != nil {
		return nil, err
	}
	defer b.Wipe()
	p := b.Bytes()
	n := 0
	for {
		m, err := in.Read(p[n : n+1])
		if m == 1 && p[n] == '\n' || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		if n += m; n > maxLine {
			return nil, fmt.Errorf("the passphrase has more than %d bytes: --key-file takes longer ones", maxLine)
		}
	}
	if n == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	fit, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	copy(fit.Bytes(), p[:n])
	return fit, nil
}
