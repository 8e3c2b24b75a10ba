// Command testsum reads the output of `go test -json` on standard input, shows
// package results, failures and skips with their output, and adds what it counted
// as one line "passed failed skipped" to the file named by its argument, and the
// failures, whole, to the file of that name with ".failures" after it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

type event struct {
	Time                  time.Time
	Action, Package, Test string
	ImportPath, Output    string
	Elapsed               float64
	FailedBuild           string
}

// key names a test, or a package when Test is empty.
type key struct{ pkg, test string }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ... | testsum COUNTS-FILE")
		os.Exit(2)
	}
	var passed, failed, skipped int
	var failures strings.Builder
	both := io.MultiWriter(os.Stdout, &failures)
	output := map[key][]string{}
	failedIn := map[string]int{} // tests that failed, by package
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // not JSON: go itself speaks
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") {
				output[k] = append(output[k], e.Output)
			}
		case "build-output":
			fmt.Print(e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				if e.Action == "fail" {
					if failedIn[e.Package] == 0 { // did not build, crashed, or timed out
						failed++
						fmt.Fprintf(both, "FAIL %s\n%s", e.Package, strings.Join(output[k], ""))
						for u, lines := range output { // of tests that did not end
							if u.pkg == e.Package && u.test != "" {
								fmt.Fprintf(both, "FAIL %s %s did not end\n%s", u.pkg, u.test, strings.Join(lines, ""))
							}
						}
					}
				}
				if e.Action != "skip" { // skip: no test files
					fmt.Printf("%-4s %-40s %6.1fs\n", e.Action, e.Package, e.Elapsed)
				}
				break
			}
			switch e.Action {
			case "pass":
				passed++
			case "fail":
				failed++
				failedIn[e.Package]++
				fmt.Fprintf(both, "FAIL %s %s\n%s", e.Package, e.Test, strings.Join(output[k], ""))
			case "skip":
				skipped++
				fmt.Printf("skip %s %s\n%s", e.Package, e.Test, strings.Join(output[k], ""))
			}
			delete(output, k)
		}
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		failed++
	}
	add(os.Args[1], fmt.Sprintln(passed, failed, skipped))
	add(os.Args[1]+".failures", failures.String())
}

func add(file, text string) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}
