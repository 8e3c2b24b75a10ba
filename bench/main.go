// Command bench measures keyway's NBD export beside other NBD servers and prints
// a report in Markdown (or JSON). It is a report, not a test: it fails only when
// something cannot be run, and every figure that matters is a ratio of two servers
// measured in the same run, by turns, as medians.
//
// It starts all servers itself, on memory-backed files, and they end with it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyway/internal/measure"
)

type options struct {
	keyway   string        // binary under test
	dir      string        // where disks and sockets lie
	size     int64         // bytes of each disk
	rounds   int           // runs of each workload on each server
	time     time.Duration // length of one run
	servers  string        // comma list of substrings; empty: all
	loads    string
	env      string
	disks    bool // LUKS2 disks beside tables, instead of servers
	json     bool
	progress bool
	noise    float64 // share of a processor
}

// attempts bounds how often a noisy run is repeated; the quietest counts.
const attempts = 3

func main() {
	var o options
	var mib int64
	flag.StringVar(&o.keyway, "keyway", "bin/keyway", "`binary` to measure")
	flag.StringVar(&o.dir, "dir", "", "`directory` for disks and sockets (default: a new one in /dev/shm)")
	flag.Int64Var(&mib, "size", 512, "size of each disk in `MiB`; about ten of them are made")
	flag.IntVar(&o.rounds, "rounds", 3, "runs of each workload on each server; medians are reported")
	flag.DurationVar(&o.time, "time", time.Second, "length of one run")
	flag.StringVar(&o.servers, "servers", "", "only servers whose name contains one of these `words` (comma)")
	flag.StringVar(&o.loads, "loads", "", "only workloads whose name contains one of these `words` (comma)")
	flag.Float64Var(&o.noise, "noise", 0.10, "repeat a run, twice at most, during which other processes used more than this `share` of a processor")
	flag.BoolVar(&o.disks, "luks", false, "measure LUKS2 disks beside crypt tables instead, in many short rounds (default 25 of 0.1s)")
	flag.StringVar(&o.env, "env", "", "with -luks: `NAME=VALUE` for the environment of the table's second daemon, to see what it costs")
	flag.BoolVar(&o.json, "json", false, "print every sample as JSON instead of the report")
	flag.BoolVar(&o.progress, "progress", measure.Terminal(os.Stderr), "say on standard error what is being measured")
	flag.Parse()
	if o.disks {
		given := map[string]bool{}
		flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["rounds"] {
			o.rounds = 25
		}
		if !given["time"] {
			o.time = 100 * time.Millisecond
		}
		if !given["size"] {
			mib = 256 // a copy for each
		}
	}
	if flag.NArg() > 0 || o.rounds < 1 || mib < 16 {
		flag.Usage()
		os.Exit(2)
	}
	o.size = mib << 20
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	if o.dir == "" {
		base := "/dev/shm"
		if _, err := os.Stat(base); err != nil {
			base = ""
		}
		if o.dir, err = os.MkdirTemp(base, "kwbench"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	if o.keyway, err = filepath.Abs(o.keyway); err != nil {
		return err
	}
	tools := []string{"nbdkit", "qemu-nbd", "qemu-img", "nbdcopy", "fio", "cc"}
	if o.disks {
		tools = []string{"nbdcopy", "cc"}
	}
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return fmt.Errorf("%s is not installed; scripts/install-tools installs what the benchmark needs", t)
		}
	}
	l, err := buildLoader(o.dir)
	if err != nil {
		return err
	}
	if o.disks {
		return runDisks(o, slices.DeleteFunc(diskLoads(o, l), func(w workload) bool { return !chosen(o.loads, w.name) }))
	}
	servers, err := start(o)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	loads := slices.DeleteFunc(workloads(o, l), func(w workload) bool { return !chosen(o.loads, w.name) })
	r := report{Machine: measure.Machine(), Size: o.size, Rounds: o.rounds, Seconds: o.time.Seconds(), Started: time.Now().UTC()}
	for _, s := range servers {
		r.Servers = append(r.Servers, s.name)
	}
	for _, w := range loads {
		r.Loads = append(r.Loads, w.name)
		for round := range o.rounds {
			// By turns, from another start each time, so that a slow moment of the
			// machine does not always meet the same server.
			for i := range servers {
				s := servers[(i+round)%len(servers)]
				if o.progress {
					fmt.Fprintf(os.Stderr, "\r%-24s round %d/%d  %-32s", w.name, round+1, o.rounds, s.name)
				}
				var m sample
				for n := range attempts {
					again, err := runOnce(w, s)
					if err != nil {
						return errors.Join(fmt.Errorf("%s on %s: %w", w.name, s.name, err), s.diagnosis())
					}
					if n == 0 || again.Foreign < m.Foreign {
						m = again
					}
					if m.Foreign <= o.noise {
						break
					}
				}
				m.Server, m.Load, m.Round = s.name, w.name, round
				r.Samples = append(r.Samples, m)
			}
		}
	}
	if o.progress {
		fmt.Fprintf(os.Stderr, "\r%80s\r", "")
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	return r.markdown(os.Stdout)
}

// chosen tells whether name contains one of the comma-separated words.
func chosen(words, name string) bool {
	if words == "" {
		return true
	}
	for w := range strings.SplitSeq(words, ",") {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}
