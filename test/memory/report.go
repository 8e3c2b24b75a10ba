package memory

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Hit is eight bytes of a secret in memory.
type Hit struct {
	Secret string
	Form   string // how it was written, "" for as it is
	Part   int    // which bytes of the secret: the first
	Addr   uint64
	Region Region
}

// A Report is what a scan has found.
type Report struct {
	Hits       []Hit
	Bytes      int64    // looked at
	Unreadable []Region // whose owner alone may read them
}

const window = 1 << 20

// stream scans what r holds, which is in memory from addr on, and returns how many
// bytes it has read.
func (rep *Report) stream(r io.Reader, addr uint64, in Region, s *Set) (int64, error) {
	buf := make([]byte, overlap+window)
	kept := 0 // bytes of the window before
	var done int64
	for {
		n, err := io.ReadFull(r, buf[kept:])
		rep.Bytes += int64(n)
		base := addr + uint64(done) - uint64(kept)
		done += int64(n)
		if b := buf[:kept+n]; n > 0 && !zero(b) {
			s.scan(b, func(at int, x *needle) {
				// What lies in the part that both windows have, and fits there, has been found.
				if at+chunk+len(x.tail) > kept {
					rep.Hits = append(rep.Hits, Hit{x.secret, x.form, x.at, base + uint64(at), in})
				}
			})
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return done, nil
		} else if err != nil {
			return done, err
		}
		kept = copy(buf, buf[kept+n-overlap:kept+n])
	}
}

func zero(b []byte) bool {
	return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// Outside returns the hits that are not in memory for keys.
func (rep *Report) Outside() (out []Hit) {
	for _, h := range rep.Hits {
		if !h.Region.Kept() {
			out = append(out, h)
		}
	}
	return out
}

// Of counts the hits of secrets whose name begins so.
func (rep *Report) Of(name string) (n int) {
	for _, h := range rep.Hits {
		if strings.HasPrefix(h.Secret, name) {
			n++
		}
	}
	return n
}

// Describe says of hits what is where, without a byte of it: a line for each secret
// in each mapping.
func Describe(hits []Hit) string {
	type line struct {
		region, secret, form string
	}
	places := map[line][]Hit{}
	var order []line
	for _, h := range hits {
		l := line{h.Region.String(), h.Secret, h.Form}
		if places[l] == nil {
			order = append(order, l)
		}
		places[l] = append(places[l], h)
	}
	var b strings.Builder
	last := ""
	for _, l := range order {
		if l.region != last {
			fmt.Fprintf(&b, "%s:\n", l.region)
			last = l.region
		}
		form := ""
		if l.form != "" {
			form = ", " + l.form
		}
		hs := places[l]
		slices.SortFunc(hs, func(x, y Hit) int { return int(int64(x.Addr) - int64(y.Addr)) })
		fmt.Fprintf(&b, "  %s%s: %d times 8 bytes, the first at %#x, bytes %d on\n", l.secret, form, len(hs), hs[0].Addr, hs[0].Part)
	}
	return b.String()
}
