package luks

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// endsAt is done when it is asked for the nth time.
type endsAt struct {
	context.Context
	n int
}

func (c *endsAt) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

func TestDerivationIsCancelledMidway(t *testing.T) {
	for _, k := range []KDF{
		{Type: "pbkdf2", Hash: "sha256", Iterations: 1 << 30},
		{Type: "argon2i", Time: 1 << 16, Memory: 64, CPUs: 1},
		{Type: "argon2id", Time: 1 << 16, Memory: 64, CPUs: 1},
	} {
		k.Salt = make([]byte, 32)
		key := bytes.Repeat([]byte{1}, 32)
		// All of these would take minutes.
		if err := k.derive(&endsAt{context.Background(), 3}, key, []byte("passphrase")); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want that it was cancelled", k.Type, err)
		}
		if !bytes.Equal(key, make([]byte, 32)) {
			t.Errorf("%s: the key is %x", k.Type, key)
		}
	}
	k := KDF{Type: "scrypt"}
	if err := k.derive(context.Background(), make([]byte, 32), nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v, want %v", err, ErrUnsupported)
	}
	k = KDF{Type: "pbkdf2", Hash: "md5", Iterations: 1}
	if err := k.derive(context.Background(), make([]byte, 32), nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v, want %v", err, ErrUnsupported)
	}
}
