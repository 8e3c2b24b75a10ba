package dm

import (
	"fmt"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
)

// What a target may tell of how it maps requests, found by type assertion.
type (
	// A Mapper tells where it sends a request. Map turns r, which counts from
	// the row's start and lies within one chunk of a Chunked target, into the
	// one that the target sends beneath, and returns to which device; nil
	// without an error if the target performs it by itself. It does not
	// perform anything. The target's own Do goes by it.
	Mapper interface {
		Map(r *block.Request) (block.Device, error)
	}

	// An Explainer has more to say, in words, of the byte at off of its row.
	Explainer interface{ Explain(off int64) string }
)

// A Question asks where a request for a sector goes, and why.
type Question struct {
	Sector int64
	Write  bool

	// Key, if not nil, comes with the request, as an upper layer sends it. DUN
	// is the number of the data unit that holds the sector; nil: its index,
	// counted from the start of the device. Marked requests have
	// block.SkipDefaultKey.
	Key    *blkcrypto.Key
	DUN    *blkcrypto.DUN
	Marked bool
}

// An Explanation is the way of a request, from the device that was asked down
// to the medium, as it is at this moment.
type Explanation struct {
	Device   string
	Op       block.Op
	Off, Len int64 // bytes: the data unit, or the block, that holds the sector
	Steps    []Step
	Ciphers  []Cipher // that data passes on its way down
	Medium   *Medium  // nil: the request does not get to one, or nobody can tell to which
	Waits    []string // suspended devices on the way
	Fails    error    // what the request fails with, else nil
}

// A Step is what one device does.
type Step struct {
	Device    string
	Sector    int64 // of the device, that was asked for
	Suspended bool

	Row, Rows     int   // of the live table, from 1; 0: there is none
	Start, Length int64 // of the row, in sectors
	Target        string
	Says          string // in the target's own words, or ""

	Carries  *Carried // the context with which the request comes
	Marked   bool
	Decision *Decision // what becomes of that context
	Adds     *Carried  // the context that the target gives it

	To      []Place // where it goes
	Unknown bool    // the target does not tell where: To is all that is beneath
}

// Carried is an encryption context at the sector in question.
type Carried struct {
	Key    string
	ID     uint64
	Config blkcrypto.Config
	DUN    blkcrypto.DUN // of the data unit
	Within int           // bytes from the start of the data unit
}

// Who transforms data units.
type By string

const (
	ByEngine   By = "engine"   // of this leaf
	ByBeneath  By = "beneath"  // the context goes down: some engine there
	ByFallback By = "fallback" // at this level, in software
	ByNobody   By = "nobody"   // the request fails
)

// A Decision says who serves a context, and why not an engine beneath.
type Decision struct {
	By     By
	Engine string // its name, or the fallback's
	Slot   int    // that holds the key; -1: none
	State  string // of the key there, for people
	Reason Reason // why no engine beneath; "" if one does
	Why    string // the same for people
}

// A Cipher is one encryption that data passes.
type Cipher struct {
	Carried
	By     By
	Device string // where it happens
	Engine string
}

// A Place is a position on something beneath.
type Place struct {
	Device string
	Sector int64
}

// A Medium is where the bytes lie.
type Medium struct {
	Device  string // the leaf
	Backend string
	Off     int64 // bytes, of the sector that was asked for
}

