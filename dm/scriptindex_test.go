package dm_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// notShown are the invariants of the two ranges that nothing here can show, with
// the reason.
var notShown = map[string]string{
	"dm 25":  "no target refuses to resume (preresume); what a resume refuses by itself is in resume.txt",
	"dm 28":  "nothing is pushed back into the device: requests that a suspension holds are goroutines that have not entered it yet",
	"dm 49":  "no device carries integrity metadata",
	"dm 62":  "the crypt target takes no key messages; a key leaves with eviction, or with its table",
	"blk 39": "no device carries integrity metadata",
}

// notScripted are the gaps of Linux without a script of their own.
var notScripted = map[string]string{
	"u15": "a profile is refused on a queue with integrity metadata: no device here has such metadata, and a conflict cannot arise",
}

// TestInvariantsAreCovered builds the table of invariants and what shows them: the
// headers of the scripts and what Go tests cite. An invariant of dm-fscrypt.md 18 to
// 65 or blkcrypto.md 13 to 40 that nothing shows, and notShown does not excuse, is a
// failure.
func TestInvariantsAreCovered(t *testing.T) {
	table := map[string][]string{}
	scriptHeaders(t, table)
	goCitations(t, table)
	show := func(spec, title string, from, to int) {
		var out strings.Builder
		for n := from; n <= to; n++ {
			id := fmt.Sprintf("%s %d", spec, n)
			slices.SortFunc(table[id], func(a, b string) int {
				script := func(s string) int { return cmp.Compare(0, strings.Index(s, ".txt")) } // scripts first
				return cmp.Or(script(a)-script(b), cmp.Compare(a, b))
			})
			by := slices.Compact(table[id])
			switch why := notShown[id]; {
			case why != "" && len(by) == 0:
				by = []string{"not shown: " + why}
			case len(by) == 0:
				t.Errorf("%s, invariant %d, is shown nowhere", title, n)
			}
			fmt.Fprintf(&out, "%6s  %s\n", id, strings.Join(by, ", "))
		}
		t.Logf("%s\n%s", title, out.String())
	}
	show("dm", "dm-fscrypt.md", 18, 65)
	show("blk", "blkcrypto.md", 13, 40)
}

// TestEachGapHasAScript: U1 to U19 of dm-fscrypt.md, section 2.3, and G1 to G12 of
// blkcrypto.md, section 12.2.
func TestEachGapHasAScript(t *testing.T) {
	gaps := map[string]int{"u": 19, "g": 12}
	for list, last := range gaps {
		for n := 1; n <= last; n++ {
			id := fmt.Sprintf("%s%02d", list, n)
			found, err := filepath.Glob("testdata/" + id + "-*.txt")
			if err != nil {
				t.Fatal(err)
			}
			if excused := notScripted[id] != ""; len(found) != 1 == !excused {
				t.Errorf("gap %s: %d scripts, excused: %v", strings.ToUpper(id), len(found), excused)
			}
		}
	}
}

var scriptHeader = regexp.MustCompile(`(?m)^# invariants: (.*)$`)

// scriptHeaders reads "# invariants: dm 37, 41; blk 29". Every script has one.
func scriptHeaders(t *testing.T, table map[string][]string) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := scriptHeader.FindStringSubmatch(string(text))
		if m == nil {
			t.Errorf("%s has no line \"# invariants: ...\"", file)
			continue
		}
		for part := range strings.SplitSeq(m[1], ";") {
			spec, list, _ := strings.Cut(strings.TrimSpace(part), " ")
			if spec != "dm" && spec != "blk" {
				t.Errorf("%s: %q is neither dm nor blk", file, spec)
			}
			for _, word := range strings.Split(list, ", ") {
				n, err := strconv.Atoi(word)
				if err != nil {
					t.Errorf("%s: %q is not a number", file, word)
				}
				id := fmt.Sprintf("%s %d", spec, n)
				table[id] = append(table[id], filepath.Base(file))
			}
		}
	}
}

// cited finds "dm-fscrypt.md, invariants 18 to 20" and the like. The specification is
// the one named last in the same comment; without any, that of the package or file.
var cited = regexp.MustCompile(`\binvariants? ([0-9]+(?:(?:, | and | to )[0-9]+)*)`)

var (
	specName = regexp.MustCompile(`(dm-fscrypt|blkcrypto)\.md`)
	testFunc = regexp.MustCompile(`(?m)^func (\w+)\(`)
	lineEnd  = regexp.MustCompile(`\n\s*// ?`)
	numbers  = regexp.MustCompile(`(,| and| to)? ?([0-9]+)`)
)

func goCitations(t *testing.T, table map[string][]string) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "scriptindex_test.go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// Comments on one line, so that a citation is not broken.
		text = lineEnd.ReplaceAll(text, []byte(" "))
		usual := "blk"
		if filepath.Dir(path) == "../dm" && !strings.HasPrefix(filepath.Base(path), "racesblk") {
			usual = "dm"
		}
		for _, m := range cited.FindAllSubmatchIndex(text, -1) {
			spec := specAt(text, m[0], usual)
			for _, n := range citedNumbers(string(text[m[2]:m[3]])) {
				id := fmt.Sprintf("%s %d", spec, n)
				table[id] = append(table[id], testAt(text, m[0], path))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// specAt is the specification that the line of the byte at i named last before it.
func specAt(text []byte, i int, usual string) string {
	line := text[bytes.LastIndexByte(text[:i], '\n')+1 : i]
	names := specName.FindAllSubmatch(line, -1)
	if names == nil {
		return usual
	}
	return map[string]string{"dm-fscrypt": "dm", "blkcrypto": "blk"}[string(names[len(names)-1][1])]
}

// citedNumbers reads "13, 15 to 17 and 20".
func citedNumbers(list string) (all []int) {
	for _, m := range numbers.FindAllStringSubmatch(list, -1) {
		n, _ := strconv.Atoi(m[2])
		from := n
		if m[1] == " to" {
			from = all[len(all)-1] + 1
		}
		for ; from <= n; from++ {
			all = append(all, from)
		}
	}
	return all
}

// testAt names the function that holds the byte at i, or follows its comment, which
// lineEnd has put on one line.
func testAt(text []byte, i int, path string) string {
	begin := bytes.LastIndexByte(text[:i], '\n') + 1
	end := i + max(bytes.IndexByte(text[i:], '\n'), 0)
	name := ""
	for _, m := range testFunc.FindAllSubmatchIndex(text, -1) {
		if m[0] <= i || m[0] >= begin && m[0] <= end+1 || bytes.HasPrefix(text[begin:], []byte("//")) && m[0] <= end+1 {
			name = string(text[m[2]:m[3]])
		}
	}
	if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") { // what tests share
		return filepath.Base(path)
	}
	return name
}

// The parsing above is worth a test, as it decides what counts as shown.
func TestCitationsAreRead(t *testing.T) {
	text := []byte("package x\n\n// TestA does it (dm-fscrypt.md,\n// invariants 18 to 20 and 23).\nfunc TestA() {\n\t// blkcrypto.md, invariant 17.\n\tf()\n}\n\nfunc TestB() { f() } // invariant 65\n")
	text = lineEnd.ReplaceAll(text, []byte(" "))
	got := map[string]string{}
	for _, m := range cited.FindAllSubmatchIndex(text, -1) {
		got[fmt.Sprintf("%s %v", specAt(text, m[0], "dm"), citedNumbers(string(text[m[2]:m[3]])))] = testAt(text, m[0], "x_test.go")
	}
	want := map[string]string{"dm [18 19 20 23]": "TestA", "blk [17]": "TestA", "dm [65]": "TestB"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
