package trace

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
)

// Read reads a trace and calls each for every event in the order of the file. What it
// points to is valid until each returns; an error of each ends the reading. A trace
// whose end is missing is read as far as it goes, and Info tells. Errors name the line.
func Read(src io.Reader, each func(*Event) error) (*Info, error) {
	r := &reader{
		src: bufio.NewReaderSize(src, MaxLine), each: each,
		engines: map[int64]int{}, keys: map[int64]int{},
	}
	for {
		line, err := r.src.ReadSlice('\n')
		if err == nil || len(line) > 0 {
			r.line++
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, r.wrong(fmt.Errorf("has more than %d bytes", MaxLine))
		case errors.Is(err, io.EOF):
			if r.line == 0 || r.line == 1 && len(line) > 0 {
				return nil, errNoTrace // cut off so early that nothing tells what it is
			}
			if r.ended && len(line) > 0 {
				return nil, r.wrong(errSurplus)
			}
			r.info.Truncated = !r.ended
			return &r.info, nil
		case err != nil:
			return nil, err
		}
		if err := r.read(line[:len(line)-1]); err != nil {
			return nil, r.wrong(err)
		}
	}
}

var errNoTrace = errors.New("this is no trace: its first line is not \"" + magic + "1\"")

var errSurplus = errors.New("stands after the end")

type reader struct {
	src           *bufio.Reader
	each          func(*Event) error
	info          Info
	line          int
	ended         bool
	engines, keys map[int64]int // index by number
	event         Event
}

func (r *reader) wrong(err error) error {
	if err == errNoTrace {
		return err
	}
	return fmt.Errorf("line %d: %w", r.line, err)
}

func (r *reader) read(line []byte) error {
	if r.line == 1 {
		return header(line)
	}
	if r.ended {
		return errSurplus
	}
	if len(line) > 0 && line[0] == '#' {
		return nil
	}
	w := words{line: line}
	switch kind := w.next(); string(kind) {
	case "read":
		return r.request(block.OpRead, &w)
	case "write":
		return r.request(block.OpWrite, &w)
	case "evict":
		return r.evict(&w)
	case "key":
		return r.key(&w)
	case "engine":
		return r.engine(&w)
	case "began":
		return r.began(&w)
	case "end":
		return r.end(&w)
	default:
		return fmt.Errorf("%s is none of read, write, evict, key, engine, began and end", show(kind))
	}
}

func header(line []byte) error {
	rest, ok := bytes.CutPrefix(line, []byte(magic))
	if !ok {
		return errNoTrace
	}
	if n, err := parse(rest); err != nil {
		return errNoTrace
	} else if n != version {
		return fmt.Errorf("a trace of version %d: this program reads version %d", n, version)
	}
	return nil
}

func (r *reader) began(w *words) (err error) {
	if r.line != 2 {
		return errors.New("began stands in the second line only")
	}
	word := w.next()
	if r.info.Began, err = time.Parse(time.RFC3339Nano, string(word)); err != nil {
		return fmt.Errorf("%s is not a time such as 2026-11-21T20:00:00Z", show(word))
	}
	return w.end()
}

func (r *reader) engine(w *words) error {
	e := Engine{Number: w.number("number of the engine"), Slots: int(w.upTo("number of keyslots", 1<<20))}
	var err error
	if e.Name, err = w.quoted(); err != nil {
		return err
	}
	if i, ok := r.engines[e.Number]; ok {
		if r.info.Engines[i] != e {
			return fmt.Errorf("engine %d was another one before", e.Number)
		}
		return nil
	}
	if len(r.info.Engines) == MaxEngines {
		return fmt.Errorf("there are more than %d engines", MaxEngines)
	}
	r.engines[e.Number] = len(r.info.Engines)
	r.info.Engines = append(r.info.Engines, e)
	return nil
}

