// Command mutations breaks the product on purpose, one fault at a time, and tells
// which test is the first to notice. The tree is left alone: `go test -overlay` gives the compiler
// the broken file in place of the sound one.
//
// A mutation that no test notices is a hole in the tests, and the exit status is 1.
// To add one, write it into list.go: the text to replace must occur once in its
// file.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "run the mutations whose name matches this `regexp`")
	flag.Parse()
	which, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutations:", err)
		os.Exit(2)
	}
	survivors := 0
	for _, m := range list {
		if !which.MatchString(m.name) {
			continue
		}
		began := time.Now()
		noticed, err := m.run()
		switch {
		case err != nil:
			fmt.Printf("ERROR     %-24s %v\n", m.name, err)
			survivors++
		case noticed == nil:
			fmt.Printf("SURVIVES  %-24s %s\n", m.name, m.breaks)
			survivors++
		default:
			fmt.Printf("caught    %-24s %s\n%34s by %s (%.0f s)\n", m.name, m.breaks, "", few(noticed), time.Since(began).Seconds())
		}
	}
	if survivors > 0 {
		fmt.Printf("%d mutations were not caught\n", survivors)
		os.Exit(1)
	}
}

// A mutation is one way in which the product could be wrong.
type mutation struct {
	name     string
	breaks   string // the promise, for people
	file     string // from the root of the repository
	old, new string
	tests    []string // packages
}

// apply returns the file with the fault.
func (m *mutation) apply(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%s has its text %d times, not once: the list is out of date", m.file, n)
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1), nil
}

// run returns the tests that notice.
func (m *mutation) run() (noticed []string, err error) {
	root, err := filepath.Abs(".")
	if err != nil {
		return nil, err
	}
	text, err := m.apply(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	broken, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(broken, text, 0o600); err != nil {
		return nil, err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, m.file): broken}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return nil, err
	}
	args := []string{"test", "-overlay", overlay, "-vet=off", "-count=1", "-tags", "invariants", "-short", "-failfast", "-timeout", "3m"}
	cmd := exec.Command("go", append(args, m.tests...)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil, nil
	}
	if bytes.Contains(out, []byte("[build failed]")) {
		return nil, fmt.Errorf("does not build:\n%s", out)
	}
	return failures(out), nil
}

var failure = regexp.MustCompile(`^--- FAIL: (\w+)`)

// failures finds who failed: tests, or a whole package that hung or crashed.
func failures(out []byte) (all []string) {
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		line := s.Text()
		if f := failure.FindStringSubmatch(line); f != nil {
			all = append(all, f[1])
		} else if rest, ok := strings.CutPrefix(line, "panic: "); ok {
			all = append(all, "a panic ("+rest+")")
		}
	}
	if all == nil {
		all = []string{"a package that failed"}
	}
	return slices.Compact(all)
}

func few(names []string) string {
	const show = 3
	if len(names) <= show {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:show], ", "), len(names)-show)
}
