// Package blocktest is the conformance suite: what every block.Device, every
// target and every engine must do, as tests to call from the test of one.
//
// A device is also compared to package model under a seeded history. A failure
// prints the seed; -blocktest.seed runs it again.
package blocktest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/race"
	"keyway/internal/secret"
)

var seedFlag = flag.Uint64("blocktest.seed", 0, "seed of random histories; 0 takes another one each time")

// seed returns the seed for a test and prints it if the test fails.
func seed(t testing.TB) uint64 {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again with -blocktest.seed=%d", s)
		}
	})
	return s
}

// Options tell what the suite cannot see.
type Options struct {
	// NoAllocs: aligned requests with contiguous data allocate nothing.
	NoAllocs bool

	// OpenReadOnly opens a read-only device, nil if there is none. What it
	// holds does not matter.
	OpenReadOnly func(t *testing.T) block.Device

	// Medium returns what is on the medium beneath a device that open
	// returned, without decryption. nil: what a request without a context
	// reads.
	Medium func(t *testing.T, dev block.Device, off, n int64) []byte

	// FewBlocks makes the suite stay below 1 MiB of a device.
	FewBlocks bool
}

// suite is one device under test with what the checks of it need.
type suite struct {
	dev  block.Device
	info block.Info
	o    Options
	size int64 // bytes that the tests use, from 0 on
	unit int64 // a request's least length
}

func newSuite(t *testing.T, dev block.Device, o Options) *suite {
	i := dev.Info()
	s := &suite{dev: dev, info: i, o: o, unit: int64(i.LogicalBlock)}
	s.size = min(i.Size, 4<<20)
	if o.FewBlocks {
		s.size = min(i.Size, 1<<20)
	}
	if race.Enabled { // ten times slower, and here for what happens side by side
		s.size = max(min(s.size, 256<<10), 16*s.unit)
	}
	if s.size < 16*s.unit {
		t.Fatalf("a device of %d bytes with blocks of %d is too small for the suite", i.Size, s.unit)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func do(dev block.Device, op block.Op, f block.Flags, off int64, data []byte) error {
	return dev.Do(context.Background(), block.Request{Op: op, Flags: f, Off: off, Len: int64(len(data)), Data: block.Bytes(data)})
}

func doRange(dev block.Device, op block.Op, f block.Flags, off, n int64) error {
	return dev.Do(context.Background(), block.Request{Op: op, Flags: f, Off: off, Len: n})
}

func mustWrite(t testing.TB, dev block.Device, off int64, data []byte) {
	t.Helper()
	if err := do(dev, block.OpWrite, 0, off, data); err != nil {
		t.Fatalf("write of %d bytes at %d: %v", len(data), off, err)
	}
}

func mustRead(t testing.TB, dev block.Device, off, n int64) []byte {
	t.Helper()
	b := pattern(99, n) // not zeroes: a read that leaves memory alone must show
	if err := do(dev, block.OpRead, 0, off, b); err != nil {
		t.Fatalf("read of %d bytes at %d: %v", n, off, err)
	}
	return b
}

// pattern returns n bytes that depend on all of seed and no others do. Half of what
// the suite does is to make them; nobody else has them yet.
//
//go:norace
func pattern(seed uint64, n int64) []byte {
	b := make([]byte, n+7)
	z := mix(seed ^ 0x626c6f636b) // of two seeds no streams that are alike but for their place
	for i := int64(0); i < n; i += 8 {
		z += 0x9e3779b97f4a7c15
		binary.LittleEndian.PutUint64(b[i:], mix(z))
	}
	return b[:n:n]
}

// mix is the finalizer of SplitMix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// scatter cuts b into segments of odd sizes, empty ones among them.
func scatter(b []byte) block.Segments {
	sizes := []int{1, 0, 3, 509, 7, 512, 0, 0, 4096, 1, 4095, 13, 2048, 1000, 1 << 16, 31}
	var v [][]byte
	for i := 0; len(b) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(b))
		v = append(v, b[:n:n])
		b = b[n:]
	}
	return block.Vec(append(v, nil))
}

func same(t testing.TB, what string, got, want []byte) bool {
	t.Helper()
	if bytes.Equal(got, want) {
		return true
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: byte %d of %d differs: got %s, want %s", what, at, len(want), around(got, at), around(want, at))
	return false
}

func around(b []byte, at int) string {
	return fmt.Sprintf("%x…", b[min(at, len(b)):min(at+8, len(b))])
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: error %v, want %q", what, got, want)
	}
}

// Key returns a key of random bytes for tests, evicted at the end.
func Key(t testing.TB, c blkcrypto.Config) *blkcrypto.Key {
	t.Helper()
	return keyOf(t, c, pattern(rand.Uint64(), int64(c.Mode.KeySize())))
}

// keyOf returns a key of the given bytes, which it leaves alone.
func keyOf(t testing.TB, c blkcrypto.Config, raw []byte) *blkcrypto.Key {
	t.Helper()
	b, err := secret.Copy(bytes.Clone(raw))
	if err != nil {
		t.Fatal(err)
	}
	k, err := blkcrypto.NewKey("blocktest", c, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := k.Evict(context.Background()); err != nil {
			t.Errorf("evicting the test's key: %v", err)
		}
	})
	return k
}
