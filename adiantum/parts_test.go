package adiantum

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/chacha20"

	"keyway/internal/dataunit/dataunittest"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wordsOf(b []byte) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}

// The hash NH, whose vectors the authors publish.
func TestNHVectors(t *testing.T) {
	for name, v := range read(t, "google-nh.txt.gz", 20) {
		key, message, want := v[0], v[1], v[2]
		dataunittest.Diff(t, "naive, "+name, naiveNH(key, message), want)
		var k [nhKeyUnits * 4]uint32
		for i := range k {
			k[i] = binary.LittleEndian.Uint32(key[4*i:])
		}
		var got []byte
		for _, sum := range nh(&k, message) {
			got = binary.LittleEndian.AppendUint64(got, sum)
		}
		dataunittest.Diff(t, name, got, want)
	}
}

// draft-irtf-cfrg-xchacha-03, section 2.2.1.
func TestHChaCha20Vector(t *testing.T) {
	key := wordsOf(unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
	nonce := [16]byte(unhex(t, "000000090000004a0000000031415927"))
	var got [8]uint32
	hchacha(&got, &key, &nonce, 20)
	dataunittest.Diff(t, "HChaCha20", words(got[:]), unhex(t, "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"))
}

// The first vectors of github.com/google/adiantum,
// test_vectors/ours/XChaCha/XChaCha12_32.json and XChaCha20_32.json: "Set bit 0 of
// key", a nonce of zeroes, blocks 0, 1023 and 2048 of the stream.
func TestXChaChaVectors(t *testing.T) {
	key := make([]byte, 32)
	key[0] = 1
	k := wordsOf(key)
	for _, v := range []struct {
		rounds int
		block  uint32
		want   string
	}{
		{12, 0, "b9815b9baea6918f3dce2daefad8bfc1c5c0c4f4baebafeb5723f1348004e0647d444d4b5ccac99d7ab6491e45f85673a6d0ca4b298f2bdd8e989b4bf39ff7a1"},
		{12, 1023, "371bc6dbf8f52b8870f5a4c7b6df80b0556672b949ad098765ee90b236b01d7d25fe9d36b274f5ed429cf8fa6561795dc7fe1ec4a855e5830a1fa8e2ffb34cd9"},
		{12, 2048, "e637925073f7569c2c28f9195902513c2f488d876e7812ca11bb63136f34492d2c1f87604b42811051487b69df2a4d6d0f226e3984cc94655c387804eb220346"},
		{20, 0, "a911c8cea5a98ea9dd5d22870297007e1ecd40c120682471bca7a9703998078644bf4ab14a9f3ba419c361b080a7bad598ff28433be48650a332a623b22c883f"},
		{20, 1023, "f44170097810cb8b29ec61a28cd2e445ea618d78158c4c539655f0631e5b3270af162139e46dda1cdb980c070ccc108cfb0cabbd97cddafccf6db1331a7893cd"},
		{20, 2048, "4fba7714e8b29d538dbe3894eddc7b8e73839e9927bda9e96feb84439e8af28ca8181b5cb97ba52987419ddbf1c2409dc6323c7d32d77d36929be7b7ca676bf6"},
	} {
		what := fmt.Sprintf("XChaCha%d, block %d", v.rounds, v.block)
		var sub [8]uint32
		hchacha(&sub, &k, &[16]byte{}, v.rounds)
		got := make([]byte, chachaBlock)
		chachaXOR(got, got, &sub, v.block, 0, v.rounds)
		dataunittest.Diff(t, what, got, unhex(t, v.want))
		n := int(v.block) * chachaBlock
		dataunittest.Diff(t, "naive "+what, naiveXChaCha(key, nil, v.rounds, n+chachaBlock)[n:], unhex(t, v.want))
	}
}

// batch is a cipher with the memory of a call, for the steps on their own.
func batch(t *testing.T, name string, r *rand.Rand, unit, n, rounds int) (c *Cipher, w *work, text, src []byte) {
	c = mustOpen(t, name, dataunittest.Random(r, KeySize), unit, rounds)
	return c, new(work), make([]byte, n*unit), dataunittest.Random(r, n*unit)
}

// golang.org/x/crypto is the second opinion on each step that makes a stream.
func TestStreamStepsEqualXCrypto(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range Implementations() {
		for _, unit := range []int{16, 32, 96, 496, 512, 528, 1008, 1024, 1040, 1536, 1552, 2048, 4096} {
			for _, n := range []int{1, 2, 3, 7, 8, 15, 16} {
				if n > lanesOf(t, name) {
					continue
				}
				c, w, text, src := batch(t, name, r, unit, n, 20)
				key := make([]byte, 0, 32)
				key = append(key, words(c.keys.stream[:])...)
				for u := range n {
					copy(w.middle[u][:], dataunittest.Random(r, 16))
				}
				c.subkeys(w, n)
				for u := range n {
					want, err := chacha20.HChaCha20(key, w.middle[u][:])
					if err != nil {
						t.Fatal(err)
					}
					dataunittest.Diff(t, fmt.Sprintf("%s: key of stream %d of %d", name, u, n), words(w.sub[u][:]), want)
				}
				copy(text, src)
				dst := bytes.Repeat([]byte{0x5a}, len(src))
				c.stream(w, dst, text, n)
				for u := range n {
					what := fmt.Sprintf("%s: stream %d of %d, units of %d", name, u, n, unit)
					left, right := src[u*unit:][:unit-16], src[(u+1)*unit-16:][:16]
					x, err := chacha20.NewUnauthenticatedCipher(words(w.sub[u][:]), append(make([]byte, 4), 1, 0, 0, 0, 0, 0, 0, 0))
					if err != nil {
						t.Fatal(err)
					}
					want := make([]byte, len(left))
					x.XORKeyStream(want, left)
					dataunittest.Diff(t, what+" in dst", dst[u*unit:], want)
					dataunittest.Diff(t, what+" in text", text[u*unit:], want)
					dataunittest.Diff(t, what+", right block of dst", dst[(u+1)*unit-16:], bytes.Repeat([]byte{0x5a}, 16))
					dataunittest.Diff(t, what+", right block of text", text[(u+1)*unit-16:], right)
				}
			}
		}
	}
}

func lanesOf(t *testing.T, name string) int {
	im, err := choice.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return max(lanes(im.Open), 3) // generic takes any number
}

// Every implementation hashes like the portable one, copies on the way in, and
// leaves nothing of the text on the way out.
func TestHashStepsCopyAndErase(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range Implementations() {
		for unit := 16; unit <= 2400; unit += 16 {
			n := 1 + r.IntN(3)
			c, w, text, src := batch(t, name, r, unit, n, 12)
			if unit%7 == 0 { // words that carry
				for i := range src {
					src[i] = 0xff
				}
			}
			what := fmt.Sprintf("%s, units of %d", name, unit)
			c.hashIn(w, text, src, n)
			dataunittest.Diff(t, what+": copy", text, src)
			want := new(work)
			c.sumGeneric(want, src, n)
			if want.sums != w.sums {
				t.Fatalf("%s: hashes on the way in %x, want %x", what, w.sums[:n], want.sums[:n])
			}
			w.sums = [maxBatch][2]uint64{}
			c.hashOut(w, text, n)
			if want.sums != w.sums {
				t.Fatalf("%s: hashes on the way out %x, want %x", what, w.sums[:n], want.sums[:n])
			}
			dataunittest.Diff(t, what+": erased text", text, make([]byte, len(text)))
		}
	}
}
