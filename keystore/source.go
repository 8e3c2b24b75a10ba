package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keyway/internal/secret"
)

// maxKey bounds what is read where a key should be, in bytes: more than any
// mode takes, so that the error can tell the true length of most wrong files.
const maxKey = 4096

// Read reads a key from r, which what names, to its end.
func Read(r io.Reader, what string) (*secret.Buffer, error) {
	b, err := secret.ReadFrom(r, maxKey)
	if err != nil {
		return nil, fmt.Errorf("key from %s: %w", what, err)
	}
	return b, nil
}

// ReadFile reads a key from the file at path.
func ReadFile(path string) (*secret.Buffer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil || i.IsDir() {
		return nil, errors.Join(fmt.Errorf("key file %s is not a file", path), err)
	}
	return Read(f, path)
}

// Generate returns n random bytes and writes them to a new file, as Create does.
func Generate(path string, n int) (*secret.Buffer, error) {
	b, err := secret.New(n)
	if err != nil {
		return nil, err
	}
	if _, err = rand.Read(b.Bytes()); err == nil {
		err = Create(path, b)
	}
	if err != nil {
		b.Wipe()
		return nil, err
	}
	return b, nil
}

// Create writes b to a new file at path with mode 0600. When it returns nil the
// bytes are durable. An existing file is left alone: the error is fs.ErrExist then.
func Create(path string, b *secret.Buffer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create key file %s: %w", path, err)
		}
	}()
	// Written beside and linked: whoever sees the name sees the whole key.
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fs.ErrExist
		}
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
