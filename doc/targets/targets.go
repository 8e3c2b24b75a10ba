// Package targets holds the manual pages of the targets, one for each that tables may
// name: what it is for, the table line, what becomes of requests and of keys, errors,
// status, messages, an example that works, and how it differs from Linux.
//
// All pages have the sections of Sections, in that order. The blocks marked "sh
// example" are run by tests, a line at a time.
package targets

import (
	"embed"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

//go:embed *.md
var files embed.FS

// Sections are the headings of every page, after the paragraphs that say what the
// target is for.
var Sections = []string{
	"The table line", "Requests", "Keys", "Errors", "Status", "Messages", "Example", "Differences from Linux",
}

// Names returns the names of the targets that have a page, in order.
func Names() []string {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		panic("targets: " + err.Error()) // it is in the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".md"))
	}
	slices.Sort(names)
	return names
}

// Page returns the page of a target, in Markdown, or false if there is none.
func Page(name string) (string, bool) {
	b, err := files.ReadFile(name + ".md")
	return string(b), err == nil
}

// maxSummary is how long a summary may be, in bytes, where the sentence can be cut: it
// fits a line of a terminal after the name.
const maxSummary = 100

var (
	link = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	word = regexp.MustCompile("[*`]([^*`]*)[*`]")
)

// Summary returns the first sentence of a page on one line, without marks; of a long
// one, what comes before a colon or a semicolon.
func Summary(page string) string {
	_, text, _ := strings.Cut(page, "\n")
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n\n")
	first = strings.Join(strings.Fields(first), " ")
	first = word.ReplaceAllString(link.ReplaceAllString(first, "$1"), "$1")
	for i := range len(first) {
		if first[i] == '.' && (i+1 == len(first) || first[i+1] == ' ') {
			first = first[:i+1]
			break
		}
	}
	if cut := strings.IndexAny(first, ":;"); len(first) > maxSummary && cut > 0 {
		return first[:cut] + "."
	}
	return first
}
