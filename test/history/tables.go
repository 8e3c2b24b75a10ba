package history

import (
	"fmt"
	"math/rand/v2"

	"keyway/blkcrypto"
)

// levels bounds how many mapped devices stand on each other.
const levels = 4

// newTable makes up a table for d, nil for one that is not there yet.
func (h *history) newTable(r *rand.Rand, d *device) *table {
	t := &table{block: sector}
	end := (16 + 8*r.Int64N(9)) * sector
	for at, rows := int64(0), 1+r.IntN(4); at < end; rows-- {
		n := end - at
		if rows > 1 && n > h.granule {
			n = min(h.granule*(1+r.Int64N(n/h.granule)), n)
		}
		row := h.newRow(r, d, at, n)
		t.rows = append(t.rows, row)
		at = row.end
	}
	t.block = t.blocks()
	return t
}

// under are the devices on which d may stand, at least so large.
func (h *history) under(r *rand.Rand, d *device, size int64) *device {
	var all []*device
	for _, u := range h.all() {
		if u.size() >= size && u.level() < levels && (d == nil || !u.reaches(d) || oneIn(r, 60)) {
			all = append(all, u)
			if u.leaf == nil {
				all = append(all, u) // rather high stacks
			}
		}
	}
	return pick(r, all)
}

var rowKinds = []string{
	"linear", "linear", "linear", "striped", "striped", "crypt", "crypt", "inlinecrypt", "default-key", "default-key",
	"flakey", "delay", "dust", "unstriped", "switch", "zero", "error",
}

// newRow makes up a row of at most n bytes at start.
func (h *history) newRow(r *rand.Rand, d *device, start, n int64) *row {
	w := &row{kind: pick(r, rowKinds), start: start, end: start + n}
	switch w.kind {
	case "striped":
		h.striped(r, d, w)
	case "switch":
		w.chunk = h.granule << r.IntN(4)
		for range 1 + r.IntN(3) {
			h.stand(r, d, w, n)
		}
	case "unstriped":
		w.chunk = h.granule << r.IntN(3)
		w.stripes = 1 + r.Int64N(3)
		w.own = r.Int64N(w.stripes)
		w.end = start + (n+w.chunk-1)/w.chunk*w.chunk
		if start%w.chunk != 0 {
			w.kind = "zero"
			break
		}
		h.stand(r, d, w, w.end-start)
	case "zero", "error":
		if d := h.under(r, d, n); d != nil && !oneIn(r, 3) { // or there would be too many of them
			w.kind = "linear"
			h.stand(r, nil, w, n)
		}
	case "crypt", "inlinecrypt", "default-key":
		h.encrypting(r, w)
		h.stand(r, d, w, n)
	default:
		h.stand(r, d, w, n)
		w.refuses = w.kind == "flakey" && oneIn(r, 3)
		w.discards = true
		w.unit = sector << r.IntN(4)
		for w.unit > n {
			w.unit /= 2
		}
	}
	if len(w.devs) == 0 && w.kind != "error" {
		*w = row{kind: "zero", start: start, end: start + n}
	}
	w.fresh()
	return w
}

// stand puts another device under w, that has n bytes for it.
func (h *history) stand(r *rand.Rand, d *device, w *row, n int64) {
	u := h.under(r, d, n)
	for range 8 { // most tables are to be taken
		if u != nil && w.key != nil && w.key.cfg.KeyType == blkcrypto.HWWrapped && !u.serves(w.key.cfg) {
			u = h.under(r, d, n)
		}
	}
	if u == nil {
		return
	}
	step := max(h.granule, w.unit)
	off := r.Int64N((u.size()-n)/step+1) * step
	if oneIn(r, 3) {
		off = 0
	}
	w.devs, w.offs, w.names = append(w.devs, u), append(w.offs, off), append(w.names, u.name)
}

func (h *history) striped(r *rand.Rand, d *device, w *row) {
	n := 1 + r.Int64N(3)
	w.chunk = h.granule << r.IntN(4)
	each := max((w.end-w.start)/n/w.chunk, 1) * w.chunk
	w.end = w.start + n*each
	for range n {
		h.stand(r, d, w, each)
	}
	if int64(len(w.devs)) < n {
		w.devs = nil
	}
}

