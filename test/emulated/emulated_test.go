package main

import (
	"os/exec"
	"strings"
	"testing"
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