// Explain says where the request goes and why. The decisions are not repeated
// here but made by the code that serves requests.
func (m *Mapped) Explain(q Question) (Explanation, error) {
	x := Explanation{Device: m.Name()}
	t := m.live.Load()
	if t == nil {
		return x, fmt.Errorf("device %q: %w", x.Device, ErrNoTable)
	}
	if q.Sector < 0 || q.Sector >= t.Size()>>sectorShift {
		return x, fmt.Errorf("device %q has no sector %d: the last is %d", x.Device, q.Sector, t.Size()>>sectorShift-1)
	}
	w := walk{x: &x, at: q.Sector << sectorShift}
	unit := int64(t.block)
	if q.Key != nil {
		unit = max(unit, int64(q.Key.Config().DataUnitSize))
	}
	w.r = block.Request{Off: w.at &^ (unit - 1), Len: unit, Data: block.Bytes(make([]byte, unit))}
	if q.Write {
		w.r.Op = block.OpWrite
	}
	if q.Marked {
		w.r.Flags = block.SkipDefaultKey
	}
	if q.Key != nil {
		if err := w.give(q.Key, q.DUN); err != nil {
			return x, fmt.Errorf("device %q: %w", x.Device, err)
		}
	}
	x.Op, x.Off, x.Len = w.r.Op, w.r.Off, w.r.Len
	w.down(m)
	return x, nil
}

// A walk follows a request down. r is what the next device gets, at the byte
// of it that was asked for, in bytes of that device.
type walk struct {
	x        *Explanation
	r        block.Request
	at       int64
	fallback *keyslot.Manager // of the table above
}

// give gives the request a context.
func (w *walk) give(k *blkcrypto.Key, dun *blkcrypto.DUN) error {
	c := k.Config()
	w.r.Crypt = blkcrypto.Context{Key: k, DUN: c.DUN(blkcrypto.DUN{}, w.r.Off)}
	if dun == nil {
		return nil
	}
	before := (w.at - w.r.Off) &^ int64(c.DataUnitSize-1)
	w.r.Crypt = blkcrypto.Context{Key: k, DUN: *dun}.Rewind(before)
	if _, wrapped := w.r.Crypt.DUN.Add(uint64(before >> sectorShift)); wrapped {
		return fmt.Errorf("no request brings this number there: its block of %d bytes begins %d data units before, below number 0",
			w.r.Len, before>>c.UnitShift())
	}
	return nil
}

// down follows the request to where it ends.
func (w *walk) down(m *Mapped) {
	for {
		switch dev := w.through(m).(type) {
		case nil:
			return
		case *Handle:
			m = dev.Mapped
		default:
			w.foreign(dev)
			return
		}
	}
}

// carried is the context of the request at the byte asked for.
func (w *walk) carried() *Carried {
	k := w.r.Crypt.Key
	if k == nil {
		return nil
	}
	c := k.Config()
	in := w.at - w.r.Off
	within := in & int64(c.DataUnitSize-1)
	return &Carried{Key: k.Name(), ID: k.ID(), Config: c, DUN: c.DUN(w.r.Crypt.DUN, in-within), Within: int(within)}
}

// part keeps what lies between two offsets; with a context, whole data units of it,
// as the table divides requests.
func (w *walk) part(from, to int64) {
	from, to = max(from-w.r.Off, 0), min(to-w.r.Off, w.r.Len)
	if k := w.r.Crypt.Key; k != nil {
		unit := int64(k.Config().DataUnitSize)
		from, to = (from+unit-1)&^(unit-1), to&^(unit-1)
	}
	w.r = w.r.Sub(from, to-from)
}

// fail records the first thing that makes the request fail.
func (w *walk) fail(err error) {
	if w.x.Fails == nil {
		w.x.Fails = err
	}
}

// through adds the step of m and returns the device to which the request goes
// then, nil if it ends there.
func (w *walk) through(m *Mapped) block.Device {
	s := Step{Device: m.Name(), Sector: w.at >> sectorShift, Suspended: m.gate.Closed(), Marked: w.r.Flags&block.SkipDefaultKey != 0}
	s.Carries = w.carried()
	if s.Suspended {
		w.x.Waits = append(w.x.Waits, s.Device)
	}
	next := w.byTable(m, &s)
	w.x.Steps = append(w.x.Steps, s)
	return next
}

