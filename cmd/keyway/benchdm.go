package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"keyway/blkcrypto"
	"keyway/internal/measure"
	"keyway/internal/secret"
)

// A dmReport is what bench --dm measured; --json prints it.
type dmReport struct {
	Machine    string        `json:"machine"`
	Version    string        `json:"version"`
	Processors int           `json:"processors"` // that were used
	Noise      float64       `json:"processors_used_by_others"`
	Reloads    []reloadRow   `json:"reloads"`
	Evictions  []evictionRow `json:"evictions"`
	Hits       []hitRow      `json:"keyslot_hits"`
	Shared     []sharedRow   `json:"shared_cache_lines,omitempty"` // none on one core
	Aims       []measure.Aim `json:"aims"`
	Took       time.Duration `json:"took_ns"`
}

// Times are of many durations, in nanoseconds. Most is what 99 of 100 kept below:
// the worst of thousands tells of other processes.
type times struct {
	Median float64 `json:"median_ns"`
	Most   float64 `json:"p99_ns"`
	Worst  float64 `json:"worst_ns"`
}

// timesOf sorts v, nanoseconds.
func timesOf(v []float64) times {
	if len(v) == 0 {
		return times{}
	}
	median := measure.Median(v) // it sorts v
	return times{median, v[(len(v)-1)*99/100], v[len(v)-1]}
}

// What is aimed at.
const (
	aimBeyond  = 1e6 // ns: a reload pauses for twice the slowest request in flight and this
	aimEvict   = 1e6 // ns
	aimHit     = 40  // ns
	aimWritten = 2   // times that one shared cache line is written in a request: fewer
)

// benchDM is bench --dm.
func (c *cli) benchDM(cmd *cobra.Command, f benchFlags) error {
	for _, name := range []string{"mode", "impl", "size", "chart", "svg"} {
		if cmd.Flags().Changed(name) {
			return misusef("bench: --%s is about ciphers, which --dm does not measure", name)
		}
	}
	if err := f.checkTime(); err != nil {
		return err
	}
	r, err := runDM(cmd.Context(), f.time)
	if err != nil {
		return err
	}
	warnOfNoise(r.Noise, r.Processors)
	if c.json {
		return printJSON(r)
	}
	return r.table(os.Stdout)
}

// runDM measures for about d.
func runDM(ctx context.Context, d time.Duration) (*dmReport, error) {
	r := &dmReport{Machine: measure.Machine(), Version: programVersion(), Processors: runtime.GOMAXPROCS(0)}
	noise, begin := measure.NewNoise(), time.Now()
	progress := &benchProgress{on: measure.Terminal(os.Stderr), total: 6}
	defer progress.end()
	for _, f := range []struct {
		what string
		run  func(context.Context, time.Duration) error
		of   time.Duration
	}{
		{"reload, device that takes 5 ms", func(ctx context.Context, d time.Duration) error { return r.reload(ctx, slowLeaf, d) }, d * 4 / 10},
		{"reload, device in memory", func(ctx context.Context, d time.Duration) error { return r.reload(ctx, 0, d) }, d * 2 / 10},
		{"eviction, a key in one engine", func(ctx context.Context, d time.Duration) error { return r.evict(ctx, false, d) }, d / 10},
		{"eviction, a key in every engine", func(ctx context.Context, d time.Duration) error { return r.evict(ctx, true, d) }, d / 10},
		{"keyslot hits", r.hits, d * 2 / 10},
	} {
		if err := progress.step(ctx, f.what); err != nil {
			return nil, err
		}
		if err := f.run(ctx, f.of); err != nil {
			return nil, fmt.Errorf("bench: %s: %w", f.what, err)
		}
	}
	r.Noise, r.Took = noise.Processors(), time.Since(begin)
	r.judge()
	return r, context.Cause(ctx)
}

// judge sets the aims beside the figures.
func (r *dmReport) judge() {
	atMost := func(what, where string, have, want float64) measure.Aim {
		return measure.Aim{What: what, Case: where, Wanted: fmt.Sprintf("≤ %g", want), Measured: have, Met: have <= want}
	}
	for _, x := range r.Reloads {
		what := "reload: pause, of twice the slowest in flight and 1 ms"
		where := fmt.Sprintf("%d outstanding, device %s, worst of %d reloads", x.Outstanding, x.Device, x.Reloads)
		r.Aims = append(r.Aims, atMost(what, where, x.OfAllowed.Worst, 1))
	}
	for _, x := range r.Evictions {
		where := fmt.Sprintf("in %d of %d engines, %d keys", x.Holders, x.Engines, x.Keys)
		r.Aims = append(r.Aims,
			measure.Below("eviction of an idle key, ms", where+", median", x.Median/1e6, aimEvict/1e6),
			measure.Below("eviction of an idle key, ms", fmt.Sprintf("%s, 99 of 100 of %d", where, x.Evictions), x.Most/1e6, aimEvict/1e6))
	}
	for _, x := range r.Hits {
		if x.Cores == 1 && x.What == hitSlot {
			r.Aims = append(r.Aims, atMost("keyslot hit, ns a request", "one core", x.NsPerReq, aimHit))
		}
	}
	for _, x := range r.Shared {
		if x.Written != nil {
			r.Aims = append(r.Aims, measure.Below("writes to shared cache lines beyond the slot's count",
				fmt.Sprintf("%s, %d cores, a key each", x.What, x.Cores), *x.Written, aimWritten))
		}
	}
}

// dmKey makes a key of random bytes that requests of the bench use.
func dmKey(name string) (*blkcrypto.Key, error) {
	c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}
	b, err := secret.New(c.Mode.KeySize())
	if err != nil {
		return nil, err
	}
	rand.Read(b.Bytes())
	return blkcrypto.NewKey(name, c, b)
}
