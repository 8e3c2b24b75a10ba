package luks

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
)

// A Medium is the device or file that holds a header, from its first byte. An
// *os.File is one.
//
// Writes reach what Sync makes durable in any order, and each may be torn between
// sectors of 512 bytes, never within one: that is all that crash safety asks of it.
// Who opens it keeps other writers away, see LockFile.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written before is durable.
	Sync() error
}

func writeFull(m Medium, b []byte, at int64) error {
	n, err := m.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at byte %d: %w", len(b), at, err)
	}
	return nil
}

func durable(m Medium) error {
	if err := m.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// fillBytes is how much is overwritten at once.
const fillBytes = 1 << 20

// overwrite fills a run with random bytes, or with zeroes, and makes that durable.
func overwrite(m Medium, at, n int64, random bool) error {
	if n <= 0 {
		return nil
	}
	b := make([]byte, min(n, fillBytes))
	for n > 0 {
		part := b[:min(n, fillBytes)]
		if random {
			if _, err := rand.Read(part); err != nil {
				return err
			}
		}
		if err := writeFull(m, part, at); err != nil {
			return err
		}
		at, n = at+int64(len(part)), n-int64(len(part))
	}
	return durable(m)
}

// store writes b, makes it durable and reads it again: a keyslot that cannot be
// read must not be named by a header.
func store(m Medium, b []byte, at int64) error {
	if err := writeFull(m, b, at); err != nil {
		return err
	}
	if err := durable(m); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if err := readFull(m, got, at); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return errors.New("what was written reads back as something else")
	}
	return nil
}
