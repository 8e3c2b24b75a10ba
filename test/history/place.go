package history

// A placement is where bytes of a request come to lie, and as what.
type placement struct {
	leaf   *leaf
	off, n int64
	data   []byte // nil: anything
}

// place adds to all what the tables of w make of n bytes at off of d. Data is nil
// for a discard. A marked request skips default keys.
func place(all []placement, d *device, off, n int64, data []byte, marked bool, w window) []placement {
	if d.leaf != nil {
		if off+n > d.leaf.size {
			return all // the stripe of an unstriped row, whose part fails
		}
		return append(all, placement{d.leaf, off, n, data})
	}
	d.follow(func() {
		for _, t := range d.during(w) {
			t.each(off, n, func(r *row, p piece) {
				if p.dev == nil {
					return
				}
				part, skips := []byte(nil), marked
				if data != nil {
					part, skips = r.beneath(p, data, marked)
					if part == nil {
						return
					}
				}
				all = place(all, p.dev, p.off, p.n, part, skips, w)
			})
		}
	})
	return all
}

// fits reports whether data may be what a read of d at off returned: each leaf's
// bytes, by some table of w, are what data encrypts to. With written it is whether
// a write of data left that there.
func fits(d *device, off int64, data []byte, marked, written bool, w window, reads func(l *leaf, off int64, data []byte) bool) bool {
	if d.leaf != nil {
		return off+int64(len(data)) <= d.leaf.size && reads(d.leaf, off, data)
	}
	found := false
	d.follow(func() { found = d.fitsBy(off, data, marked, written, w, reads) })
	return found
}

func (d *device) fitsBy(off int64, data []byte, marked, written bool, w window, reads func(l *leaf, off int64, data []byte) bool) bool {
	for _, t := range d.during(w) {
		ok := t != nil && off+int64(len(data)) <= t.size()
		if ok {
			t.each(off, int64(len(data)), func(r *row, p piece) {
				if p.dev == nil {
					ok = ok && r.kind == "zero" && (written || allZero(data[p.at:p.at+p.n]))
					return
				}
				part, skips := r.beneath(p, data, marked)
				ok = ok && part != nil && fits(p.dev, p.off, part, skips, written, w, reads)
			})
		}
		if ok {
			return true
		}
	}
	return false
}

// beneath is the part of data that goes where p says, as the row encrypts it, and
// whether it still skips default keys; nil if it is not whole units.
func (r *row) beneath(p piece, data []byte, marked bool) (part []byte, skips bool) {
	part = data[p.at : p.at+p.n]
	if !r.encrypts() || r.kind == "default-key" && marked {
		return part, marked
	}
	at := p.off - r.offs[0]
	if (at|p.n)%r.unit != 0 {
		return nil, false
	}
	return r.key.encrypt(plus(r.base, uint64(at/r.unit)*r.key.step()), part), false
}

// each calls f for the rows that n bytes at off touch, and for each place to which
// a row sends a part, with at counted from off; p.dev is nil where nothing is
// beneath.
func (t *table) each(off, n int64, f func(r *row, p piece)) {
	if t == nil {
		return
	}
	for _, r := range t.rows {
		from, to := max(off, r.start), min(off+n, r.end)
		if from >= to {
			continue
		}
		pieces := r.pieces(from-r.start, to-from)
		if len(pieces) == 0 {
			f(r, piece{at: from - off, n: to - from})
		}
		for _, p := range pieces {
			p.at += from - off
			f(r, p)
		}
	}
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