// encrypting makes up key, cipher and numbers of w.
func (h *history) encrypting(r *rand.Rand, w *row) {
	m := pick(r, h.stores)
	size := len(m.raw)
	w.kind = map[int]string{48: "crypt", 16: "crypt"}[size]
	spec, mode := "aes-xts-plain64", blkcrypto.AES256XTS
	switch {
	case m.wrapped:
		size = len(m.blob)
		w.kind = []string{"inlinecrypt", "default-key"}[r.IntN(2)]
	case size == 64:
		w.kind = []string{"crypt", "inlinecrypt", "default-key"}[r.IntN(3)]
	case size == 48:
		mode = blkcrypto.AES192XTS
	case size == 16:
		spec, mode = "aes-cbc-essiv:sha256", blkcrypto.AES128CBCESSIV
	default:
		switch w.kind = "crypt"; r.IntN(4) {
		case 0:
			mode = blkcrypto.AES128XTS
		case 1:
			spec, mode = "sm4-xts-plain64", blkcrypto.SM4XTS
		case 2:
			w.kind = "default-key"
			fallthrough
		default:
			spec, mode = "xchacha12,aes-adiantum-plain64", blkcrypto.Adiantum
		}
	}
	c := blkcrypto.Config{Mode: mode, KeyType: blkcrypto.Raw, DataUnitSize: sector}
	for h.granule > sector && c.DataUnitSize < 4096 && !oneIn(r, 3) {
		c.DataUnitSize *= 2
	}
	w.unit = int64(c.DataUnitSize)
	var opts []string
	if c.DataUnitSize > sector {
		opts = append(opts, fmt.Sprintf("sector_size:%d", c.DataUnitSize))
		if w.kind != "crypt" || oneIn(r, 2) {
			opts = append(opts, "iv_large_sectors")
		} else {
			c.Numbering = blkcrypto.BySector
		}
	}
	if w.discards = oneIn(r, 2); w.discards {
		opts = append(opts, "allow_discards")
	}
	if m.wrapped {
		c.KeyType = blkcrypto.HWWrapped
		opts = append(opts, map[string]string{"inlinecrypt": "keytype:hw-wrapped", "default-key": "wrappedkey_v0"}[w.kind])
	}
	if len(opts) > 0 {
		w.opts = fmt.Sprintf(" %d", len(opts))
		for _, o := range opts {
			w.opts += " " + o
		}
	}
	w.iv = []uint64{0, 8, 1 << 20, 1<<32 - 16, 1<<63 + 64}[r.IntN(5)]
	w.base = [4]uint64{w.iv}
	if c.Numbering == blkcrypto.ByUnit {
		w.base[0] /= uint64(c.DataUnitSize / sector)
	}
	key := &keyUse{cipher: newCipher(c, m.raw), name: m.name, of: m}
	last := plus(w.base, uint64((w.end-w.start)/w.unit-1)*key.step())
	key.cfg.DUNBytes = width(last)
	w.key = key
	w.spec = fmt.Sprintf("%s :%d:logon:%s", spec, size, m.name)
}

// spans are what a row needs of its devices.
func (w *row) spans() (all []piece) {
	for i, d := range w.devs {
		n := w.end - w.start
		if w.kind == "striped" {
			n /= int64(len(w.devs))
		}
		all = append(all, piece{dev: d, off: w.offs[i], n: n})
	}
	return all
}

// stands reports whether what is beneath t has room for it.
func (t *table) stands() bool {
	for _, r := range t.rows {
		for _, s := range r.spans() {
			if s.off+s.n > s.dev.size() || s.dev.block() > t.block || s.dev.gone {
				return false
			}
		}
	}
	return true
}

// taken finds the keys that a table which has been built took from the store.
func (h *history) takenBy(t *table) error {
	for _, r := range t.rows {
		if !r.encrypts() {
			continue
		}
		u := h.use(r.key.name, r.key.cfg)
		if u == nil {
			return fmt.Errorf("no key %s (%v) was taken", r.key.name, r.key.cfg)
		}
		r.key = u
	}
	return nil
}

// untaken makes r's key one that has not been taken, for building it again.
func (r *row) untaken() {
	if r.key != nil {
		r.key = &keyUse{cipher: newCipher(r.key.cfg, r.key.of.raw), name: r.key.name, of: r.key.of}
	}
}

// servable reports whether the engines beneath take the wrapped keys of t.
func (t *table) servable() bool {
	for _, r := range t.rows {
		if r.encrypts() && r.key.cfg.KeyType == blkcrypto.HWWrapped && !r.devs[0].serves(r.key.cfg) {
			return false
		}
	}
	return true
}
