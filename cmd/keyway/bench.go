package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyway/blkcrypto"
	"keyway/hctr2"
	"keyway/internal/cipher"
	"keyway/internal/measure"
	"keyway/internal/secret"
	"keyway/internal/size"
)

// benchTime is for all figures together; slow ciphers take some seconds more, and
// people wait a quarter of a minute.
const benchTime = 12 * time.Second

// benchEach bounds what one figure takes when there are few: more tells nothing
// new.
const benchEach = 100 * time.Millisecond

// A benchPlan is what to measure.
type benchPlan struct {
	subjects []measure.Subject
	cells    []benchCell
	requests []int         // bytes; through the stack
	cores    []int         // one and all; one where there are no more
	path     bool          // measure the stack too
	total    time.Duration // of the whole
	each     time.Duration // at most, of one figure
}

// A benchCell is a run of data units.
type benchCell struct {
	unit, units int // units of so many bytes
}

func (c benchCell) size() int { return c.unit * c.units }

type benchFlags struct {
	mode, impl, size, svg string
	time                  time.Duration
	chart, dm             bool
}

func (c *cli) bench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the ciphers and the data path on this machine",
		Long: `Measure every cipher in every implementation that this CPU has, on one core and
on all, beside what bounds it: the rounds of AES that a core does, and copying.
Then the data path: requests through a device, by the engine and by the fallback.

Runs of 1, 8 and 256 data units of 512 and 4096 bytes are encrypted and decrypted;
with --size only runs of that many bytes. It takes 15 seconds, less when few figures
are asked for, and nothing else should run meanwhile.

With --dm it measures what devices and keyslots are built for instead: for how long a
reload keeps requests waiting, how long an eviction takes, and what a keyslot costs a
request whose key is in it; and says which aims are met. That requests on many cores
share no more cache lines than they must is concluded from what they take longer
there; where the processor's counters can be read, perf c2c shows the lines.`,
		Example: `  keyway bench --mode AES-256-XTS
  keyway bench --chart --size 4K
  keyway bench --impl generic --time 5s --json
  keyway bench --svg ciphers.svg
  keyway bench --dm`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.chart && c.json {
				return misusef("bench: --chart and --json exclude each other")
			}
			if f.dm {
				return c.benchDM(cmd, f)
			}
			p, err := f.plan(cmd.Flags().Changed("time"))
			if err != nil {
				return err
			}
			svg, err := newWholeFile(f.svg)
			if err != nil {
				return fmt.Errorf("bench: --svg: %w", err)
			}
			defer svg.discard()
			r, err := p.run(cmd.Context())
			if err != nil {
				return err
			}
			warnOfNoise(r.Noise, r.Processors)
			if err := svg.write(r.svg()); err != nil {
				return fmt.Errorf("bench: --svg: %w", err)
			}
			switch {
			case c.json:
				return printJSON(r)
			case f.chart:
				return r.chart(os.Stdout)
			}
			return r.table(os.Stdout)
		},
	}
	cmd.Flags().StringVar(&f.mode, "mode", "", "only this encryption `mode`")
	cmd.Flags().StringVar(&f.impl, "impl", "", "only the `implementation` of this name")
	cmd.Flags().StringVar(&f.size, "size", "", "only runs and requests of this `size`, a multiple of 4K up to 16M")
	cmd.Flags().DurationVar(&f.time, "time", benchTime, "for about this `long` in all")
	cmd.Flags().BoolVar(&f.chart, "chart", false, "draw bars instead of the table")
	cmd.Flags().StringVar(&f.svg, "svg", "", "write a chart to this `file` as well")
	cmd.Flags().BoolVar(&f.dm, "dm", false, "measure reload, eviction and keyslots instead of ciphers")
	return c.withJSON(cmd)
}

func (f benchFlags) plan(timed bool) (*benchPlan, error) {
	modes := measure.Modes()
	if f.mode != "" {
		m, err := measure.ParseMode(f.mode)
		if err != nil {
			return nil, misusef("bench: --mode: %w", err)
		}
		if modes = []blkcrypto.Mode{m}; len(measure.Subjects(m)) == 0 {
			return nil, fmt.Errorf("bench: %v has no cipher in this version", m)
		}
	}
	p := &benchPlan{total: f.time, each: benchEach, requests: []int{4096, 65536}, cores: []int{1}}
	if timed {
		p.each = f.time // as asked for, however few figures share it
	}
	if err := f.checkTime(); err != nil {
		return nil, err
	}
	var has []string
	for _, m := range modes {
		all := measure.Subjects(m)
		if err := usable(all); err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		for _, s := range all {
			if !slices.Contains(has, s.Impl) {
				has = append(has, s.Impl)
			}
			if f.impl == "" || f.impl == s.Impl {
				p.subjects = append(p.subjects, s)
				p.path = p.path || s.Default
			}
		}
	}
	if len(p.subjects) == 0 {
		of := "any mode"
		if f.mode != "" {
			of = f.mode
		}
		return nil, misusef("bench: --impl: this CPU has no implementation %q of %s (it has %s)", f.impl, of, strings.Join(has, ", "))
	}
	for _, unit := range []int{512, 4096} {
		for _, units := range []int{1, 8, 256} {
			p.cells = append(p.cells, benchCell{unit, units})
		}
	}
	if f.size != "" {
		n, err := size.Parse(f.size)
		if err != nil || n < 4096 || n > 16<<20 || n%4096 != 0 {
			return nil, misusef("bench: --size %q is not a multiple of 4K up to 16M", f.size)
		}
		p.requests = []int{int(n)}
		p.cells = []benchCell{{512, int(n) / 512}, {4096, int(n) / 4096}}
	}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		p.cores = append(p.cores, n)
	}
	return p, nil
}

