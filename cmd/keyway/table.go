package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"keyway/control"
	"keyway/dm"
	"keyway/dm/target"
	"keyway/internal/daemon"
	"keyway/internal/secret"
)

// maxTable bounds a table, in bytes.
const maxTable = 8 << 20

// withTable reads a table from file ("-": standard input) and calls use with
// its text. Keys in hex never leave this process as text: each becomes a key
// of the key store, passed by descriptor, and a reference takes its place.
func (c *cli) withTable(ctx context.Context, device, file string, use func(text string) (control.Changed, error)) error {
	if file == "" {
		return misusef("--table is missing: a file, or - for standard input")
	}
	raw, err := readTable(file)
	if err != nil {
		return err
	}
	defer raw.wipe()
	client := c.client()
	var added []string
	undo := func() {
		for _, name := range added {
			// What failed is reported; a key that stays is listed.
			client.EvictKey(context.WithoutCancel(ctx), name, control.EvictKey{Force: true})
		}
	}
	text, err := dm.TakeKeys(raw.text, func(typ, cipher string, digits []byte) (dm.KeyRef, error) {
		if raw.locked == nil {
			return dm.KeyRef{}, fmt.Errorf("there is not enough key memory for a table of %d bytes with a key in it: "+
				"name a key of the key store (keyway key add), or raise RLIMIT_MEMLOCK", len(raw.text))
		}
		name, size, err := c.addTableKey(ctx, client, device, typ, cipher, digits)
		if err != nil {
			return dm.KeyRef{}, err
		}
		added = append(added, name)
		return dm.KeyRef{Size: size, Type: "logon", Name: name}, nil
	})
	if err == nil {
		err = daemon.NoKeys(text)
	}
	if err != nil {
		undo()
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		undo()
		return err
	}
	ch, err := use(daemon.AbsTable(text, dir))
	if err != nil {
		undo()
		return err
	}
	for _, name := range added {
		warn("key in the table text: it is key %q now, until the last table that uses it goes or the daemon ends; "+
			"\"keyway key add\" keeps keys out of tables", name)
	}
	return changed(ch, nil)
}

// A tableText may have keys in it, and is in key memory unless there is too little.
type tableText struct {
	text   []byte
	locked *secret.Buffer // nil: in memory that may be swapped, where no key belongs
}

func (t tableText) wipe() {
	secret.Wipe(t.text)
	t.locked.Wipe()
}

// room returns n bytes: a long table without keys may be more than may be locked.
func room(n int) (t tableText, err error) {
	t.locked, err = secret.New(n)
	switch {
	case err == nil:
		t.text = t.locked.Bytes()
	case errors.Is(err, secret.ErrLimit):
		t.text = make([]byte, n)
	default:
		return t, err
	}
	return t, nil
}

// readTable reads the file; the caller wipes the text.
func readTable(file string) (tableText, error) {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return tableText{}, fmt.Errorf("table: %w", err)
		}
		defer f.Close()
		in = f
	}
	const first = 32 << 10 // bytes; longer ones move to twice the room
	for n, have := first, (tableText{}); ; n *= 2 {
		t, err := room(min(n, maxTable+1))
		if err != nil {
			have.wipe()
			return tableText{}, err
		}
		at := copy(t.text, have.text)
		have.wipe()
		m, err := io.ReadFull(in, t.text[at:])
		switch err {
		case nil:
			if n > maxTable {
				t.wipe()
				return tableText{}, fmt.Errorf("table %s has more than %d bytes", file, maxTable)
			}
			have = t
		case io.EOF, io.ErrUnexpectedEOF:
			t.text = t.text[:at+m]
			return t, nil
		default:
			t.wipe()
			return tableText{}, fmt.Errorf("table %s: %w", file, err)
		}
	}
}

// addTableKey gives the key store a key from hex digits, under a new name. typ
// and cipher are the words before it: what kind of target, and what cipher.
func (c *cli) addTableKey(ctx context.Context, client *control.Client, device, typ, cipher string, digits []byte) (name string, size int, err error) {
	if len(digits)%2 != 0 {
		return "", 0, fmt.Errorf("%d characters are neither a key reference :<size>:<type>:<name> nor a key in hex", len(digits))
	}
	mode, err := target.ModeOf(typ, cipher, len(digits)/2)
	if err != nil {
		return "", 0, err
	}
	b, err := secret.New(len(digits) / 2)
	if err != nil {
		return "", 0, err
	}
	defer b.Wipe()
	if _, err := hex.Decode(b.Bytes(), digits); err != nil {
		return "", 0, fmt.Errorf("%d characters that are not all hex digits", len(digits))
	}
	keys, err := client.Keys(ctx)
	if err != nil {
		return "", 0, err
	}
	taken := map[string]bool{}
	for _, k := range keys {
		taken[k.Name] = true
	}
	for n := 1; name == "" || taken[name]; n++ {
		name = fmt.Sprintf("table-%s-%d", device, n)
	}
	r := control.AddKey{Name: name, Mode: mode.String(), DataUnit: 512, Source: "table text", Auto: true, Weak: true}
	_, err = addKey(ctx, client, r, b)
	return name, len(digits) / 2, err
}

// addKey passes b by descriptor: through a pipe, which holds a page at least,
// more than any key has.
func addKey(ctx context.Context, client *control.Client, r control.AddKey, b *secret.Buffer) (control.Changed, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return control.Changed{}, err
	}
	defer out.Close()
	_, err = in.Write(b.Bytes())
	if e := in.Close(); err == nil {
		err = e
	}
	if err != nil {
		return control.Changed{}, fmt.Errorf("pipe for a key: %w", err)
	}
	return client.AddKey(ctx, r, out)
}
