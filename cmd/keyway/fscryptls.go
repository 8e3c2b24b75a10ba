package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"keyway/control"
)

// errProblems is a failure whose causes were printed.
var errProblems = silent{errors.New("some files could not be read")}

// printProblem tells of a file that could not be read; the command goes on.
func printProblem(p control.FscryptProblem) error {
	fmt.Fprintf(os.Stderr, "keyway: error: %s\n", p.Error)
	return nil
}

// A troubled prints problems, the first hint of each kind, and remembers that there were any.
type troubled struct {
	n     int
	hints map[string]bool
	line  func() // called before something is printed
}

func (t *troubled) problem(p control.FscryptProblem) error {
	t.n++
	if t.line != nil {
		t.line()
	}
	if p.Hint != "" && !t.hints[p.Hint] {
		if t.hints == nil {
			t.hints = map[string]bool{}
		}
		t.hints[p.Hint] = true
		defer fmt.Fprintf(os.Stderr, "keyway: hint: %s\n", p.Hint)
	}
	return printProblem(p)
}

func (t *troubled) err() error {
	if t.n > 0 {
		return errProblems
	}
	return nil
}

// paths are the bytes of path arguments.
func paths(args []string) (all [][]byte) {
	for _, a := range args {
		all = append(all, []byte(a))
	}
	return all
}

func (c *cli) fscryptLs() *cobra.Command {
	var ff fsFlags
	var long bool
	var r control.Fscrypt
	cmd := &cobra.Command{
		Use:   "ls VOLUME [PATH]",
		Short: "List the names in a directory, or one file",
		Long: `List the names in a directory, sorted, one a line, or one file. With -l each line has
type and permissions, links, owner and group, size, time of the last change, and
whether the file is encrypted: "-" not, "open" with its key here, "locked" without.
Bytes that do not print are written as in Go strings: \n, \x1b, \xff; --json has them
as they are.

` + volumeHelpText,
		Example: `  keyway fscrypt ls phone.img
  keyway fscrypt ls -l userdata /media --key ./user.key
  keyway fscrypt ls -R phone.img --key "age:user.age?identity=me.txt" --json`,
		Args: volumeAndPath,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r.Paths, r.Brief = paths(args[1:]), !long && !c.json
			v, err := c.openFS(cmd, &ff, args[0])
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, v.close(cmd.Context())) }()
			base := strings.Trim(strings.Join(args[1:], ""), "/")
			ctx, stop := c.limited(cmd.Context())
			defer stop()
			if c.json {
				err = listJSON(ctx, v, r)
			} else {
				err = listText(ctx, v, r, base, long)
			}
			return cause(ctx, err)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&long, "long", "l", false, "type, permissions, links, owner, group, size, time and encryption")
	f.BoolVarP(&r.Recursive, "recursive", "R", false, "all that is beneath too, by paths")
	ff.add(f, "key")
	cmd.ValidArgsFunction = c.completeVolume(&ff, 1)
	return c.withTimeout(c.withJSON(cmd), giveUpReading)
}

const giveUpReading = "give up after this `duration` (default: wait)"

// volumeAndPath are the arguments VOLUME [PATH].
func volumeAndPath(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return exactly("VOLUME")(cmd, args)
	}
	return atMost("VOLUME", "PATH")(cmd, args)
}

// listJSON prints an array of entries as they come.
func listJSON(ctx context.Context, v volumeFS, r control.Fscrypt) error {
	var t troubled
	sep := "[\n  "
	err := v.list(ctx, r, control.FscryptSink{Problem: t.problem, Entry: func(e control.FscryptEntry) error {
		b, err := json.MarshalIndent(e, "  ", "  ")
		if err != nil {
			return err
		}
		if e.Problem != "" {
			t.problem(control.FscryptProblem{Path: e.Path, Error: e.Path + ": " + e.Problem})
		}
		_, err = fmt.Fprintf(os.Stdout, "%s%s", sep, b)
		sep = ",\n  "
		return err
	}})
	if err != nil {
		return err
	}
	end := "\n]\n"
	if sep[0] == '[' {
		end = "[]\n"
	}
	if _, err := io.WriteString(os.Stdout, end); err != nil {
		return err
	}
	return t.err()
}

