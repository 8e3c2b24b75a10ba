package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/dm"
	"keyway/keyslot/emul"
)

// explain says where a request for a sector goes, and why.
func (d *Daemon) explain(ctx context.Context, v *device, r *http.Request) (x control.Explanation, err error) {
	q := dm.Question{Write: r.FormValue("write") != "", Marked: r.FormValue("skip_default_key") != ""}
	if q.Sector, err = strconv.ParseInt(r.FormValue("sector"), 10, 64); err != nil {
		return x, badRequest{errors.New("explain: sector is not a number")}
	}
	if s := r.FormValue("dun"); s != "" {
		dun, err := parseDUN(s)
		if err != nil {
			return x, badRequest{fmt.Errorf("explain: %w", err)}
		}
		q.DUN = &dun
	}
	m, err := d.mapped(v)
	if err != nil {
		return x, err
	}
	if name := r.FormValue("key"); name != "" {
		k, release, err := d.keyToExplain(name)
		if err != nil {
			return x, err
		}
		defer func() {
			if err := release(context.WithoutCancel(ctx)); err != nil {
				d.log.Warn("giving a key back", "key", name, "err", err)
			}
		}()
		q.Key = k
	} else if q.DUN != nil {
		return x, badRequest{errors.New("explain: dun goes with key")}
	}
	e, err := m.Explain(q)
	if err != nil {
		return x, err
	}
	return explanation(q, e), nil
}

// parseDUN reads a number below 2^256.
func parseDUN(s string) (dun blkcrypto.DUN, err error) {
	n, ok := new(big.Int).SetString(s, 0)
	if !ok || n.Sign() < 0 || n.BitLen() > 8*blkcrypto.MaxDUNBytes {
		return dun, fmt.Errorf("dun %q is not a number from 0 to 2^%d-1", s, 8*blkcrypto.MaxDUNBytes)
	}
	var b [blkcrypto.MaxDUNBytes]byte
	n.FillBytes(b[:])
	for i := range b {
		at := len(b) - 1 - i
		dun[at/8] |= uint64(b[i]) << (at % 8 * 8)
	}
	return dun, nil
}

func formatDUN(dun blkcrypto.DUN) string {
	n := new(big.Int)
	for i := len(dun) - 1; i >= 0; i-- {
		n.Lsh(n, 64)
		n.Or(n, new(big.Int).SetUint64(dun[i]))
	}
	return n.String()
}

// keyToExplain takes a key of the store as an upper layer would.
func (d *Daemon) keyToExplain(name string) (*blkcrypto.Key, func(context.Context) error, error) {
	st, ok := d.keys.Get(name)
	switch {
	case !ok:
		var names []string
		for _, k := range d.keys.List() {
			names = append(names, k.Name)
		}
		err := error(notFound{fmt.Errorf("key %q is not in the key store", name)})
		if near := nearestName(name, names); near != "" {
			err = hint(err, fmt.Sprintf("did you mean %q?", near))
		}
		return nil, nil, err
	case st.Pending:
		return nil, nil, hint(fmt.Errorf("every request with key %q fails: it is being evicted", name), "\"keyway key evict\" tries again to clear the rest")
	case st.Missing != "":
		return nil, nil, hint(fmt.Errorf("nobody can send a request with key %q: it has no bytes: %s", name, st.Missing), "\"keyway key add\" gives them back")
	case st.Auto && st.Users == 0:
		// Our use would be its last, with which it goes.
		return nil, nil, fmt.Errorf("key %q is of a table that is being made", name)
	}
	size := st.Config.Mode.KeySize()
	if st.Config.KeyType == blkcrypto.HWWrapped {
		size = emul.WrappedSize
	}
	return d.keys.Use(name, size, st.Config, st.Weak)
}

// explanation puts what dm says into the words of the protocol.
func explanation(q dm.Question, e dm.Explanation) control.Explanation {
	x := control.Explanation{
		Device: e.Device, Sector: q.Sector, Op: e.Op.String(), Offset: e.Off, Length: e.Len,
		Waits: e.Waits, Ciphers: []control.ExplainCipher{},
	}
	if e.Fails != nil {
		x.Fails = e.Fails.Error()
	}
	for _, s := range e.Steps {
		x.Steps = append(x.Steps, explainedStep(s))
	}
	for _, c := range e.Ciphers {
		x.Ciphers = append(x.Ciphers, control.ExplainCipher{ExplainContext: *carried(&c.Carried), By: string(c.By), Device: c.Device, Engine: c.Engine})
	}
	if m := e.Medium; m != nil {
		x.Medium = &control.ExplainMedium{Device: m.Device, Backend: m.Backend, Offset: m.Off, Content: "plaintext"}
		switch {
		case len(e.Ciphers) > 0:
			x.Medium.Content = "ciphertext"
		case q.Marked:
			x.Medium.Content = "as sent"
		}
	}
	return x
}

func explainedStep(s dm.Step) control.ExplainStep {
	x := control.ExplainStep{
		Device: s.Device, Sector: s.Sector, Suspended: s.Suspended, Row: s.Row, Rows: s.Rows, Start: s.Start, Length: s.Length,
		Target: s.Target, Mapping: s.Says, Carries: carried(s.Carries), Marked: s.Marked, Adds: carried(s.Adds), Unknown: s.Unknown,
	}
	if d := s.Decision; d != nil {
		x.Decision = &control.ExplainDecision{By: string(d.By), Engine: d.Engine, State: d.State, Reason: string(d.Reason), Why: d.Why}
		if d.Slot >= 0 {
			x.Decision.Slot = &d.Slot
		}
	}
	for _, p := range s.To {
		x.To = append(x.To, control.ExplainPlace{Device: p.Device, Sector: p.Sector})
	}
	return x
}

func carried(c *dm.Carried) *control.ExplainContext {
	if c == nil {
		return nil
	}
	return &control.ExplainContext{
		Key: c.Key, ID: c.ID, Config: config(c.Config), DUN: formatDUN(c.DUN), Within: c.Within,
	}
}
