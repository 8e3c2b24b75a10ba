package dm

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// An Env resolves what table text names.
type Env interface {
	// Open returns a device by name, backend URI or path. The table closes
	// it. A device that is not a *Handle of a Mapped gets the fallback in
	// front of it, so that a target may always send contexts.
	Open(ctx context.Context, name string, readOnly bool) (block.Device, error)

	// Key returns the key that ref names, under config c, and what gives it
	// back: release returns when the table's use of the key has left no trace
	// in any engine, unless others use it too. A weak XTS key is taken only if
	// weak is set.
	Key(ctx context.Context, ref KeyRef, c blkcrypto.Config, weak bool) (k *blkcrypto.Key, release func(context.Context) error, err error)

	// Fallback is the software engine that serves what devices cannot.
	Fallback() *keyslot.Manager
}

// A KeyRef names a key of the key store, as dm-crypt names one of the kernel's
// keyrings: ":64:logon:disk0".
type KeyRef struct {
	Size int    // bytes
	Type string // logon, user, trusted or encrypted: taken alike, printed as given
	Name string
}

// ParseKeyRef parses ":<size>:<type>:<name>".
func ParseKeyRef(s string) (KeyRef, error) {
	rest, ok := strings.CutPrefix(s, ":")
	size, rest, ok2 := strings.Cut(rest, ":")
	typ, name, ok3 := strings.Cut(rest, ":")
	if !ok || !ok2 || !ok3 || name == "" {
		// What stands here may be a key in hex: it is not repeated.
		return KeyRef{}, fmt.Errorf("not a key reference of the form :<size>:<type>:<name>")
	}
	n, err := strconv.Atoi(size)
	if err != nil || n <= 0 {
		return KeyRef{}, fmt.Errorf("size %q in a key reference is not a number of bytes", size)
	}
	switch typ {
	case "logon", "user", "trusted", "encrypted":
	default:
		return KeyRef{}, fmt.Errorf("type %q in a key reference is not one of logon, user, trusted, encrypted", typ)
	}
	return KeyRef{n, typ, name}, nil
}

func (r KeyRef) String() string { return fmt.Sprintf(":%d:%s:%s", r.Size, r.Type, r.Name) }
