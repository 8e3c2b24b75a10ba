// Command ciphers measures keyway's data-unit ciphers beside other people's and
// prints a report in Markdown (or JSON). Like the benchmark of the NBD export it
// fails only when something cannot be run: every figure that matters is a ratio of
// two contenders measured in the same run, by turns, as medians.
//
// With -parallel it measures instead whether one request should be split over
// several cores.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/measure"
)

type options struct {
	rounds   int           // of each job with each contender
	time     time.Duration // of each
	modes    string        // comma list of words; empty: all
	parallel bool
	json     bool
	progress bool
}

// Names that the aims refer to.
const (
	aesRounds = "AES rounds"
	memcpy    = "memcpy"
	openssl   = "OpenSSL"
	xcrypto   = "x/crypto/xts"
	portable  = "(portable)" // after the name of a Go peer built without assembly
)

const largest = 256 * 4096 // bytes of a job at most

func main() {
	var o options
	var asWorker bool
	flag.IntVar(&o.rounds, "rounds", 11, "runs of each job with each contender; medians are reported")
	flag.DurationVar(&o.time, "time", 10*time.Millisecond, "length of one run")
	flag.StringVar(&o.modes, "modes", "", "only modes whose name contains one of these `words` (comma)")
	flag.BoolVar(&o.parallel, "parallel", false, "measure the splitting of a request over cores instead")
	flag.BoolVar(&o.json, "json", false, "print every sample as JSON instead of the report")
	flag.BoolVar(&o.progress, "progress", measure.Terminal(os.Stderr), "say on standard error what is being measured")
	flag.BoolVar(&asWorker, "worker", false, "serve Go peers on standard input; for the program itself")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.time <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case asWorker:
		err = serveWorker(os.Stdin, os.Stdout)
	case o.parallel:
		err = runParallel(ctx, o)
	default:
		err = runPeers(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ciphers: error:", err)
		os.Exit(1)
	}
}

// chosenModes are those with a cipher of ours. AES-192-XTS is left out: no peer
// has it.
func (o options) chosenModes() (modes []blkcrypto.Mode, err error) {
	for _, m := range blkcrypto.Modes() {
		if m != blkcrypto.AES192XTS && len(measure.Subjects(m)) > 0 && o.chosen(m.String()) {
			modes = append(modes, m)
		}
	}
	if len(modes) == 0 {
		return nil, fmt.Errorf("no mode has a name with one of %q", o.modes)
	}
	return modes, nil
}

func (o options) chosen(name string) bool {
	return o.modes == "" || slices.ContainsFunc(strings.Split(o.modes, ","), func(w string) bool { return strings.Contains(name, w) })
}

func (o options) say(format string, a ...any) {
	if o.progress {
		fmt.Fprintf(os.Stderr, "\r%-78.78s\r", fmt.Sprintf(format, a...))
	}
}

func runPeers(ctx context.Context, o options) (err error) {
	modes, err := o.chosenModes()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kwciphers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var workers []*worker
	var pids []int
	for _, build := range []func(string) (*worker, error){buildPeers, buildPortable} {
		o.say("compiling peers")
		w, err := build(dir)
		if err != nil {
			return err
		}
		defer w.stop()
		workers, pids = append(workers, w), append(pids, w.cmd.Process.Pid)
	}
	r := &report{Machine: measure.Machine(), Started: time.Now().UTC(), Rounds: o.rounds, Seconds: o.time.Seconds()}
	for _, w := range workers {
		for _, f := range w.offers {
			if v := f.peer + " " + f.version; f.version != "portable" && !slices.Contains(r.Peers, v) {
				r.Peers = append(r.Peers, v)
			}
		}
	}
	r.Peers = append(r.Peers, goVersions()...)
	noise := measure.NewNoise(pids...)
	if r.Setups, err = setups(modes, o.rounds); err != nil {
		return err
	}
	rig := measure.NewRig(largest, 1)
	for _, m := range modes {
		all := contenders(rig, m, workers)
		if err := agree(all, m); err != nil {
			return err
		}
		for _, c := range all {
			r.Contenders = append(r.Contenders, entry{m.String(), c.name, c.kind, c.used})
		}
		for _, j := range jobs(m) {
			for round := range o.rounds {
				// By turns, from another start each time, so that a slow moment of the
				// machine does not always meet the same contender.
				for i := range all {
					c := all[(i+round)%len(all)]
					o.say("%v %s %d×%d  round %d/%d  %s", m, j.op(), j.units, j.unit, round+1, o.rounds, c.name)
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					v, err := c.rate(ctx, j, o.time)
					if err != nil {
						return fmt.Errorf("%v by %s: %w", m, c.name, err)
					}
					r.Samples = append(r.Samples, sample{m.String(), c.name, j.op(), j.unit, j.units, round, v})
				}
			}
		}
	}
	r.Noise = noise.Processors()
	r.Aims = r.aims()
	o.say("")
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	return r.markdown(os.Stdout)
}

// jobs are short and long data units and runs, in both directions.
func jobs(m blkcrypto.Mode) (all []job) {
	for _, decrypt := range []bool{false, true} {
		for _, unit := range []int{512, 4096} {
			for _, units := range runs {
				all = append(all, job{m, decrypt, unit, units})
			}
		}
	}
	return all
}

// runs are data units in a call.
var runs = []int{1, 8, 256}
