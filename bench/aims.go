package main

import (
	"slices"
	"strings"

	"keyway/internal/measure"
)

// aims compares the medians with the aims, as far as their servers were measured.
func (r *report) aims() (out []measure.Aim) {
	atLeast := func(what, load, ours, theirs string, want float64) {
		f, _ := speed(load)
		a, b := r.median(ours, load, f), r.median(theirs, load, f)
		if a == 0 || b == 0 {
			return
		}
		out = append(out, measure.AtLeast(what, load, a/b, want))
	}
	for _, l := range r.Loads {
		if strings.HasPrefix(l, "fio") || strings.HasPrefix(l, "nbdcopy") {
			continue // the client is half of the cost there
		}
		want := 4.0
		switch {
		case strings.HasSuffix(l, "qd1"):
			want = 1
		case strings.HasPrefix(l, "256K"):
			want = 1.3
		}
		atLeast("plain memory over nbdkit memory", l, keywayMemory, nbdkitMemory, want)
	}
	for _, l := range r.Loads {
		atLeast("encrypted memory over plain nbdkit memory", l, keywayMemEnc, nbdkitMemory, 1)
	}
	for _, l := range r.Loads {
		if strings.HasPrefix(l, "4K") {
			atLeast("encrypted over our plain", l, keywayMemEnc, keywayMemory, 0.75)
		}
	}
	for _, l := range r.Loads {
		if strings.HasPrefix(l, "256K") {
			atLeast("encrypted memory over nbdkit luks", l, keywayMemEnc, nbdkitLUKS, 4)
			atLeast("encrypted memory over qemu-nbd luks", l, keywayMemEnc, qemuLUKS, 8)
			atLeast("encrypted file over nbdkit luks", l, keywayFileEnc, nbdkitLUKS, 1)
			atLeast("encrypted file over qemu-nbd luks", l, keywayFileEnc, qemuLUKS, 1)
		}
	}
	// Processor time: ours against the cheapest peer of each row.
	for _, ours := range []string{keywayMemory, keywayMemEnc} {
		for _, l := range r.Loads {
			a := r.median(ours, l, cpuGiB)
			var peers []float64
			for _, s := range []string{nbdkitMemory, nbdkitFile, nbdkitLUKS, qemuRaw, qemuLUKS} {
				if v := r.median(s, l, cpuGiB); v > 0 {
					peers = append(peers, v)
				}
			}
			if a == 0 || len(peers) == 0 {
				continue
			}
			best := slices.Min(peers)
			out = append(out, measure.Below("processor time of "+ours+" over the cheapest peer", l, a/best, 1))
		}
	}
	return out
}
