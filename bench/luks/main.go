// Command luks measures what it takes to unlock LUKS2 volumes with a passphrase:
// keyway's library beside cryptsetup, on headers that cryptsetup made, and what of
// it is the derivation of the key alone, beside that of other Go packages. It prints
// a report in Markdown (or JSON). It fails only when something cannot be run: what
// matters is the ratio of contenders measured in the same run, by turns.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"keyway/internal/measure"
)

type options struct {
	rounds   int
	cases    string // comma list of words; empty: all
	json     bool
	progress bool
}

func main() {
	var o options
	var asWorker string
	flag.IntVar(&o.rounds, "rounds", 5, "runs of each contender in each case; medians are reported")
	flag.StringVar(&o.cases, "cases", "", "only cases whose name contains one of these `words` (comma)")
	flag.BoolVar(&o.json, "json", false, "print every sample as JSON instead of the report")
	flag.BoolVar(&o.progress, "progress", measure.Terminal(os.Stderr), "say on standard error what is being measured")
	flag.StringVar(&asWorker, "worker", "", "be a contender, whose `name` this is, for the volume that is named next; for the program itself")
	flag.Parse()
	if asWorker != "" {
		if err := work(asWorker, flag.Arg(0), flag.Arg(1)); err != nil {
			fmt.Fprintln(os.Stderr, "luks worker: error:", err)
			os.Exit(1)
		}
		return
	}
	if flag.NArg() > 0 || o.rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "luks: error:", err)
		os.Exit(1)
	}
}

// A volume is one case.
type volume struct {
	name   string
	format []string // arguments of cryptsetup luksFormat
}

// Iterations are for about a second on a machine of 2022.
func volumes() (all []volume) {
	argon2 := func(kind string, memory, passes, lanes int) {
		name := fmt.Sprintf("%s, %d MiB, %d passes, %d lane", kind, memory, passes, lanes)
		if lanes > 1 {
			name += "s"
		}
		all = append(all, volume{name, []string{
			"--pbkdf", kind, "--pbkdf-memory", fmt.Sprint(memory << 10), "--pbkdf-force-iterations", fmt.Sprint(passes), "--pbkdf-parallel", fmt.Sprint(lanes),
		}})
	}
	for _, memory := range []int{64, 1024} {
		for _, lanes := range []int{1, 4} {
			argon2("argon2id", memory, map[int]int{64: 12, 1024: 4}[memory], lanes)
		}
	}
	argon2("argon2i", 64, 12, 1)
	for _, hash := range []string{"sha256", "sha512"} {
		n := map[string]int{"sha256": 2000000, "sha512": 1000000}[hash]
		all = append(all, volume{fmt.Sprintf("pbkdf2, %s, %d iterations", hash, n), []string{
			"--pbkdf", "pbkdf2", "--hash", hash, "--pbkdf-force-iterations", fmt.Sprint(n),
		}})
	}
	return all
}

func (o options) chosen(name string) bool {
	return o.cases == "" || slices.ContainsFunc(strings.Split(o.cases, ","), func(w string) bool { return strings.Contains(name, w) })
}

func (o options) say(format string, a ...any) {
	if o.progress {
		fmt.Fprintf(os.Stderr, "\r%-78.78s\r", fmt.Sprintf(format, a...))
	}
}

// The contenders, in order.
const (
	cryptsetup = "cryptsetup open --test-passphrase"
	ours       = "keyway: unlock"
	derivation = "keyway: derivation alone"
	library    = "Go library: derivation alone"
)

var contenders = []string{cryptsetup, ours, derivation, library}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "kwluks")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("a passphrase of a benchmark"), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	version, err := exec.CommandContext(ctx, "cryptsetup", "--version").Output()
	if err != nil {
		return fmt.Errorf("cryptsetup: %w", err)
	}
	r := &report{Machine: measure.Machine(), Started: time.Now(), Rounds: o.rounds, Peer: strings.TrimSpace(string(version))}
	noise := measure.NewNoise()
	for i, v := range volumes() {
		if !o.chosen(v.name) {
			continue
		}
		o.say("formatting: %s", v.name)
		image := filepath.Join(dir, fmt.Sprint("image", i))
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(image, 32<<20); err != nil {
			return err
		}
		format := append([]string{"luksFormat", "-q", "--type", "luks2", "--key-file", key}, v.format...)
		if _, err := timed(ctx, "cryptsetup", append(format, image)...); err != nil {
			return err
		}
		r.Cases = append(r.Cases, v.name)
		for round := range o.rounds {
			// In any order: who comes first after a long pause may have to wait for the
			// memory, where a hypervisor has taken it away.
			for _, j := range rand.Perm(len(contenders)) {
				c := contenders[j]
				o.say("%s, round %d of %d: %s", v.name, round+1, o.rounds, c)
				prog, args := self, []string{"-worker", c, image, key}
				if c == cryptsetup {
					prog, args = "cryptsetup", []string{"open", "--test-passphrase", "--key-file", key, image}
				}
				s, err := timed(ctx, prog, args...)
				if err != nil {
					return err
				}
				s.Case, s.Contender, s.Round = v.name, c, round
				r.Samples = append(r.Samples, s)
			}
		}
	}
	if len(r.Cases) == 0 {
		return fmt.Errorf("no case has a name with one of %q", o.cases)
	}
	r.Noise = noise.Processors()
	r.Aims = r.aims()
	o.say("")
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	r.markdown(os.Stdout)
	return nil
}

// timed runs a program to its end.
func timed(ctx context.Context, prog string, args ...string) (sample, error) {
	cmd := exec.CommandContext(ctx, prog, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	began := time.Now()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return sample{}, errors.New("interrupted")
		}
		return sample{}, fmt.Errorf("%s %s: %w\n%s", filepath.Base(prog), args[0], err, errs.String())
	}
	took := time.Since(began)
	p := cmd.ProcessState
	return sample{Wall: took.Seconds(), CPU: (p.UserTime() + p.SystemTime()).Seconds()}, nil
}