func (f benchFlags) checkTime() error {
	if f.time <= 0 || f.time > time.Hour {
		return misusef("bench: --time %v is not between 0 and 1h", f.time)
	}
	return nil
}

func warnOfNoise(noise float64, processors int) {
	if noise > 0.25 {
		warn("other processes kept %.1f of %d processors busy meanwhile: measure again when it is quiet", noise, processors)
	}
}

// usable returns why the product has none of these implementations of a mode: the
// environment asks for another one.
func usable(all []measure.Subject) error {
	if len(all) == 0 || slices.ContainsFunc(all, func(s measure.Subject) bool { return s.Default }) {
		return nil
	}
	key, err := secret.New(measure.KeySize(all[0].Mode))
	if err != nil {
		return err
	}
	defer key.Wipe()
	rand.Read(key.Bytes())
	if all[0].Mode == measure.HCTR2 {
		c, err := hctr2.New(key.Bytes(), 512)
		if err == nil {
			c.Wipe()
		}
		return err
	}
	c, err := cipher.New(all[0].Mode, 512, key.Bytes())
	if err == nil {
		c.Wipe()
	}
	return err
}

// benchReport is what was measured; --json prints it.
type benchReport struct {
	Machine    string        `json:"machine"`
	Version    string        `json:"version"`
	Processors int           `json:"processors"` // that were used
	Noise      float64       `json:"processors_used_by_others"`
	Rounds     []roundsRow   `json:"aes_rounds"`
	Copies     []copyRow     `json:"memcpy"`
	Ciphers    []cipherRow   `json:"ciphers"`
	Path       []pathRow     `json:"data_path"`
	Took       time.Duration `json:"took_ns"`

	plan *benchPlan
}

type roundsRow struct {
	Bits     int     `json:"vector_bits"`
	Cores    int     `json:"cores"`
	RoundsPS float64 `json:"rounds_per_second"` // of 16-byte blocks
}

type copyRow struct {
	Size    int     `json:"size"` // bytes
	Cores   int     `json:"cores"`
	BytesPS float64 `json:"bytes_per_second"`
}

type cipherRow struct {
	Mode      string  `json:"mode"`
	Impl      string  `json:"implementation"`
	Default   bool    `json:"default"`
	Operation string  `json:"operation"` // encrypt or decrypt
	DataUnit  int     `json:"data_unit"` // bytes
	Units     int     `json:"units"`     // in a call
	Cores     int     `json:"cores"`
	BytesPS   float64 `json:"bytes_per_second"`
	NsPerCall float64 `json:"ns_per_call"`
	// What bounds it, in bytes a second: AES rounds in the widest vectors, 0 for a
	// mode that AES does not bound, and copying a run of this size.
	LimitPS  float64 `json:"aes_limit_bytes_per_second,omitempty"`
	OfLimit  float64 `json:"of_aes_limit,omitempty"`
	CopyPS   float64 `json:"memcpy_bytes_per_second"`
	OfMemcpy float64 `json:"of_memcpy"`
}

type pathRow struct {
	Mode      string  `json:"mode"`
	Operation string  `json:"operation"` // read or write
	By        string  `json:"by"`        // engine or fallback
	DataUnit  int     `json:"data_unit"`
	Size      int     `json:"size"`
	BytesPS   float64 `json:"bytes_per_second"`
	NsPerReq  float64 `json:"ns_per_request"`
}

// A wholeFile appears when all of it is written. With no path it is nothing.
type wholeFile struct {
	path string
	tmp  *os.File
}

// newWholeFile finds out before the work whether the file can be had.
func newWholeFile(path string) (*wholeFile, error) {
	w := &wholeFile{path: path}
	if path == "" {
		return w, nil
	}
	if i, err := os.Stat(path); err == nil && !i.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is there and not a regular file", path)
	}
	var err error
	if w.tmp, err = os.CreateTemp(filepath.Dir(path), ".keyway-*"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Unwrap(err))
	}
	return w, nil
}

func (w *wholeFile) write(text string) error {
	if w.tmp == nil {
		return nil
	}
	_, err := w.tmp.WriteString(text)
	if err = errors.Join(err, w.tmp.Chmod(0o644), w.tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(w.tmp.Name(), w.path); err != nil {
		return err
	}
	w.tmp = nil
	return nil
}

func (w *wholeFile) discard() {
	if w.tmp != nil {
		w.tmp.Close()
		os.Remove(w.tmp.Name())
	}
}

// benchProgress says on a terminal how far it is.
type benchProgress struct {
	on          bool
	done, total int
	said        time.Time
}

func (p *benchProgress) step(ctx context.Context, what string) error {
	p.done++
	if p.on && time.Since(p.said) > 100*time.Millisecond {
		p.said = time.Now()
		fmt.Fprintf(os.Stderr, "\r%3d %%  %-60.60s", 100*min(p.done, p.total)/p.total, what)
	}
	return context.Cause(ctx)
}

func (p *benchProgress) end() {
	if p.on {
		fmt.Fprintf(os.Stderr, "\r%70s\r", "")
	}
}
