package digest

import (
	"bytes"
	"encoding/hex"
	"hash"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	gmsm "github.com/emmansun/gmsm/sm3"
)

// Of "abc": FIPS 180-4 and 202, ISO/IEC 10118-3, RFC 7693, GB/T 32905, and the paper
// on RIPEMD-160.
var ofABC = map[string]string{
	"sha1":        "a9993e364706816aba3e25717850c26c9cd0d89d",
	"sha224":      "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
	"sha256":      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	"sha384":      "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
	"sha512":      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
	"sha3-224":    "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
	"sha3-256":    "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
	"sha3-384":    "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
	"sha3-512":    "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
	"ripemd160":   "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc",
	"blake2b-512": "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
	"blake2s-256": "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
	"whirlpool":   "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c7181eebdb6c57e277d0e34957114cbd6c797fc9d95d8b582d225292076d4eef5",
	"sm3":         "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
}

func mustNew(t testing.TB, name string) *Hash {
	t.Helper()
	h, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Wipe)
	return h
}

func TestVectors(t *testing.T) {
	for _, name := range Names() {
		h := mustNew(t, name)
		for range 2 { // Sum leaves the state, Reset renews it
			h.Write([]byte("a"))
			h.Write([]byte("bc"))
			if h.Size() > MaxSize || h.BlockSize() > MaxBlockSize {
				t.Errorf("%s: %d bytes of blocks of %d", name, h.Size(), h.BlockSize())
			}
			for range 2 {
				if got := hex.EncodeToString(h.Digest()); got != ofABC[name] || hex.EncodeToString(h.Sum(nil)) != got {
					t.Errorf("%s: %s, want %s", name, got, ofABC[name])
				}
			}
			h.Reset()
		}
	}
	if len(Names()) != len(ofABC) || !Known("sm3") || Known("md5") {
		t.Error("not every function has a vector")
	}
	if _, err := New("md5"); err == nil {
		t.Error("md5: no error")
	}
}

// A million times "a", the vector of the standards.
func TestLongVectorOfWhirlpool(t *testing.T) {
	h := mustNew(t, "whirlpool")
	h.Write(bytes.Repeat([]byte("a"), 1e6))
	const want = "0c99005beb57eff50a7cf005560ddf5d29057fd86b20bfd62deca0f1ccea4af51fc15490eddc47af32bb2b66c34ff9ad8c6008ad677f77126953b226e4ed8b01"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Each length of the last block, in any pieces.
func TestSM3EqualsGMSM(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		in := make([]byte, n)
		for i := range in {
			in[i] = byte(r.Uint32())
		}
		h := mustNew(t, "sm3")
		for rest := in; len(rest) > 0; {
			k := 1 + r.IntN(len(rest))
			h.Write(rest[:k])
			rest = rest[k:]
		}
		if got, want := h.Sum(nil), gmsm.Sum(in); !bytes.Equal(got, want[:]) {
			t.Fatalf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

// What is copied from one Hash to another is all that it needs.
func TestStateIsTakenOver(t *testing.T) {
	for _, name := range Names() {
		a, b := mustNew(t, name), mustNew(t, name)
		a.Write(bytes.Repeat([]byte("x"), 200))
		b.Write([]byte("something else"))
		copy(b.State(), a.State())
		a.Write([]byte("y"))
		b.Write([]byte("y"))
		if got, want := b.Sum(nil), a.Sum(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
}

func TestTypesWithPointersAreSeen(t *testing.T) {
	for _, v := range []any{struct{ p *int }{}, [1]hash.Hash{}, struct{ a [2]struct{ s []byte } }{}, "", map[int]int{}} {
		if !pointers(reflect.TypeOf(v)) {
			t.Errorf("%T has pointers", v)
		}
	}
	if pointers(reflect.TypeOf(struct {
		a [3]uint64
		b bool
	}{})) {
		t.Error("there are none")
	}
	if !slices.IsSorted(Names()) {
		t.Error("not sorted")
	}
}
