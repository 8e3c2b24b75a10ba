package targets_test

import (
	"bufio"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/dm"
	"keyway/doc/targets"
	"keyway/internal/dmtest"
	"keyway/internal/size"
)

// TestEveryTargetHasAPage, and every page a target.
func TestEveryTargetHasAPage(t *testing.T) {
	var registered []string
	for _, typ := range dm.Types() {
		registered = append(registered, typ.Name)
	}
	if pages := targets.Names(); !slices.Equal(pages, registered) {
		t.Errorf("pages   %q\ntargets %q", pages, registered)
	}
	if _, ok := targets.Page("../targets"); ok {
		t.Error("a page that is none")
	}
}

// TestEveryPageHasEverySection, in one order, with something in it, and a first
// sentence that fits a line of a list.
func TestEveryPageHasEverySection(t *testing.T) {
	for _, name := range targets.Names() {
		page, _ := targets.Page(name)
		if !strings.HasPrefix(page, "# "+name+"\n\n") {
			t.Errorf("%s: does not begin with its name", name)
		}
		var got []string
		for _, part := range strings.Split(page, "\n## ")[1:] {
			heading, text, _ := strings.Cut(part, "\n")
			got = append(got, heading)
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s: nothing under %q", name, heading)
			}
		}
		if !slices.Equal(got, targets.Sections) {
			t.Errorf("%s: sections %q, want %q", name, got, targets.Sections)
		}
		if s := targets.Summary(page); len(s) < 20 || len(s) > 130 || strings.ContainsAny(s, "[]*`") || !strings.HasSuffix(s, ".") {
			t.Errorf("%s: its first sentence is %q", name, s)
		}
		for n, line := range slices.All(strings.Split(page, "\n")) {
			if len(line) > 160 && !strings.HasPrefix(line, "|") && !strings.Contains(line, "keyway ") {
				t.Errorf("%s: line %d has %d bytes", name, n+1, len(line))
			}
		}
	}
}

// TestSummary is a sentence, whatever the lines.
func TestSummary(t *testing.T) {
	for page, want := range map[string]string{
		"# x\n\nOne\ntwo. Three.\n\nFour.":                      "One two.",
		"# x\n\nVersion 1.2 of it.":                             "Version 1.2 of it.",
		"# x\n\nno end\n\nmore":                                 "no end",
		"# x\n\nOne: two.":                                      "One: two.",
		"# x\n\nA [b](c.md), *d* and `e`.":                      "A b, d and e.",
		"# x\n\nShort; " + strings.Repeat("long ", 20) + "end.": "Short.",
		"": "",
	} {
		if got := targets.Summary(page); got != want {
			t.Errorf("%q: %q, want %q", page, got, want)
		}
	}
}

var (
	backend = regexp.MustCompile(`^keyway create (\S+) --backend \S+?(?::(\d+[KMG]))?(?: --size (\S+))?(?: --engine (\S+))?$`)
	mapped  = regexp.MustCompile(`^(?:echo "(.*)"|printf '(.*)\\n') \| keyway (create|load|reload) (\S+) --table -`)
	addKey  = regexp.MustCompile(`^keyway key add (\S+) --mode (\S+)`)
)

// TestExampleTablesParse: the tables in the examples are built on what the examples
// make before, and print as something that is built again. One row at least is of the
// page's target.
func TestExampleTablesParse(t *testing.T) {
	for _, name := range targets.Names() {
		t.Run(name, func(t *testing.T) {
			page, _ := targets.Page(name)
			w := dmtest.New(t)
			of := 0
			parts := strings.Split(page, "```sh example\n")
			for _, part := range parts[1:] {
				block, _, _ := strings.Cut(part, "```")
				for s := bufio.NewScanner(strings.NewReader(block)); s.Scan(); {
					of += run(t, w, name, s.Text())
				}
			}
			if of == 0 {
				t.Errorf("no example has a row of %s", name)
			}
		})
	}
}

// run does for w what a line of an example does for a daemon, as far as tables go. It
// returns the number of rows of the target that it has built.
func run(t *testing.T, w *dmtest.World, target, line string) (rows int) {
	t.Helper()
	if m := backend.FindStringSubmatch(line); m != nil {
		text := m[2]
		if text == "" {
			text = m[3]
		}
		n, err := size.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		slots := 0
		if m[4] != "" {
			slots = 4
		}
		w.Disk(m[1], n, slots)
		return 0
	}
	if m := addKey.FindStringSubmatch(line); m != nil {
		mode, err := blkcrypto.ParseMode(m[2])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		key := make([]byte, mode.KeySize())
		for i := range key {
			key[i] = byte(i)
		}
		w.AddKey(m[1], key)
		return 0
	}
	m := mapped.FindStringSubmatch(line)
	if m == nil {
		return 0
	}
	text := m[1] + strings.ReplaceAll(m[2], `\n`, "\n")
	if m[3] == "create" {
		w.Map(m[4], text)
	} else {
		w.Reload(m[4], text)
	}
	printed := w.Device(m[4]).TableText(false, dm.StatusTable)
	again, err := dm.Parse(t.Context(), printed, w, dm.ParseOptions{})
	if err != nil {
		t.Fatalf("%s: prints %q, which is refused: %v", line, printed, err)
	}
	if err := again.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	for row := range strings.Lines(printed) {
		if f := strings.Fields(row); f[2] == target {
			rows++
		}
	}
	return rows
}
