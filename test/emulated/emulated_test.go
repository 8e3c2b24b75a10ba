package main

import (
	"os/exec"
	"strings"
	"testing"

	"keyway/test/emulated/report"
)

func TestComplementsEveryImmediateOrRefuses(t *testing.T) {
	const text = "TEXT ·f(SB), NOSPLIT, $0-8\n" +
		"\tVGF2P8AFFINEQB $0x00, Y10, Y0, Y0\n" +
		"\tVGF2P8AFFINEINVQB.BCST.Z $211, (AX), Z1, K1, Z2 // $0x00\n" +
		"\tGF2P8AFFINEQB $0xff, X1, X2\n" +
		"\tVGF2P8MULB Y1, Y2, Y3\n"
	const want = "TEXT ·f(SB), NOSPLIT, $0-8\n" +
		"\tVGF2P8AFFINEQB $0xff, Y10, Y0, Y0\n" +
		"\tVGF2P8AFFINEINVQB.BCST.Z $0x2c, (AX), Z1, K1, Z2 // $0x00\n" +
		"\tGF2P8AFFINEQB $0x00, X1, X2\n" +
		"\tVGF2P8MULB Y1, Y2, Y3\n"
	got, n, err := complement(text)
	if err != nil || n != 3 || got != want {
		t.Errorf("%d, %v:\n%s\nwant 3:\n%s", n, err, got, want)
	}
	for _, text := range []string{
		"\tVGF2P8AFFINEQB $CONSTANT, Y10, Y0, Y0\n",
		"\tVGF2P8AFFINEQB $0x00, Y1, Y0, Y0; VGF2P8AFFINEQB $0x100, Y1, Y0, Y0\n",
		"\tVGF2P8AFFINEQB $300, Y10, Y0, Y0\n",
	} {
		if got, _, err := complement(text); err == nil {
			t.Errorf("%q was taken: %q", text, got)
		}
	}
}

func TestSplitLosesNothingAndIsEven(t *testing.T) {
	var jobs []report.Job
	for _, s := range subjects {
		jobs = append(jobs, report.Job{Package: "keyway/" + s.dir})
	}
	jobs = append(jobs, report.Job{Package: "elsewhere/a"}, report.Job{Package: "elsewhere/b"})
	for n := 1; n < 12; n++ {
		seen := map[string]int{}
		for _, part := range split(jobs, n) {
			if len(part) == 0 {
				t.Errorf("%d parts: one is empty", n)
			}
			for _, j := range part {
				seen[j.Package]++
			}
		}
		for _, j := range jobs {
			if seen[j.Package] != 1 {
				t.Errorf("%d parts: %s is there %d times", n, j.Package, seen[j.Package])
			}
		}
	}
	var sums [2]int
	for i, part := range split(jobs, 2) {
		for _, j := range part {
			sums[i] += find(strings.TrimPrefix(j.Package, "keyway/")).cost
		}
	}
	if d := sums[0] - sums[1]; d < -10 || d > 10 {
		t.Errorf("two parts of %v s", sums)
	}
}

func TestSkippingLeavesOutNamesAtEveryDepthAndNothingElse(t *testing.T) {
	flag, ok := strings.CutPrefix(skipping([]string{"aesni", "generic"}), "-test.skip=")
	if !ok {
		t.Fatal(flag)
	}
	// The testing package is asked itself.
	out, err := exec.Command("go", "test", "./testdata/names", "-v", "-skip", flag).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var ran []string
	for l := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(l, "=== RUN   "); ok {
			ran = append(ran, strings.TrimSpace(name))
		}
	}
	want := "TestA TestA/wide TestA/generic_things TestA/Equals TestA/Equals/wide TestA/Equals/deep TestA/Equals/deep/wide"
	if got := strings.Join(ran, " "); got != want {
		t.Errorf("ran  %s\nwant %s", got, want)
	}
}
