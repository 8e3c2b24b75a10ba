package history

import (
	"fmt"
	"slices"
	"strings"

	"keyway/blkcrypto"
)

// A device is what the model knows of a mapped device or a leaf.
type device struct {
	name    string
	born    string // the first name
	leaf    *leaf  // nil: it has tables
	lives   []life // the live tables, in turn
	loaded  *table // the inactive one
	coming  *life  // the table that a change under way makes live, if it succeeds
	paused  bool   // suspended
	gone    bool   // removed
	last    bool   // to be removed when nobody has it open any more
	changes int    // steps under way that change it
	handles int    // requests under way that have it open
	seen    bool   // on the way (traced: of a context) that is being followed: tables of different times may form circles
	traced  bool
}

// A life is the steps in which a table was live, or may have been.
type life struct {
	*table
	window
}

// A table is a list of rows; block is the least size of a request in bytes, fixed
// when it was built.
type table struct {
	rows  []*row
	block int64
}

// A row is a part of a table, from start to end in bytes.
type row struct {
	kind       string
	start, end int64
	devs       []*device
	names      []string // under which the table opened them
	offs       []int64  // bytes, one for each device
	chunk      int64    // striped, switch, unstriped: bytes
	stripes    int64    // unstriped
	own        int64    // unstriped: the stripe
	regions    []int    // switch: the path of each region
	refuses    bool     // flakey: it passes no contexts
	discards   bool     // crypt: it passes discards
	unit       int64    // dust: of the list of bad blocks; crypt: the sector size
	dusty      bool     // dust: enabled
	bad        map[int64]bool

	key  *keyUse // crypt and its like
	base [4]uint64
	spec string // cipher and key, as the table has them
	opts string
	iv   uint64
}

// encrypts reports whether the row adds a context.
func (r *row) encrypts() bool { return r.key != nil }

// passes reports whether the row takes a context from above.
func (r *row) passes(marked bool) bool {
	switch r.kind {
	case "linear", "striped", "unstriped", "switch", "delay", "dust":
		return true
	case "flakey":
		return !r.refuses
	case "default-key":
		return marked
	}
	return false
}

// cuts is the size at whose multiples the row cuts requests, 0 if it does not.
func (r *row) cuts() int64 {
	switch r.kind {
	case "striped", "switch":
		if len(r.devs) > 1 {
			return r.chunk
		}
	case "unstriped":
		if r.stripes > 1 {
			return r.chunk
		}
	}
	return 0
}

// A piece is a part of a request, and where a row sends it.
type piece struct {
	dev        *device
	off, at, n int64 // on dev; in the request; bytes
}

// pieces are where the n bytes at off of the row lie, in order.
func (r *row) pieces(off, n int64) []piece {
	if len(r.devs) == 0 {
		return nil
	}
	size := r.chunk
	if size == 0 {
		return []piece{{r.devs[0], r.offs[0] + off, 0, n}}
	}
	var all []piece
	for at := int64(0); at < n; {
		here := off + at
		var p piece
		switch r.kind {
		case "striped":
			c, of := here/size, int64(len(r.devs))
			p = piece{dev: r.devs[c%of], off: r.offs[c%of] + c/of*size + here%size}
		case "switch":
			path := r.regions[here/size]
			p = piece{dev: r.devs[path], off: r.offs[path] + here}
		case "unstriped":
			here += r.start // chunks count from the start of the table
			p = piece{dev: r.devs[0], off: r.offs[0] + (here/size*r.stripes+r.own)*size + here%size}
		}
		p.at, p.n = at, min(n-at, size-here%size)
		all = append(all, p)
		at += p.n
	}
	return all
}

// size is that of the table, in bytes.
func (t *table) size() int64 {
	if t == nil || len(t.rows) == 0 {
		return 0
	}
	return t.rows[len(t.rows)-1].end
}

