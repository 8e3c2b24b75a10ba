package luks

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// only2 refuses what LUKS1 does not have.
func (e *Editor) only2(what string) error {
	if err := e.ready(); err != nil {
		return err
	}
	if e.h.Version != 2 {
		return fmt.Errorf("luks: LUKS%d has no %s", e.h.Version, what)
	}
	return nil
}

// edit2 changes the metadata of a LUKS2 header.
func (e *Editor) edit2(change func(meta *value)) error {
	meta := e.h.meta.clone()
	change(meta)
	if err := e.put2(meta, nil); err != nil {
		return fmt.Errorf("luks: %w", err)
	}
	return nil
}

// SetPriority says when a keyslot is tried: 0 only if it is asked for, 1 normally,
// 2 before the others. LUKS2.
func (e *Editor) SetPriority(slot, priority int) error {
	if err := e.only2("priorities"); err != nil {
		return err
	}
	switch {
	case e.h.keyslot(slot) == nil:
		return fmt.Errorf("luks: keyslot %d is not in use", slot)
	case priority < 0 || priority > 2:
		return fmt.Errorf("luks: priority %d is not 0 (ignore), 1 (normal) or 2 (prefer)", priority)
	}
	return e.edit2(func(meta *value) {
		o := meta.get("keyslots").get(strconv.Itoa(slot))
		if priority == 1 {
			o.remove("priority") // what is not there is normal
		} else {
			o.set("priority", num(priority))
		}
	})
}

// SetFlags sets the options that each activation has: names of LUKS2, such as
// allow-discards, of which "no-journal" is for integrity. Others are refused, but
// for those that the header has.
func (e *Editor) SetFlags(flags []string) error {
	if err := e.only2("persistent flags"); err != nil {
		return err
	}
	for i, f := range flags {
		known := f == "no-journal" || slices.ContainsFunc(options, func(o struct{ flag, option string }) bool { return o.flag == f })
		switch {
		case !known && !slices.Contains(e.h.Flags, f):
			return fmt.Errorf("luks: flag %q is not known (there are: %s)", f, flagNames())
		case slices.Contains(flags[:i], f):
			return fmt.Errorf("luks: flag %q is there twice", f)
		}
	}
	return e.edit2(func(meta *value) {
		if len(flags) == 0 {
			meta.get("config").remove("flags")
		} else {
			meta.get("config").set("flags", strs(flags))
		}
	})
}

func flagNames() string {
	s := "no-journal"
	for _, o := range options {
		s += ", " + o.flag
	}
	return s
}

// SetLabel sets label and subsystem, by which udev finds a volume: up to 47 bytes
// each without control characters. LUKS2.
func (e *Editor) SetLabel(label, subsystem string) error {
	if err := e.only2("label"); err != nil {
		return err
	}
	if err := e.put2(e.h.meta.clone(), func(h *Header) { h.Label, h.Subsystem = label, subsystem }); err != nil {
		return fmt.Errorf("luks: %w", err)
	}
	return nil
}

// SetUUID sets the UUID, in the form 01234567-89ab-cdef-0123-456789abcdef.
func (e *Editor) SetUUID(uuid string) error {
	if err := e.ready(); err != nil {
		return err
	}
	err := checkUUID(uuid)
	if err == nil && e.h.Version == 1 {
		raw := slices.Clone(e.h.luks1.raw)
		pad(raw[uuid1At:][:40], uuid)
		err = e.put1(raw, true)
	} else if err == nil {
		err = e.put2(e.h.meta.clone(), func(h *Header) { h.UUID = uuid })
	}
	if err != nil {
		return fmt.Errorf("luks: %w", err)
	}
	return nil
}

// AnyToken lets AddToken choose the first number that is free.
const AnyToken = -1

// JSON returns the token as cryptsetup exports it: one object without blanks.
func (t *Token) JSON() []byte { return t.meta.compact(nil) }

// AddToken adds a token, an object of JSON with at least its type and a list of the
// keyslots that it is for, under a number or the first free one (AnyToken), and
// returns that. LUKS2. Types that begin with "luks2-" belong to the format: of them
// luks2-keyring is known, with its key_description.
func (e *Editor) AddToken(text []byte, id int) (int, error) {
	if err := e.only2("tokens"); err != nil {
		return 0, err
	}
	if id != AnyToken && (id < 0 || id > maxID) {
		return 0, fmt.Errorf("luks: token %d: there are 0 to %d", id, maxID)
	}
	inUse := func(id int) bool { return slices.ContainsFunc(e.h.Tokens, func(t Token) bool { return t.ID == id }) }
	if id == AnyToken {
		for id = 0; inUse(id); id++ {
			if id == maxID {
				return 0, fmt.Errorf("luks: all %d tokens are in use: %w: remove one first", maxID+1, ErrFull)
			}
		}
	} else if inUse(id) {
		return 0, fmt.Errorf("luks: token %d is in use: remove it first, or take another number", id)
	}
	token, err := parseJSON(trimBlanks(text))
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return 0, fmt.Errorf("luks: token: %w", err)
	}
	return id, e.edit2(func(meta *value) { meta.get("tokens").setID(id, token) })
}

func trimBlanks(b []byte) []byte {
	blank := func(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && blank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// checkToken checks what put2 does not: types of the format itself.
func checkToken(token *value) error {
	f := &fields{}
	kind := f.word(token, "token", "type")
	if f.err != nil || len(kind) < 6 || kind[:6] != "luks2-" {
		return f.err
	}
	if kind != "luks2-keyring" {
		return fmt.Errorf("type %q belongs to the format and is not known", kind)
	}
	f.need(token, "token", "key_description", '"')
	if f.err == nil && len(token.members) != 3 {
		return errors.New("luks2-keyring has type, keyslots and key_description alone")
	}
	return f.err
}

// RemoveToken removes a token; its keyslots stay. LUKS2.
func (e *Editor) RemoveToken(id int) error {
	if err := e.only2("tokens"); err != nil {
		return err
	}
	if !slices.ContainsFunc(e.h.Tokens, func(t Token) bool { return t.ID == id }) {
		return fmt.Errorf("luks: token %d is not in use", id)
	}
	return e.edit2(func(meta *value) { meta.get("tokens").removeID(id) })
}

// AssignToken adds a keyslot to those that a token is for, or takes it away. LUKS2.
func (e *Editor) AssignToken(id, slot int, assigned bool) error {
	if err := e.only2("tokens"); err != nil {
		return err
	}
	i := slices.IndexFunc(e.h.Tokens, func(t Token) bool { return t.ID == id })
	if i < 0 {
		return fmt.Errorf("luks: token %d is not in use", id)
	}
	if e.h.keyslot(slot) == nil {
		return fmt.Errorf("luks: keyslot %d is not in use", slot)
	}
	if slices.Contains(e.h.Tokens[i].Keyslots, slot) == assigned {
		return nil
	}
	return e.edit2(func(meta *value) {
		list := meta.get("tokens").get(strconv.Itoa(id)).get("keyslots")
		if assigned {
			list.items = append(list.items, str(strconv.Itoa(slot)))
		} else {
			unlist(list, slot)
		}
	})
}
