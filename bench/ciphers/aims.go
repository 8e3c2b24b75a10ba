package main

import (
	"fmt"
	"math"
	"slices"

	"keyway/internal/measure"
)

// aims compares the medians with what the ciphers are built for, as far as their
// contenders were measured. Where an aim is for several runs the worst one counts.
func (r *report) aims() (out []measure.Aim) {
	ops := []string{"encrypt", "decrypt"}
	long := runs[1:] // 8 data units and more

	// against adds the aim that ours does want times what theirs names.
	against := func(mode, what, ours, op string, unit int, runs []int, want float64, theirs func(units int) string) {
		worst, name := math.Inf(1), ""
		for _, n := range runs {
			by := theirs(n)
			x := r.ratio(mode, ours, by, op, unit, n)
			if x == 0 {
				return
			}
			if x < worst {
				worst, name = x, by
			}
		}
		where := fmt.Sprintf("%s, %d-byte units, runs of %s", op, unit, runsText(runs))
		out = append(out, measure.AtLeast(fmt.Sprintf("%s (%s) over %s", mode, ours, fmt.Sprintf(what, name)), where, worst, want))
	}
	best := func(mode, op string, unit int) func(int) string {
		return func(n int) string { return r.bestPeer(mode, op, unit, n) }
	}
	named := func(name string) func(int) string { return func(int) string { return name } }

	for _, mode := range []string{"AES-256-XTS", "AES-128-XTS"} {
		us := r.used(mode)
		for _, op := range ops {
			against(mode, "the best peer (%s)", us, op, 4096, long, 1.15, best(mode, op, 4096))
			against(mode, "the best peer (%s)", us, op, 512, long, 2, best(mode, op, 512))
			against(mode, "the best peer (%s)", us, op, 4096, runs[:1], 1, best(mode, op, 4096))
			for _, unit := range []int{512, 4096} {
				against(mode, "the limit by %s", us, op, unit, long, 0.85, named(aesRounds))
			}
		}
		for _, op := range ops {
			for _, unit := range []int{512, 4096} {
				against(mode, "%s", "aesni", op, unit, runs, 1, named(openssl))
			}
		}
		for _, op := range ops {
			for _, theirs := range []string{xcrypto, xcrypto + portable} {
				against(mode, "%s", "generic", op, 4096, runs, 2, named(theirs))
			}
		}
	}
	const essiv = "AES-128-CBC-ESSIV"
	for _, unit := range []int{512, 4096} {
		against(essiv, "CBC of %s", r.used(essiv), "decrypt", unit, runs, 1, named(openssl))
		against(essiv, "CBC of %s", r.used(essiv), "encrypt", unit, long, 3, named(openssl))
	}
	for _, x := range []struct{ mode, peer string }{{"Adiantum", "lukechampine"}, {"SM4-XTS", "gmsm"}} {
		for _, op := range ops {
			for _, unit := range []int{512, 4096} {
				against(x.mode, "%s", r.used(x.mode), op, unit, runs, 2, named(x.peer))
			}
		}
	}
	return append(out, r.keyAims()...)
}

// keyAims are those of the set-up of a key and of allocations.
func (r *report) keyAims() (out []measure.Aim) {
	allocs := 0.0
	for _, s := range r.Setups {
		allocs = max(allocs, s.Allocs)
		aes := slices.Contains([]string{"AES-256-XTS", "AES-128-XTS", "AES-128-CBC-ESSIV"}, s.Mode)
		if aes && s.Impl == r.used(s.Mode) {
			out = append(out, measure.Below(fmt.Sprintf("%s (%s): set-up of a key, µs", s.Mode, s.Impl), "", s.New/1e3, 1))
		}
	}
	if len(r.Setups) > 0 {
		out = append(out, measure.Below("allocations a call, worst implementation", "", allocs, 1))
	}
	return out
}

func runsText(runs []int) string {
	if len(runs) == 1 {
		return fmt.Sprint(runs[0])
	}
	return fmt.Sprintf("%d to %d", runs[0], runs[len(runs)-1])
}
