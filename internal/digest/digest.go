// Package digest has the hash functions of LUKS headers, by the names that
// cryptsetup gives them, with their state in key memory.
//
// The hash functions are those of the standard library, of golang.org/x/crypto and
// two of our own. They keep their state in a struct that New moves into memory of
// internal/secret. Copies of it on the stack and in registers are overwritten if
// digests are computed within Do.
package digest

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"fmt"
	"hash"
	"reflect"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 there are volumes with it

	"keyway/internal/secret"
)

// MaxSize and MaxBlockSize are the largest Size and BlockSize in bytes.
const (
	MaxSize      = 64
	MaxBlockSize = 144
)

// functions are the hash functions that cryptsetup 2.6 takes where it is built with
// OpenSSL 3, and that are not broken as MD5 is.
var functions = map[string]func() hash.Hash{
	"sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	"sha3-224":  func() hash.Hash { return sha3.New224() },
	"sha3-256":  func() hash.Hash { return sha3.New256() },
	"sha3-384":  func() hash.Hash { return sha3.New384() },
	"sha3-512":  func() hash.Hash { return sha3.New512() },
	"ripemd160": ripemd160.New,
	"blake2b-512": func() hash.Hash {
		h, err := blake2b.New512(nil)
		return must(h, err)
	},
	"blake2s-256": func() hash.Hash {
		h, err := blake2s.New256(nil)
		return must(h, err)
	},
	"whirlpool": func() hash.Hash { h := new(whirlpool); h.Reset(); return h },
	"sm3":       func() hash.Hash { h := new(sm3); h.Reset(); return h },
}

// The BLAKE2 constructors fail for bad keys only.
func must(h hash.Hash, err error) hash.Hash {
	if err != nil {
		panic("digest: " + err.Error())
	}
	return h
}

// Known reports whether there is a hash function of that name.
func Known(name string) bool { return functions[name] != nil }

// Names returns the names of all, sorted.
func Names() (names []string) {
	for n := range functions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Hash is the state of a hash function in key memory. The owner calls Wipe. It is
// for one goroutine at a time.
type Hash struct {
	hash.Hash
	mem   *secret.Buffer
	state []byte // of mem
	room  []byte // of mem, for Digest
}

// New returns a hash function in its first state. It fails if there is none of that
// name, or no key memory.
func New(name string) (*Hash, error) {
	f := functions[name]
	if f == nil {
		return nil, fmt.Errorf("digest: no hash function %q is built here", name)
	}
	first := reflect.ValueOf(f()).Elem()
	t := first.Type()
	if pointers(t) {
		// The collector does not see what is in key memory.
		panic("digest: the state of " + name + " is not what it used to be: it has pointers")
	}
	size := int(t.Size())
	mem, err := secret.New(size + MaxSize)
	if err != nil {
		return nil, err
	}
	v := reflect.NewAt(t, unsafe.Pointer(&mem.Bytes()[0]))
	v.Elem().Set(first)
	h := v.Interface().(hash.Hash)
	return &Hash{h, mem, mem.Bytes()[:size:size], mem.Bytes()[size:][:h.Size():h.Size()]}, nil
}

// pointers reports whether values of a type hold any.
func pointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return false
	case reflect.Array:
		return pointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if pointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	}
	return true
}

// State is all of the state, as bytes that a Hash of the same function takes over
// when they are copied into its own. It is valid until Wipe.
func (h *Hash) State() []byte { return h.state }

// Digest returns what Sum appends, in key memory: it is valid until the next call.
func (h *Hash) Digest() []byte { return h.Sum(h.room[:0]) }

// Wipe overwrites the state and gives it back. It may be called again, and on nil.
func (h *Hash) Wipe() {
	if h != nil {
		h.mem.Wipe()
		h.Hash, h.state, h.room = nil, nil, nil
	}
}

// burnt is more than the frames of any hash function here.
const burnt = 8 << 10

// Do calls f, which computes digests of secrets, in a way that nothing of them
// stays on the stack or in vector registers: see secret.Do and secret.Quiet, whose
// rules hold for f. (Vector registers: on amd64.)
func Do(f func()) {
	secret.Quiet(func() {
		secret.Do(func() {
			// The stack gets its size now, and does not move to a larger place later.
			burn()
			f()
			burn()
			clearVectors()
		})
	})
}

// burn overwrites the stack below its caller.
//
//go:noinline
func burn() {
	var room [burnt]byte
	secret.Wipe(room[:])
	runtime.KeepAlive(&room)
}