func (r *reader) key(w *words) error {
	k := Key{Number: w.number("number of the key")}
	k.Mode = string(w.next())
	k.UnitSize = int(w.upTo("data unit size", blkcrypto.MaxDataUnit))
	var err error
	if k.Name, err = w.quoted(); err != nil {
		return err
	}
	if k.Mode == "" || len(k.Mode) > 64 {
		return fmt.Errorf("%s is no mode", show([]byte(k.Mode)))
	}
	if i, ok := r.keys[k.Number]; ok {
		if r.info.Keys[i] != k {
			return fmt.Errorf("key %d was another one before", k.Number)
		}
		return nil
	}
	if len(r.info.Keys) == MaxKeys {
		return fmt.Errorf("there are more than %d keys", MaxKeys)
	}
	r.keys[k.Number] = len(r.info.Keys)
	r.info.Keys = append(r.info.Keys, k)
	return nil
}

func (r *reader) request(op block.Op, w *words) error {
	e := &r.event
	*e = Event{Op: op, Key: -1}
	engine := w.number("engine")
	key, dun := w.next(), w.next()
	e.Off, e.Len = w.number("offset"), w.number("length")
	e.Start, e.End = w.number("start"), w.number("end")
	if w.more() {
		if word := w.next(); string(word) != "failed" {
			return fmt.Errorf("%s is not \"failed\"", show(word))
		}
		e.Failed = true
	}
	if err := w.end(); err != nil {
		return err
	}
	if e.Off+e.Len < 0 {
		return fmt.Errorf("%d bytes from offset %d on reach too far", e.Len, e.Off)
	}
	bare := string(key) == "-"
	if bare != (string(dun) == "-") {
		return fmt.Errorf("key %s and DUN %s: either both are \"-\" or none", show(key), show(dun))
	}
	if bare {
		return r.deliver(engine, -1)
	}
	number, err := parse(key)
	if err != nil {
		return fmt.Errorf("%s is not the number of a key", show(key))
	}
	if e.DUN, err = parseDUN(dun); err != nil {
		return err
	}
	return r.deliver(engine, number)
}

func (r *reader) evict(w *words) error {
	r.event = Event{Evict: true}
	engine, key := w.number("engine"), w.number("key")
	r.event.Start, r.event.End = w.number("start"), w.number("end")
	if err := w.end(); err != nil {
		return err
	}
	return r.deliver(engine, key)
}

// deliver passes the event on; key is -1 for none.
func (r *reader) deliver(engine, key int64) error {
	e := &r.event
	var ok bool
	if e.Engine, ok = r.engines[engine]; !ok {
		return fmt.Errorf("engine %d has not been introduced", engine)
	}
	if e.Key = -1; key >= 0 {
		if e.Key, ok = r.keys[key]; !ok {
			return fmt.Errorf("key %d has not been introduced", key)
		}
	}
	if e.End < e.Start {
		return fmt.Errorf("ends at %d, before it starts at %d", e.End, e.Start)
	}
	r.info.Events++
	return r.each(e)
}

func (r *reader) end(w *words) error {
	n := w.number("number of events")
	if err := w.end(); err != nil {
		return err
	}
	if n != int64(r.info.Events) {
		return fmt.Errorf("there should be %d requests and evictions, and there are %d", n, r.info.Events)
	}
	r.ended = true
	return nil
}

// parseDUN reads what appendDUN writes.
func parseDUN(word []byte) (d blkcrypto.DUN, err error) {
	digits, hex := bytes.CutPrefix(word, []byte("0x"))
	if !hex {
		for _, c := range word {
			hi, lo := bits.Mul64(d[0], 10)
			sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
			if c < '0' || c > '9' || hi+carry > 0 {
				return d, fmt.Errorf("%s is not a DUN", show(word))
			}
			d[0] = sum
		}
		if len(word) == 0 || len(word) > 1 && word[0] == '0' {
			return d, fmt.Errorf("%s is not a DUN", show(word))
		}
		return d, nil
	}
	if len(digits) <= 16 || len(digits) > 64 || digits[0] == '0' {
		return d, fmt.Errorf("%s is not a DUN of 17 to 64 hexadecimal digits", show(word))
	}
	for i := 0; len(digits) > 0; i++ {
		at := max(0, len(digits)-16)
		for _, c := range digits[at:] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return d, fmt.Errorf("%s is not a DUN", show(word))
			}
		}
		if d[i], err = strconv.ParseUint(string(digits[at:]), 16, 64); err != nil {
			return d, fmt.Errorf("%s is not a DUN", show(word))
		}
		digits = digits[:at]
	}
	return d, nil
}
