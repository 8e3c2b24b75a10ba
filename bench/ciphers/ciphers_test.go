package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/measure"
)

// The contenders do the same: ours, the Go peers and what the C libraries make of
// the same text, key and numbers.
func TestContendersAgree(t *testing.T) {
	var workers []*worker
	if exec.Command("gcc", "-E", "-include", "gcrypt.h", "-include", "openssl/evp.h", "-x", "c", "/dev/null").Run() == nil {
		w, err := buildPeers(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer w.stop()
		workers = append(workers, w)
	} else {
		t.Log("without the C libraries: scripts/install-tools installs them")
	}
	rig := measure.NewRig(largest, 1)
	for _, m := range blkcrypto.Modes() {
		all := contenders(rig, m, workers)
		if err := agree(all, m); err != nil {
			t.Error(err)
		}
		for _, c := range all {
			v, err := c.rate(context.Background(), job{m, true, 512, 8}, time.Microsecond)
			if err != nil || v < 1e5 {
				t.Errorf("%v by %s: %g bytes a second, %v", m, c.name, v, err)
			}
		}
	}
}

func TestDisagreementIsSeen(t *testing.T) {
	sum := func(h uint64) func(job) (uint64, error) { return func(job) (uint64, error) { return h, nil } }
	all := []contender{{name: "a", algorithm: "x", sum: sum(1)}, {name: "b", algorithm: "y", sum: sum(2)}, {name: "c", algorithm: "x", sum: sum(1)}}
	if err := agree(all, blkcrypto.AES256XTS); err != nil {
		t.Error(err)
	}
	all = append(all, contender{name: "d", algorithm: "x", sum: sum(3)})
	if err := agree(all, blkcrypto.AES256XTS); err == nil || !strings.Contains(err.Error(), "c and d give different ciphertexts") {
		t.Errorf("%v, want that c and d differ", err)
	}
}

func TestWorkerProtocol(t *testing.T) {
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := serveWorker(in, out)
		out.CloseWithError(io.EOF)
		done <- err
	}()
	r := bufio.NewReader(answers)
	line := func() string {
		s, _ := r.ReadString('\n')
		return strings.TrimSpace(s)
	}
	fmt.Fprintln(ask, "list")
	offers := map[string]bool{}
	for s := line(); s != "." && s != ""; s = line() {
		offers[s] = true
	}
	if !offers["x/crypto/xts(portable) portable AES-256-XTS"] {
		t.Errorf("offers %v", offers)
	}
	fmt.Fprintln(ask, "sum x/crypto/xts(portable) AES-256-XTS 512 9")
	// What OpenSSL and libgcrypt make of the pattern.
	if have := line(); have != "4ddb8774f795e5e7" {
		t.Errorf("sum %s, want 4ddb8774f795e5e7", have)
	}
	fmt.Fprintln(ask, "rate x/crypto/xts(portable) AES-256-XTS encrypt 512 8 0.001")
	var v float64
	if _, err := fmt.Sscan(line(), &v); err != nil || v < 1e5 {
		t.Errorf("%g bytes a second, %v", v, err)
	}
	fmt.Fprintln(ask, "nonsense")
	if err := <-done; err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("nonsense: %v", err)
	}
}

// made is a report of one mode: ours is fast by ratios, slow by medians, because
// the machine was slow in other rounds for each.
func made() *report {
	r := &report{Setups: []setup{{"AES-256-XTS", "best", 900, 300, 0}}}
	for _, c := range []entry{{"AES-256-XTS", "best", ours, true}, {"AES-256-XTS", openssl, peer, false}, {"AES-256-XTS", "slow", peer, false},
		{"AES-256-XTS", "fast" + portable, peer, false}, {"AES-256-XTS", aesRounds, bound, false}} {
		r.Contenders = append(r.Contenders, c)
		for _, j := range jobs(blkcrypto.AES256XTS) {
			for round, v := range map[string][]float64{"best": {20, 4, 22}, openssl: {9, 2, 10}, "slow": {1, 1, 1},
				"fast" + portable: {99, 99, 99}, aesRounds: {25, 5, 25}}[c.Name] {
				r.Samples = append(r.Samples, sample{c.Mode, c.Name, j.op(), j.unit, j.units, round, v * 1e9})
			}
		}
	}
	return r
}

func TestAimsAreRatiosOfRounds(t *testing.T) {
	r := made()
	if best := r.bestPeer("AES-256-XTS", "encrypt", 512, 8); best != openssl {
		t.Errorf("best peer %s, want %s", best, openssl)
	}
	if x := r.ratio("AES-256-XTS", "best", openssl, "encrypt", 512, 8); x != 2.2 {
		t.Errorf("ratio %g, want 2.2, the median of 20/9, 4/2 and 22/10", x)
	}
	met := map[bool]int{}
	for _, a := range r.aims() {
		met[a.Met]++
		if strings.Contains(a.What, "limit") == a.Met {
			t.Errorf("%s: %v, measured %g", a.What, a.Met, a.Measured)
		}
	}
	// Two directions: two of runs and one of a single unit against the best peer;
	// and two of the limit, at 0.8 of it. One of the key, one of allocations.
	if met[true] != 8 || met[false] != 4 {
		t.Errorf("%d aims met and %d missed, want 8 and 4", met[true], met[false])
	}
	var b strings.Builder
	if err := r.markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `*` **best** | encrypt | 20.0 (2.20) |", "| " + openssl + " | decrypt | 9.00 |",
		"| AES-256-XTS | best | 20.0, 2.20× OpenSSL, 80 % |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, b.String())
		}
	}
}
