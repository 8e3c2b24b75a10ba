package dataunittest

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
)

// BenchmarkNewWipe measures key set-up and its end, as at each programming of a
// keyslot.
func BenchmarkNewWipe(b *testing.B, s Subject) {
	for _, name := range s.Names {
		b.Run(name, func(b *testing.B) {
			key := Random(rand.New(rand.NewPCG(1, 2)), s.Keys[len(s.Keys)-1])
			for b.Loop() {
				c, err := s.New(name, key, 4096)
				if err != nil {
					b.Fatal(err)
				}
				c.Wipe()
			}
		})
	}
}

// Benchmark measures encryption and decryption for short and long units and runs.
func Benchmark(b *testing.B, s Subject) {
	for _, verb := range []string{"encrypt", "decrypt"} {
		for _, name := range s.Names {
			for _, unit := range []int{512, 4096} {
				for _, units := range []int{1, 8, 64} {
					b.Run(fmt.Sprintf("%s/%s/%dx%d", verb, name, unit, units), func(b *testing.B) {
						c := s.open(b, name, Random(rand.New(rand.NewPCG(1, 2)), s.Keys[len(s.Keys)-1]), unit)
						op := c.Encrypt
						if verb == "decrypt" {
							op = c.Decrypt
						}
						src, dst := pages(b, unit*units), pages(b, unit*units)
						b.SetBytes(int64(len(src)))
						b.ReportAllocs()
						dun := [4]uint64{1}
						for b.Loop() {
							op(dst, src, dun)
							dun[0] += uint64(units)
						}
					})
				}
			}
		}
	}
}

// pages returns page-aligned memory, as the arena hands out.
func pages(b *testing.B, n int) []byte {
	m, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { syscall.Munmap(m) })
	return m
}