// text is the table as dm.Parse reads it.
func (t *table) text() string {
	var b strings.Builder
	for _, r := range t.rows {
		fmt.Fprintf(&b, "%d %d %s", r.start/sector, (r.end-r.start)/sector, r.kind)
		dev := func(i int) string { return fmt.Sprintf(" %s %d", r.names[i], r.offs[i]/sector) }
		switch r.kind {
		case "linear":
			b.WriteString(dev(0))
		case "delay":
			b.WriteString(dev(0) + " 0")
		case "dust":
			fmt.Fprintf(&b, "%s %d", dev(0), r.unit)
		case "flakey":
			b.WriteString(dev(0) + " 3600 0")
			if r.refuses {
				b.WriteString(" 1 corrupt_ciphertext")
			}
		case "unstriped":
			fmt.Fprintf(&b, " %d %d %d%s", r.stripes, r.chunk/sector, r.own, dev(0))
		case "striped", "switch":
			fmt.Fprintf(&b, " %d %d", len(r.devs), r.chunk/sector)
			if r.kind == "switch" {
				b.WriteString(" 0")
			}
			for i := range r.devs {
				b.WriteString(dev(i))
			}
		case "crypt", "inlinecrypt", "default-key":
			fmt.Fprintf(&b, " %s %d%s%s", r.spec, r.iv, dev(0), r.opts)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// again is t as it is when it is built anew, with the names of now: messages
// have not reached it.
func (t *table) again() *table {
	c := &table{block: 512}
	for _, r := range t.rows {
		r := *r
		r.names = nil
		for _, d := range r.devs {
			r.names = append(r.names, d.name)
		}
		r.fresh()
		c.rows = append(c.rows, &r)
	}
	c.block = c.blocks()
	return c
}

// fresh sets what messages change.
func (r *row) fresh() {
	r.dusty, r.bad = false, map[int64]bool{}
	if r.kind == "switch" {
		r.regions = make([]int, (r.end-r.start+r.chunk-1)/r.chunk)
		for i := range r.regions {
			r.regions[i] = i % len(r.devs)
		}
	}
}

// blocks is the block size that a table of these rows has if it is built now.
func (t *table) blocks() int64 {
	n := int64(512)
	for _, r := range t.rows {
		if r.encrypts() {
			n = max(n, r.unit)
		}
		for _, d := range r.devs {
			n = max(n, d.block())
		}
	}
	return n
}

// devices are those beneath the table, each once.
func (t *table) devices() []*device {
	var all []*device
	if t == nil {
		return nil
	}
	for _, r := range t.rows {
		for _, d := range r.devs {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

// live is the table of now, nil if there is none.
func (d *device) live() *table {
	if len(d.lives) == 0 {
		return nil
	}
	return d.lives[len(d.lives)-1].table
}

// during are the tables that may have been live in w; nil stands for none.
func (d *device) during(w window) []*table {
	var all []*table
	for _, l := range d.lives {
		if l.from <= w.to && l.to >= w.from {
			all = append(all, l.table)
		}
	}
	if c := d.coming; c != nil && c.from <= w.to {
		all = append(all, c.table)
	}
	return all
}

// follow calls f unless d is already on the way.
func (d *device) follow(f func()) {
	if !d.seen {
		d.seen = true
		f()
		d.seen = false
	}
}

// become makes t live by a step that lasted for w.
func (d *device) become(t *table, w window) {
	if n := len(d.lives); n > 0 {
		d.lives[n-1].to = w.to
	}
	d.lives = append(d.lives, life{t, window{w.from, never}})
}

func (d *device) size() int64 {
	if d.leaf != nil {
		return d.leaf.size
	}
	return d.live().size()
}

func (d *device) block() int64 {
	switch {
	case d.leaf != nil:
		return d.leaf.block
	case d.live() == nil:
		return 512
	}
	return d.live().block
}

// reaches reports whether d stands on e, or is e, by live or inactive tables.
func (d *device) reaches(e *device) bool {
	if d == e {
		return true
	}
	for _, t := range []*table{d.live(), d.loaded} {
		for _, u := range t.devices() {
			if u.reaches(e) {
				return true
			}
		}
	}
	return false
}

// circles reports whether d stands on itself.
func (d *device) circles() bool {
	seen := map[*device]bool{}
	var on func(u *device) bool
	on = func(u *device) bool {
		for _, t := range []*table{u.live(), u.loaded} {
			for _, x := range t.devices() {
				if x == d {
					return true
				}
				if !seen[x] {
					if seen[x] = true; on(x) {
						return true
					}
				}
			}
		}
		return false
	}
	return on(d)
}

// leaves are those under d, by its live tables.
func (d *device) leaves(found map[*leaf]bool) map[*leaf]bool {
	if d.leaf != nil {
		found[d.leaf] = true
	}
	for _, u := range d.live().devices() {
		u.leaves(found)
	}
	return found
}

// allLeaves adds those under d by inactive tables too.
func (d *device) allLeaves(found map[*leaf]bool) {
	if d.leaf != nil {
		found[d.leaf] = true
	}
	for _, t := range []*table{d.live(), d.loaded} {
		for _, u := range t.devices() {
			u.allLeaves(found)
		}
	}
}

// level is how many devices stand on each other, leaves not counted.
func (d *device) level() int {
	n := 0
	if d.leaf == nil {
		for _, t := range []*table{d.live(), d.loaded} {
			n = max(n, 1+t.level())
		}
	}
	return n
}

func (t *table) level() int {
	n := 0
	for _, u := range t.devices() {
		n = max(n, u.level())
	}
	return n
}

// serves reports whether every request to d with a key of config c goes to an
// engine: the profile.
func (d *device) serves(c blkcrypto.Config) bool {
	if d.leaf != nil {
		return d.leaf.engine != nil && d.leaf.engine.serves(c)
	}
	t := d.live()
	return t != nil && !slices.ContainsFunc(t.rows, func(r *row) bool { return !r.serves(c) })
}

func (r *row) serves(c blkcrypto.Config) bool {
	unit := int64(c.DataUnitSize)
	return r.passes(true) && len(r.devs) > 0 && r.start%unit == 0 && r.cuts()%unit == 0 &&
		!slices.ContainsFunc(r.devs, func(d *device) bool { return !d.serves(c) })
}
