package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"keyway/internal/measure"
	"keyway/test/spawn"
)

//go:embed nbdload/nbdload.c
var loaderSource []byte

// A workload drives one server once.
type workload struct {
	name string
	run  func(s *server) (traffic, error)
	iops bool // requests per second tell more than bytes
}

// traffic is what a client says that it did.
type traffic struct {
	bytes, ios float64
	seconds    float64
	p99        float64 // microseconds; 0: not known
}

// A sample is one run.
type sample struct {
	Server, Load string
	Round        int
	GBps, KIOPS  float64 // 10^9 bytes, 10^3 requests, a second
	P99          float64 `json:"p99_us"`           // 0: the client does not tell
	CPU          float64 `json:"server_cpu_s_gib"` // seconds of the server's processor time for 2^30 bytes
	Foreign      float64 // share of one processor that neither side used

	bytes float64
}

// buildLoader compiles the load generator: fio's own cost hides a server above
// about 180 k requests a second.
func buildLoader(dir string) (string, error) {
	src, bin := filepath.Join(dir, "nbdload.c"), filepath.Join(dir, "nbdload")
	if err := os.WriteFile(src, loaderSource, 0o600); err != nil {
		return "", err
	}
	return bin, command("cc", "-O2", "-o", bin, src, "-lpthread")
}

// generate is a workload of the load generator.
func generate(o options, loader, name, flags string, iops bool) workload {
	args := append(strings.Fields(flags), "-t", fmt.Sprint(o.time.Seconds()))
	return workload{name, func(s *server) (traffic, error) {
		out, err := output(loader, append(args, s.sock, s.export)...)
		if err != nil {
			return traffic{}, err
		}
		return parseLoader(out)
	}, iops}
}

// diskLoads are sizes and depths at which a disk is compared with another.
func diskLoads(o options, loader string) (w []workload) {
	for _, l := range []struct {
		size, depth int
	}{{4, 1}, {4, 32}, {16, 16}, {64, 8}, {256, 8}, {1024, 4}} {
		for _, way := range []string{"read", "write"} {
			flags := fmt.Sprintf("-%c -b %d -q %d -c 1", way[0], l.size<<10, l.depth)
			w = append(w, generate(o, loader, fmt.Sprintf("%dK %s qd%d", l.size, way, l.depth), flags, l.size < 64))
		}
	}
	return w
}

func workloads(o options, loader string) []workload {
	var w []workload
	gen := func(name, flags string, iops bool) { w = append(w, generate(o, loader, name, flags, iops)) }
	gen("4K read qd1", "-r -b 4096 -q 1 -c 1", true)
	gen("4K write qd1", "-w -b 4096 -q 1 -c 1", true)
	gen("4K read qd32", "-r -b 4096 -q 32 -c 1", true)
	gen("4K write qd32", "-w -b 4096 -q 32 -c 1", true)
	gen("4K read qd32x4", "-r -b 4096 -q 32 -c 4", true)
	gen("4K write qd32x4", "-w -b 4096 -q 32 -c 4", true)
	gen("256K read qd8", "-r -b 262144 -q 8 -c 1", false)
	gen("256K write qd8", "-w -b 262144 -q 8 -c 1", false)

	fio := func(name, rw, bs string, depth int, iops bool) {
		w = append(w, workload{name, func(s *server) (traffic, error) {
			out, err := output("fio", "--name=j", "--ioengine=nbd", "--uri="+s.uri(), "--rw="+rw, "--bs="+bs, fmt.Sprint("--iodepth=", depth),
				"--time_based", fmt.Sprint("--runtime=", o.time.Milliseconds(), "ms"), fmt.Sprint("--size=", o.size), "--norandommap",
				"--randrepeat=0", "--output-format=json", "--thread")
			if err != nil {
				return traffic{}, err
			}
			return parseFio(out, strings.Contains(rw, "read"))
		}, iops})
	}
	fio("fio 4K read qd32", "randread", "4k", 32, true)
	fio("fio 4K write qd32", "randwrite", "4k", 32, true)
	fio("fio 256K read qd8", "read", "256k", 8, false)
	fio("fio 256K write qd8", "write", "256k", 8, false)

	w = append(w, workload{"nbdcopy to null", func(s *server) (traffic, error) {
		begin := time.Now()
		_, err := output("nbdcopy", s.uri(), "null:")
		return traffic{bytes: float64(o.size), seconds: time.Since(begin).Seconds()}, err
	}, false})
	return w
}

// parseLoader reads "bytes ios seconds mean_us p50_us p99_us".
func parseLoader(out []byte) (t traffic, err error) {
	f := strings.Fields(string(out))
	if len(f) != 6 {
		return t, fmt.Errorf("nbdload printed %q", out)
	}
	for i, p := range []*float64{&t.bytes, &t.ios, &t.seconds, nil, nil, &t.p99} {
		if p == nil {
			continue
		}
		if *p, err = strconv.ParseFloat(f[i], 64); err != nil {
			return t, err
		}
	}
	return t, nil
}

func parseFio(out []byte, read bool) (traffic, error) {
	type side struct {
		Bytes   float64 `json:"io_bytes"`
		IOs     float64 `json:"total_ios"`
		Runtime float64 `json:"runtime"` // ms
		Clat    struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var doc struct {
		Jobs []struct {
			Error       int
			Read, Write side
		}
	}
	// fio may print notes before the document.
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return traffic{}, fmt.Errorf("fio: %w", err)
	}
	if len(doc.Jobs) != 1 || doc.Jobs[0].Error != 0 {
		return traffic{}, fmt.Errorf("fio: %d jobs, error %d", len(doc.Jobs), doc.Jobs[0].Error)
	}
	x := doc.Jobs[0].Write
	if read {
		x = doc.Jobs[0].Read
	}
	return traffic{x.Bytes, x.IOs, x.Runtime / 1e3, x.Clat.Percentile["99.000000"] / 1e3}, nil
}

func runOnce(w workload, s *server) (sample, error) {
	server0, client0, all0, begin := s.cpu(), measure.ChildrenCPU(), measure.AllCPU(), time.Now()
	t, err := w.run(s)
	if err != nil {
		return sample{}, err
	}
	server := s.cpu() - server0
	wall := time.Since(begin).Seconds()
	foreign := max(0, measure.AllCPU()-all0-server-(measure.ChildrenCPU()-client0)) / wall
	if t.bytes == 0 || t.seconds == 0 {
		return sample{}, fmt.Errorf("no traffic")
	}
	return sample{
		GBps: t.bytes / t.seconds / 1e9, KIOPS: t.ios / t.seconds / 1e3,
		P99: t.p99, CPU: server / (t.bytes / (1 << 30)), Foreign: foreign, bytes: t.bytes,
	}, nil
}

func output(name string, args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := spawn.Start(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", filepath.Base(name), err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}
