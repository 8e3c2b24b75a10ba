package main

import (
	"go/parser"
	"go/token"
	"testing"
)

// Every mutation of the list still finds its place, and leaves Go text. Whether the
// tests notice takes minutes: `make mutations`.
func TestMutationsApply(t *testing.T) {
	if len(list) < 12 {
		t.Errorf("%d mutations", len(list))
	}
	seen := map[string]bool{}
	for _, m := range list {
		text, err := m.apply("../..")
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if _, err := parser.ParseFile(token.NewFileSet(), m.file, text, 0); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if seen[m.name] || m.breaks == "" || len(m.tests) == 0 {
			t.Errorf("%s: named twice, or says too little", m.name)
		}
		seen[m.name] = true
	}
}

func TestFailuresAreFound(t *testing.T) {
	out := "=== RUN\n--- FAIL: TestOne (0.00s)\n    --- FAIL: TestOne/part\npanic: test timed out\nFAIL\n"
	if got := few(failures([]byte(out))); got != "TestOne, a panic (test timed out)" {
		t.Error(got)
	}
	if got := failures([]byte("FAIL\tkeyway/dm")); len(got) != 1 {
		t.Error(got)
	}
}
