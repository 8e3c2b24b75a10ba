package trace

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// words are those of a line that are still to be read; the first error is kept in them.
type words struct {
	line []byte
	err  error
}

// more reports whether a word is left.
func (w *words) more() bool { return w.err == nil && w.line != nil }

// next returns the next word, which is empty if there is none. It does not copy.
func (w *words) next() []byte {
	if w.line == nil {
		w.fail(errors.New("is too short"))
		return nil
	}
	i := bytes.IndexByte(w.line, ' ')
	if i < 0 {
		word := w.line
		w.line = nil
		return word
	}
	word := w.line[:i]
	w.line = w.line[i+1:]
	return word
}

func (w *words) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// number returns the next word as a number from 0 to 2^63-1.
func (w *words) number(what string) int64 {
	word := w.next()
	n, err := parse(word)
	if err != nil {
		w.fail(fmt.Errorf("%s: %s is not a number", what, show(word)))
	}
	return n
}

// upTo is number for one that is at most most.
func (w *words) upTo(what string, most int64) int64 {
	n := w.number(what)
	if n > most {
		w.fail(fmt.Errorf("%s: %d is more than %d", what, n, most))
	}
	return n
}

// quoted returns the rest of the line, a name in quotes, and the first error of the
// line.
func (w *words) quoted() (string, error) {
	if w.line == nil {
		w.fail(errors.New("is too short"))
	}
	if w.err != nil {
		return "", w.err
	}
	name, err := strconv.Unquote(string(w.line))
	if err != nil || w.line[0] != '"' || len(name) > MaxName {
		return "", fmt.Errorf("%s is not a name in quotes of at most %d bytes", show(w.line), MaxName)
	}
	return name, nil
}

// end returns the first error of the line; words that are left are one.
func (w *words) end() error {
	if w.line != nil {
		w.fail(fmt.Errorf("is too long: %s", show(w.line)))
	}
	return w.err
}

var errNumber = errors.New("not a number")

// parse reads a decimal number as strconv writes it.
func parse(word []byte) (n int64, err error) {
	if len(word) == 0 || len(word) > 19 || len(word) > 1 && word[0] == '0' {
		return 0, errNumber
	}
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, errNumber
		}
		n = 10*n + int64(c-'0')
	}
	if n < 0 { // of 19 digits some are too many, and wrap once
		return 0, errNumber
	}
	return n, nil
}

// show quotes foreign text for an error, a bounded part of it.
func show(word []byte) string {
	if len(word) > 40 {
		return strconv.QuoteToASCII(string(word[:40])) + "..."
	}
	return strconv.QuoteToASCII(string(word))
}