func (w *walk) byTable(m *Mapped, s *Step) block.Device {
	t := m.live.Load()
	if t == nil {
		w.fail(fmt.Errorf("%s: %w", s.Device, m.noTable()))
		return nil
	}
	s.Rows, w.fallback = len(t.rows), t.fallback
	if err := block.CheckAt(&w.r, t.Size(), t.block, t.readOnly); err != nil {
		w.fail(fmt.Errorf("%s: %w", s.Device, err))
		return nil
	}
	i := t.find(w.at)
	row := &t.rows[i]
	s.Row, s.Start, s.Length, s.Target = i+1, row.start>>sectorShift, (row.end-row.start)>>sectorShift, row.typ.Name
	if s.Carries != nil {
		s.Decision = w.decide(t, s.Device)
		w.account(s)
	}
	w.part(row.start, row.end)
	if row.chunk != 0 {
		c := row.start + (w.at-row.start)/row.chunk*row.chunk
		w.part(c, c+row.chunk)
	}
	w.r.Off -= row.start
	w.at -= row.start
	if e, ok := row.target.(Explainer); ok {
		s.Says = e.Explain(w.at)
	}
	if l, ok := row.target.(*leaf); ok {
		w.x.Medium = &Medium{s.Device, l.text, w.at}
		return nil
	}
	return w.byTarget(row.target, s)
}

// byTarget lets the target map the request.
func (w *walk) byTarget(t Target, s *Step) block.Device {
	mapper, ok := t.(Mapper)
	if !ok {
		s.Unknown = true
		for _, u := range t.Under() {
			s.To = append(s.To, Place{placeName(u.Dev), (u.Off + w.at) >> sectorShift})
		}
		return nil
	}
	from, had := w.r.Off, w.r.Crypt.Active()
	dev, err := mapper.Map(&w.r)
	if err != nil {
		w.fail(fmt.Errorf("%s: target %s: %w", s.Device, s.Target, err))
		return nil
	}
	if dev == nil {
		return nil
	}
	w.at += w.r.Off - from
	s.To = []Place{{placeName(dev), w.at >> sectorShift}}
	if !had {
		s.Adds = w.carried()
	}
	return dev
}

// placeName is the name of a mapped device, or what people call another.
func placeName(dev block.Device) string {
	if h, ok := dev.(*Handle); ok {
		return h.Name()
	}
	return DeviceName(dev)
}

// account records the encryption, if this step is where it is done or ought to
// be, and takes the context off the request, as who does it does.
func (w *walk) account(s *Step) {
	if d := s.Decision; d.By != ByBeneath {
		w.x.Ciphers = append(w.x.Ciphers, Cipher{*s.Carries, d.By, s.Device, d.Engine})
		w.r.Crypt = blkcrypto.Context{}
	}
}

// foreign is a device that is not mapped: it, or the fallback before it.
func (w *walk) foreign(dev block.Device) {
	s := Step{Device: DeviceName(dev), Sector: w.at >> sectorShift, Carries: w.carried(), Marked: w.r.Flags&block.SkipDefaultKey != 0}
	p := dev.Info().Crypto
	h, honours := dev.(*honouring)
	if honours {
		p, s.Device = h.profile, DeviceName(h.Device)
	}
	if k := w.r.Crypt.Key; k != nil {
		c := k.Config()
		switch {
		case p.Supports(c):
			s.Decision = &Decision{By: ByEngine, Engine: s.Device, Slot: -1, State: "its own affair"}
		case honours:
			s.Decision = w.software(k)
			s.Decision.Reason, s.Decision.Why = lacks(&p, c)
			s.Decision.Why = s.Device + " " + s.Decision.Why
		default:
			s.Decision = &Decision{By: ByNobody, Slot: -1}
			w.fail(fmt.Errorf("%s: %w", s.Device, block.ErrNoCrypto))
		}
		w.account(&s)
	}
	w.x.Steps = append(w.x.Steps, s)
	w.x.Medium = &Medium{s.Device, s.Device, w.at}
}
