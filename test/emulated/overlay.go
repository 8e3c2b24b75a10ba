package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Bochs 2.7 computes the parity in GF2P8AFFINEQB and GF2P8AFFINEINVQB the wrong
// way round: each byte of the result is the complement of the right one (GF2P8MULB
// is right). The last step of both is an XOR with the immediate byte, so with
// that complemented they do in Bochs what they do elsewhere. The guest checks that
// it really is so before it runs anything.
var (
	affine  = regexp.MustCompile(`(?m)^(\s*V?GF2P8AFFINE(?:INV)?QB(?:\.[A-Z.]+)?\s+\$)(0x[0-9a-fA-F]+|[0-9]+)`)
	comment = regexp.MustCompile(`//.*`)
)

// complement returns Go assembly with the immediates of these instructions
// complemented, and how many there were.
func complement(text string) (string, int, error) {
	n := 0
	text = affine.ReplaceAllStringFunc(text, func(s string) string {
		m := affine.FindStringSubmatch(s)
		imm, err := strconv.ParseUint(m[2], 0, 8)
		if err != nil {
			return s // counted below
		}
		n++
		return fmt.Sprintf("%s%#02x", m[1], byte(^imm))
	})
	if all := strings.Count(comment.ReplaceAllString(text, ""), "GF2P8AFFINE"); all != n {
		return "", 0, fmt.Errorf("%d of %d GF2P8AFFINE instructions are in a form that could be rewritten", n, all)
	}
	return text, n, nil
}

// overlay writes what go build's -overlay wants for the assembly files sources,
// and returns the flag, or nothing if there is nothing to rewrite.
func overlay(sources []string, tmp string) ([]string, error) {
	replace := map[string]string{}
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		out, n, err := complement(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if n == 0 {
			continue
		}
		to := filepath.Join(tmp, strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "_"))
		if err := os.WriteFile(to, []byte(out), 0o644); err != nil {
			return nil, err
		}
		replace[path] = to
	}
	if len(replace) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	name := filepath.Join(tmp, "overlay.json")
	return []string{"-overlay=" + name}, os.WriteFile(name, text, 0o644)
}
