package dm

import (
	"bytes"
	"fmt"
)

// TakeKeys returns the table text in src with every key in hex replaced by
// the reference that take returns for it. take gets the hex digits, which are
// a part of src; TakeKeys overwrites them with zeroes as soon as take
// returns, so that they are in no string and no later copy of the text.
// Rows that are malformed in other ways are left for Parse to refuse.
func TakeKeys(src []byte, take func(target, cipher string, hex []byte) (KeyRef, error)) (string, error) {
	var out bytes.Buffer
	row := 0
	for line := range bytes.Lines(src) {
		words := wordSpans(line)
		if len(words) == 0 || line[words[0][0]] == '#' {
			out.Write(line)
			continue
		}
		row++
		at, end, target := keySpan(line, words)
		if at == end {
			out.Write(line)
			continue
		}
		key := line[at:end]
		ref, err := take(target, cipherWord(line, words, at), key)
		clear(key)
		if err != nil {
			return "", fmt.Errorf("table row %d: %s: argument %d (key): %w", row, target, types[target].KeyArg, err)
		}
		out.Write(line[:at])
		out.WriteString(quoteWord(ref.String()))
		out.Write(line[end:])
	}
	return out.String(), nil
}

// keySpan returns where in the line a key in hex stands, nothing if none does.
func keySpan(line []byte, words [][2]int) (at, end int, target string) {
	if len(words) < 3 {
		return 0, 0, ""
	}
	target = string(line[words[2][0]:words[2][1]])
	n := types[target].KeyArg
	if n == 0 || len(words) <= 2+n {
		return 0, 0, ""
	}
	at, end = words[2+n][0], words[2+n][1]
	if c := line[at]; c == ':' || c == '-' {
		return 0, 0, ""
	}
	return at, end, target
}

// cipherWord is the word before the key.
func cipherWord(line []byte, words [][2]int, key int) string {
	for i, w := range words {
		if w[0] == key && i > 0 {
			return string(line[words[i-1][0]:words[i-1][1]])
		}
	}
	return ""
}

// wordSpans returns the bounds of the words of a line.
func wordSpans(line []byte) (words [][2]int) {
	start := -1
	for i, c := range line {
		space := c == ' ' || c >= '\t' && c <= '\r'
		switch {
		case !space && start < 0:
			start = i
		case space && start >= 0:
			words = append(words, [2]int{start, i})
			start = -1
		}
	}
	if start >= 0 {
		words = append(words, [2]int{start, len(line)})
	}
	return words
}