// listText prints a line for each entry; base is the path that was asked for.
func listText(ctx context.Context, v volumeFS, r control.Fscrypt, base string, long bool) error {
	var t troubled
	var lines longLines
	err := v.list(ctx, r, control.FscryptSink{Problem: t.problem, Entry: func(e control.FscryptEntry) error {
		path := e.Path
		if e.PathBytes != nil {
			path = string(e.PathBytes)
		}
		name := strings.TrimPrefix(path, base+"/")
		if !r.Recursive && strings.Contains(name, "/") {
			name = name[strings.LastIndexByte(name, '/')+1:]
		}
		if e.Problem != "" {
			t.problem(control.FscryptProblem{Path: e.Path, Error: printable(path) + ": " + e.Problem})
		}
		if !long {
			_, err := fmt.Println(printable(name))
			return err
		}
		lines = append(lines, longLine(e, printable(name)))
		// Columns fit what comes within some screens; nobody waits for all of a large
		// file system.
		if len(lines) == 512 {
			return lines.flush(os.Stdout)
		}
		return nil
	}})
	if e := lines.flush(os.Stdout); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return t.err()
}

// longLines are lines of ls -l: the columns of each, and the name.
type longLines [][]string

// flush prints the lines with their columns aligned, and forgets them.
func (l *longLines) flush(w io.Writer) error {
	var widths []int
	for _, columns := range *l {
		widths = append(widths, make([]int, max(0, len(columns)-len(widths)))...)
		for i, c := range columns {
			widths[i] = max(widths[i], len(c))
		}
	}
	var b strings.Builder
	for _, columns := range *l {
		last := len(columns) - 1
		for i, c := range columns[:last] {
			if i == last-1 { // a word
				fmt.Fprintf(&b, "%-*s ", widths[i], c)
			} else {
				fmt.Fprintf(&b, "%*s ", widths[i], c)
			}
		}
		b.WriteString(columns[last] + "\n")
	}
	*l = (*l)[:0]
	_, err := io.WriteString(w, b.String())
	return err
}

func longLine(e control.FscryptEntry, name string) []string {
	if e.Target != "" {
		name += " -> " + printable(e.Target)
	}
	if e.Problem != "" && e.Links == 0 { // it could not be opened
		return []string{typeLetter(e.Type) + "?????????", "?", "?", "?", "?", "?", "?", name}
	}
	state := "-"
	switch {
	case e.Locked:
		state = "locked"
	case e.Encrypted:
		state = "open"
	}
	decimal := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	return []string{
		typeLetter(e.Type) + permissions(e.Mode), decimal(e.Links), decimal(e.UID), decimal(e.GID), strconv.FormatInt(e.Size, 10),
		e.Modified.Local().Format("2006-01-02 15:04"), state, name,
	}
}

func typeLetter(t string) string {
	letters := map[string]string{
		"file": "-", "directory": "d", "symlink": "l", "fifo": "p", "socket": "s", "char-device": "c", "block-device": "b",
	}
	if l, ok := letters[t]; ok {
		return l
	}
	return "?"
}

// permissions are written as ls does.
func permissions(mode uint32) string {
	b := []byte("rwxrwxrwx")
	for i := range b {
		if mode>>(8-i)&1 == 0 {
			b[i] = '-'
		}
	}
	special := func(bit uint32, at int, letter byte) {
		if mode&bit != 0 {
			if b[at] == '-' {
				letter = byte(unicode.ToUpper(rune(letter)))
			}
			b[at] = letter
		}
	}
	special(0o4000, 2, 's')
	special(0o2000, 5, 's')
	special(0o1000, 8, 't')
	return string(b)
}

// printable writes a name on one line of a terminal: what would move the cursor, or is
// no text, as in Go strings.
func printable(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, name[i])
		case r == '\\':
			b.WriteString(`\\`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := fmt.Sprintf("%+q", r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}
