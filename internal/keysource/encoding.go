package keysource

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"keyway/internal/secret"
)

// decode undoes an encoding, "" being none. It owns b. Blanks around and within text
// do not count. Errors tell nothing of the text but its length.
func decode(b *secret.Buffer, encoding string) (*secret.Buffer, error) {
	if encoding == "" || encoding == "raw" {
		return b, nil
	}
	defer b.Wipe()
	// As long as the text, which is longer than what it says.
	out, err := secret.New(b.Len())
	if err != nil {
		return nil, err
	}
	var n, digits int
	ok := false
	secret.Do(func() {
		text := b.Bytes()
		for _, c := range text {
			if strings.IndexByte(" \t\r\n", c) < 0 {
				text[digits] = c
				digits++
			}
		}
		text = text[:digits]
		var err error
		if encoding == "hex" {
			n, err = hex.Decode(out.Bytes(), text)
		} else {
			for digits > 0 && text[digits-1] == '=' {
				digits--
			}
			n, err = base64.RawStdEncoding.Decode(out.Bytes(), text[:digits])
		}
		ok = err == nil
	})
	if !ok {
		out.Wipe()
		return nil, withWay(fmt.Errorf("%d characters that are not %s", digits, encoding), "encoding=raw takes the bytes as they are")
	}
	return fit(out, n)
}
