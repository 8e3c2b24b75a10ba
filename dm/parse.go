package dm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ParseOptions say what Parse cannot read from the text.
type ParseOptions struct {
	ReadOnly bool // writes are refused; devices are opened read-only
}

// Parse builds a table from the kernel's text: one row a line,
// "START LENGTH TARGET ARGS...", in 512-byte sectors. A backslash quotes the
// next character; empty lines and lines that begin with # are skipped. Keys
// are references: text with keys in hex goes through TakeKeys first.
//
// Everything that can be known before the table is used is checked. After an
// error nothing is left open. Errors name the row, counted from 1.
func Parse(ctx context.Context, text string, env Env, o ParseOptions) (*Table, error) {
	t := &Table{readOnly: o.ReadOnly}
	n := 0
	for line := range strings.Lines(text) {
		words, err := splitWords(line)
		if err == nil && len(words) == 0 {
			continue
		}
		n++
		if err == nil {
			err = t.addRow(ctx, words, env)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("table row %d: %w", n, err), t.Close(ctx))
		}
	}
	if err := t.complete(env.Fallback()); err != nil {
		return nil, errors.Join(fmt.Errorf("table: %w", err), t.Close(ctx))
	}
	return t, nil
}

// splitWords splits a line at white space; a backslash quotes one character.
func splitWords(line string) ([]string, error) {
	if strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") {
		return nil, nil
	}
	var words []string
	var word strings.Builder
	started, quoted := false, false
	for _, c := range line {
		switch {
		case quoted:
			word.WriteRune(c)
			quoted = false
		case c == '\\':
			started, quoted = true, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			started = true
			word.WriteRune(c)
		}
	}
	if quoted {
		return nil, errors.New("a backslash at the end quotes nothing")
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// quoteWord is the inverse of splitWords for one word.
func quoteWord(w string) string {
	if !strings.ContainsAny(w, " \t\n\r\v\f\\") {
		return w
	}
	var b strings.Builder
	for _, c := range w {
		if strings.ContainsRune(" \t\n\r\v\f\\", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// QuoteWord quotes a device or key name for table text.
func QuoteWord(w string) string { return quoteWord(w) }

func (t *Table) addRow(ctx context.Context, words []string, env Env) error {
	if len(words) < 3 {
		return errors.New("needs a start sector, a number of sectors and a target")
	}
	start, err := parseSectors("start sector", words[0])
	if err != nil {
		return err
	}
	length, err := parseSectors("number of sectors", words[1])
	if err != nil {
		return err
	}
	switch end := t.Size(); {
	case length == 0:
		return errors.New("is empty: its number of sectors is 0")
	case start != end:
		return fmt.Errorf("starts at sector %d, but the rows before it end at %d", start>>sectorShift, end>>sectorShift)
	case start+length < 0:
		return errors.New("ends beyond 2^63 bytes")
	}
	typ, err := lookupType(words[2])
	if err != nil {
		return err
	}
	b := &Builder{env: env, ctx: ctx, readOnly: t.readOnly, start: start, length: length, typ: typ.Name}
	target, err := typ.New(ctx, b, &Args{target: typ.Name, words: words[3:]})
	if err != nil {
		if !strings.HasPrefix(err.Error(), typ.Name+":") {
			err = fmt.Errorf("%s: %w", typ.Name, err)
		}
		return errors.Join(err, b.undo(ctx))
	}
	t.rows = append(t.rows, newRow(start, start+length, typ, target, b))
	return nil
}

func parseSectors(what, s string) (bytes int64, err error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a number", what, s)
	}
	if n >= 1<<(63-sectorShift) {
		return 0, fmt.Errorf("%s %d is beyond 2^63 bytes", what, n)
	}
	return int64(n << sectorShift), nil
}
