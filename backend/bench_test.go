package backend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"keyway/block"
)

// Random requests at n bytes on a device of 64 MiB whose blocks all exist.
func benchDevice(b *testing.B, dev block.Device) {
	ctx := context.Background()
	all := make([]byte, 1<<20)
	for i := range all {
		all[i] = byte(i)
	}
	for off := int64(0); off < dev.Info().Size; off += int64(len(all)) {
		if err := dev.Do(ctx, block.Request{Op: block.OpWrite, Off: off, Len: int64(len(all)), Data: block.Bytes(all)}); err != nil {
			b.Fatal(err)
		}
	}
	for _, op := range []block.Op{block.OpRead, block.OpWrite} {
		for _, n := range []int{4 << 10, 256 << 10} {
			b.Run(fmt.Sprintf("%v/%d", op, n), func(b *testing.B) {
				buf := make([]byte, n)
				rnd := rand.New(rand.NewPCG(1, 2))
				r := block.Request{Op: op, Len: int64(n), Data: block.Bytes(buf)}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					r.Off = rnd.Int64N(dev.Info().Size/int64(n)) * int64(n)
					if err := dev.Do(ctx, r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkMem(b *testing.B) {
	dev, err := Open(context.Background(), "mem:64M", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	benchDevice(b, dev)
}

// BenchmarkMemcpy is what BenchmarkMem is to be compared with.
func BenchmarkMemcpy(b *testing.B) {
	mem := make([]byte, 64<<20)
	for i := range mem {
		mem[i] = byte(i)
	}
	buf := make([]byte, 4096)
	rnd := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(4096)
	for b.Loop() {
		copy(buf, mem[rnd.IntN(len(mem)/4096)*4096:])
	}
}

func BenchmarkFile(b *testing.B) {
	dev, err := Open(context.Background(), "file:"+b.TempDir()+"/disk", Options{Size: 64 << 20, Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	benchDevice(b, dev)
}

func BenchmarkDirectFile(b *testing.B) {
	dir := b.TempDir()
	skipUnlessDirect(b, dir)
	dev, err := Open(context.Background(), "file:"+dir+"/disk?direct=1", Options{Size: 64 << 20, Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer dev.Close()
	benchDevice(b, dev)
}
