package history

import (
	"bytes"
	"fmt"
	"math"
)

// sector is the unit of tables, and the least that a leaf writes at once.
const sector = 512

// A window is the steps from the first to the last, in which something happened
// at a moment that is not known.
type window struct{ from, to int }

// never is the end of what has not ended.
const never = math.MaxInt

// A version is one content of a sector: what some request wrote, or may have.
type version struct {
	data    []byte // nil: anything, after a discard
	wild    bool   // it was discarded: a crash may leave anything
	by      int    // the request
	during  window // to is never while it is under way
	certain bool   // it was written; others may have been
	durable bool   // a crash does not take it away

	// since is the step from which on a version that was found to be there may have
	// been written: it is one of several that overlapped, in the parts of one request
	// or in several, and until something later is durable a crash may bring back each.
	since int
}

// before reports whether v was over before w began.
func (v *version) before(w *version) bool { return v.during.to < w.during.from }

// A medium is what may lie on a leaf. Other than package model's Disk it knows
// requests of which nobody can tell where they went, as a table was replaced
// meanwhile; a look at the leaf settles that.
type medium struct{ sectors [][]version }

func newMedium(size int64) *medium {
	m := &medium{make([][]version, size/sector)}
	m.take(make([]byte, size))
	return m
}

// take makes data all that there is.
func (m *medium) take(data []byte) {
	for i := range m.sectors {
		m.sectors[i] = []version{{data: data[i*sector:][:sector], certain: true, durable: true}}
	}
}

// begin records that request by may write data, n bytes, from step on.
func (m *medium) begin(by, from int, off, n int64, data []byte) {
	for at := int64(0); at < n; at += sector {
		v := version{by: by, during: window{from, never}, wild: data == nil}
		if data != nil {
			v.data = data[at:][:sector]
		}
		s := &m.sectors[(off+at)/sector]
		known := false
		for _, o := range *s {
			known = known || o.by == by && (o.data == nil) == (v.data == nil) && bytes.Equal(o.data, v.data)
		}
		if !known {
			*s = append(*s, v)
		}
	}
}

// end records how the request went.
func (m *medium) end(by, to int, off, n int64, certain, durable bool) {
	for i := off / sector; i < (off+n)/sector; i++ {
		for j := range m.sectors[i] {
			if v := &m.sectors[i][j]; v.by == by {
				v.during.to, v.certain = to, certain
				v.durable = v.durable || durable && certain
			}
		}
	}
}

// flush records that all is durable that was over before step began.
func (m *medium) flush(began int) {
	for i := range m.sectors {
		for j := range m.sectors[i] {
			if v := &m.sectors[i][j]; v.certain && v.during.to < began {
				v.durable = true
			}
		}
	}
}

// replaced reports whether a durable version has replaced version j for good.
func replaced(all []version, j int) bool {
	for k := range all {
		from := all[k].during.from
		if all[k].since != 0 {
			from = all[k].since
		}
		if all[k].durable && all[j].during.to < from {
			return true
		}
	}
	return false
}

// shows reports whether somebody who looks during w may see version j.
func shows(all []version, j int, w window) bool {
	if all[j].during.from > w.to {
		return false
	}
	for k := range all {
		if all[k].certain && all[k].during.to < w.from && all[j].before(&all[k]) {
			return false
		}
	}
	return true
}

// reads reports whether data may have been read at off during w.
func (m *medium) reads(off int64, data []byte, w window) bool {
	for at := 0; at < len(data); at += sector {
		if !m.oneReads((off+int64(at))/sector, data[at:at+sector], w) {
			return false
		}
	}
	return true
}

func (m *medium) oneReads(i int64, data []byte, w window) bool {
	for j, v := range m.sectors[i] {
		if (v.data == nil || bytes.Equal(v.data, data)) && shows(m.sectors[i], j, w) {
			return true
		}
	}
	return false
}

// settle compares what lies on the leaf when nothing is under way, at a step of
// its own, and keeps it as what is there. What nobody will ever see is forgotten.
func (m *medium) settle(now int, got []byte) error {
	for i := range m.sectors {
		data := got[i*sector:][:sector]
		all := m.sectors[i]
		var kept []version
		for j := range all {
			if !replaced(all, j) {
				kept = append(kept, all[j])
			}
		}
		all = kept
		m.sectors[i] = all
		if len(all) == 1 && all[0].certain && !all[0].wild && bytes.Equal(all[0].data, data) {
			continue
		}
		if !m.oneReads(int64(i), data, window{now, now}) {
			return fmt.Errorf("sector %d holds %x…, and may hold %s", i, data[:8], describe(all, window{now, now}))
		}
		seen, wild, since := 0, false, now
		for j := range all {
			if shows(all, j, window{now, now}) {
				seen++
				wild = wild || all[j].wild
				since = min(since, all[j].during.from)
			}
		}
		last := all[len(all)-1]
		if seen > 1 || last.data == nil || !last.certain {
			m.sectors[i] = append(all, version{data: bytes.Clone(data), wild: wild, during: window{now, now}, certain: true, since: since})
		}
	}
	return nil
}

// crash compares what a loss of power has left, and makes that all there is.
func (m *medium) crash(left []byte) error {
	for i, all := range m.sectors {
		data := left[i*sector:][:sector]
		ok := false
		for j, v := range all {
			ok = ok || !replaced(all, j) && (v.wild || bytes.Equal(v.data, data))
		}
		if !ok {
			return fmt.Errorf("sector %d holds %x… after the crash, and may hold %s", i, data[:8], describe(all, window{0, never}))
		}
	}
	m.take(left)
	return nil
}

func describe(all []version, w window) (s string) {
	for j, v := range all {
		if !shows(all, j, w) {
			continue
		}
		if s != "" {
			s += " or "
		}
		if v.data == nil {
			s += "anything"
		} else {
			s += fmt.Sprintf("%x… (of request %d)", v.data[:8], v.by)
		}
	}
	return s
}
