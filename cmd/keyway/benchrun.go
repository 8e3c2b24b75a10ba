package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/cipher"
	"keyway/internal/measure"
	"keyway/internal/roofline"
)

// benchPasses is how often every figure is measured, from the first to the last
// and then again, so that a slow moment of the machine does not hit one of them
// alone; the median counts.
const benchPasses = 3

// A benchFigure is measured once in each pass.
type benchFigure struct {
	what string
	run  func(ctx context.Context, d time.Duration) (float64, error)
	v    []float64
	put  func(median float64)
}

func (p *benchPlan) run(ctx context.Context) (*benchReport, error) {
	r := &benchReport{Machine: measure.Machine(), Version: programVersion(), Processors: runtime.GOMAXPROCS(0), plan: p,
		Rounds: []roundsRow{}, Copies: []copyRow{}, Ciphers: []cipherRow{}, Path: []pathRow{}}
	largest := 0
	for _, c := range p.cells {
		largest = max(largest, c.size())
	}
	rig := measure.NewRig(largest, p.cores[len(p.cores)-1])
	figures := append(r.limits(rig), r.ciphers(rig)...)
	stack, err := r.path(ctx)
	if err != nil {
		return nil, err
	}
	defer stack.close()
	figures = append(figures, stack.figures...)

	passes := benchPasses
	each := min(p.total/time.Duration(len(figures)), p.each) / time.Duration(passes)
	if each < 500*time.Microsecond {
		passes, each = 1, each*benchPasses // several calls at least, rather than several passes
	}
	progress := &benchProgress{on: measure.Terminal(os.Stderr), total: passes * len(figures)}
	defer progress.end()
	noise, begin := measure.NewNoise(), time.Now()
	for range passes {
		for i := range figures {
			f := &figures[i]
			if err := progress.step(ctx, f.what); err != nil {
				return nil, err
			}
			v, err := f.run(ctx, each)
			if err != nil {
				return nil, fmt.Errorf("bench: %s: %w", f.what, err)
			}
			f.v = append(f.v, v)
		}
	}
	r.Noise, r.Took = noise.Processors(), time.Since(begin)
	for _, f := range figures {
		f.put(measure.Median(f.v))
	}
	r.compare()
	return r, context.Cause(ctx)
}

// limits are what bounds a cipher.
func (r *benchReport) limits(rig *measure.Rig) (all []benchFigure) {
	for _, cores := range r.plan.cores {
		for _, bits := range rig.Widths() {
			all = append(all, benchFigure{
				what: fmt.Sprintf("AES rounds, %d-bit vectors", bits),
				run: func(ctx context.Context, d time.Duration) (float64, error) {
					return rig.Rounds(ctx, bits, cores, d), nil
				},
				put: func(v float64) { r.Rounds = append(r.Rounds, roundsRow{bits, cores, v}) },
			})
		}
		seen := map[int]bool{}
		for _, c := range r.plan.cells {
			n := c.size()
			if seen[n] {
				continue
			}
			seen[n] = true
			all = append(all, benchFigure{
				what: "memcpy",
				run: func(ctx context.Context, d time.Duration) (float64, error) {
					return rig.Copy(ctx, n, cores, d), nil
				},
				put: func(v float64) { r.Copies = append(r.Copies, copyRow{n, cores, v}) },
			})
		}
	}
	return all
}

func (r *benchReport) ciphers(rig *measure.Rig) (all []benchFigure) {
	for _, s := range r.plan.subjects {
		for _, cores := range r.plan.cores {
			for _, op := range []string{"encrypt", "decrypt"} {
				for _, c := range r.plan.cells {
					all = append(all, benchFigure{
						what: fmt.Sprintf("%s %s: %s %d×%d on %d", measure.Name(s.Mode), s.Impl, op, c.units, c.unit, cores),
						run: func(ctx context.Context, d time.Duration) (float64, error) {
							ci, err := s.Open(c.unit)
							if err != nil {
								return 0, err
							}
							defer ci.Wipe()
							return rig.Crypt(ctx, ci, op == "decrypt", c.size(), cores, d), nil
						},
						put: func(v float64) {
							r.Ciphers = append(r.Ciphers, cipherRow{
								Mode: measure.Name(s.Mode), Impl: s.Impl, Default: s.Default, Operation: op, DataUnit: c.unit, Units: c.units,
								Cores: cores, BytesPS: v, NsPerCall: float64(c.size()*cores) / v * 1e9,
							})
						},
					})
				}
			}
		}
	}
	return all
}

// path measures what of the stack the plan asks for, in every mode whose default
// implementation is measured: the stack has no other.
func (r *benchReport) path(ctx context.Context) (*benchStack, error) {
	s := &benchStack{}
	if !r.plan.path {
		return s, nil
	}
	for _, sub := range r.plan.subjects {
		if !sub.Default || !cipher.Supported(sub.Mode) {
			continue
		}
		if err := s.add(ctx, r, sub.Mode); err != nil {
			s.close()
			return nil, fmt.Errorf("bench: %v: %w", sub.Mode, err)
		}
	}
	return s, nil
}

// compare sets the limits beside the ciphers.
func (r *benchReport) compare() {
	for i := range r.Ciphers {
		c := &r.Ciphers[i]
		m, _ := measure.ParseMode(c.Mode)
		if c.LimitPS = r.limit(m, c.Cores); c.LimitPS > 0 {
			c.OfLimit = c.BytesPS / c.LimitPS
		}
		if c.CopyPS = r.copied(c.DataUnit*c.Units, c.Cores); c.CopyPS > 0 {
			c.OfMemcpy = c.BytesPS / c.CopyPS
		}
	}
}

// limit is what AES rounds allow a mode in bytes a second; 0 if they do not bound
// it or this CPU has no instructions for them.
func (r *benchReport) limit(m blkcrypto.Mode, cores int) (best float64) {
	n := measure.AESRounds(m)
	for _, x := range r.Rounds {
		if x.Cores == cores && n > 0 {
			best = max(best, roofline.BytesPerSecond(x.RoundsPS, n))
		}
	}
	return best
}

func (r *benchReport) copied(size, cores int) float64 {
	for _, x := range r.Copies {
		if x.Cores == cores && x.Size == size {
			return x.BytesPS
		}
	}
	return 0
}

// figure finds what was measured; nil if nothing was.
func (r *benchReport) figure(s measure.Subject, op string, c benchCell, cores int) *cipherRow {
	for i := range r.Ciphers {
		x := &r.Ciphers[i]
		if x.Mode == measure.Name(s.Mode) && x.Impl == s.Impl && x.Operation == op && x.DataUnit == c.unit && x.Units == c.units && x.Cores == cores {
			return x
		}
	}
	return nil
}

// modes are the subjects by mode, in order.
func (p *benchPlan) modes() (all [][]measure.Subject) {
	for i, s := range p.subjects {
		if i == 0 || s.Mode != p.subjects[i-1].Mode {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], s)
	}
	return all
}
