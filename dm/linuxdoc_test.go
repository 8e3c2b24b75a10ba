package dm_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Every row of doc/linux.md names tests that exist.
func TestLinuxPageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../doc/linux.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "-rhoE", "--include=*_test.go", `^func Test\w+`, "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		tests[strings.TrimSpace(strings.TrimPrefix(line, "func "))] = true
	}
	rows := 0
	named := regexp.MustCompile("`(Test\\w+|[\\w-]+\\.txt)`")
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || strings.Contains(line, "---") || strings.Contains(line, "shown by") {
			continue
		}
		rows++
		found := named.FindAllStringSubmatch(cells[4], -1)
		if len(found) == 0 && !strings.Contains(cells[3], "no integrity targets") {
			t.Errorf("no test: %s", cells[1])
		}
		for _, f := range found {
			if strings.HasSuffix(f[1], ".txt") {
				if _, err := os.Stat("testdata/" + f[1]); err != nil {
					t.Error(err)
				}
			} else if !tests[f[1]] {
				t.Errorf("there is no test %s", f[1])
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d rows", rows)
	}
}
