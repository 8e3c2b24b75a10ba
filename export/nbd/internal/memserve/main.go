// Memserve serves a memory disk over a Unix socket until SIGTERM: the NBD
// server alone, for load tests and profiles of it.
//
//	memserve -U SOCKET [-size BYTES] [-cpuprofile FILE] [-block]
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"keyway/block"
	"keyway/export"
	"keyway/export/nbd"
)

// disk is memory that is all there from the start.
type disk struct {
	mem   []byte
	block bool // refuse NoWait: everything goes to workers
}

func (d *disk) Do(_ context.Context, r block.Request) error {
	if d.block && r.NoWait() {
		return block.ErrWouldBlock
	}
	if err := block.CheckAt(&r, int64(len(d.mem)), 512, false); err != nil {
		return err
	}
	switch r.Op {
	case block.OpRead:
		r.Data.CopyFrom(d.mem[r.Off : r.Off+r.Len])
	case block.OpWrite:
		r.Data.CopyTo(d.mem[r.Off : r.Off+r.Len])
	case block.OpWriteZeroes:
		clear(d.mem[r.Off : r.Off+r.Len])
	}
	return nil
}

func (d *disk) Info() block.Info {
	return block.Info{
		Size: int64(len(d.mem)), LogicalBlock: 512, PhysicalBlock: 4096,
		FUA: block.Native, Discard: block.Native, Zeroes: block.Native, NeverBlocks: !d.block,
	}
}

func (d *disk) Close() error { return nil }

func main() {
	sock := flag.String("U", "", "socket to listen on")
	size := flag.Int("size", 1<<30, "bytes")
	profile := flag.String("cpuprofile", "", "file for a CPU profile")
	blocking := flag.Bool("block", false, "a device that always blocks")
	flag.Parse()
	if err := serve(*sock, *size, *profile, *blocking); err != nil {
		fmt.Fprintln(os.Stderr, "memserve:", err)
		os.Exit(1)
	}
}

func serve(sock string, size int, profile string, blocking bool) error {
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return err
	}
	const hugePages = 14 // MADV_HUGEPAGE
	if err := syscall.Madvise(mem, hugePages); err != nil {
		slog.Warn("no huge pages", "err", err)
	}
	mem[0] = 1 // every page must be there before the first request
	for n := 1; n < len(mem); n += copy(mem[n:], mem[:n]) {
	}
	s, err := nbd.New(nbd.Config{Log: slog.Default()})
	if err != nil {
		return err
	}
	if err := s.Add(export.Export{Name: "mem", Dev: &disk{mem, blocking}}); err != nil {
		return err
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return s.Serve(ctx, l)
}
