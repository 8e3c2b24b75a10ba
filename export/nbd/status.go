package nbd

import (
	"context"

	"keyway/block"
	"keyway/internal/nbdproto"
)

// maxExtents bounds a block status reply; the client asks again for the rest.
// 4096 of them are 64 KiB.
const maxExtents = 4096

// status answers a block status request from the device's extents.
func (l *lane) status(ctx context.Context, j *job) error {
	s := statusList{
		off: j.r.Off, end: j.r.Off + j.r.Len, align: int64(l.minBlock),
		most: maxExtents, longest: int64(1) << 62,
	}
	if j.req.Flags&nbdproto.CmdFlagReqOne != 0 {
		s.most = 1
	}
	if l.style != nbdproto.Extended {
		s.longest = nbdproto.MaxCompactExtent
	}
	for e, err := range block.Extents(ctx, l.raw, j.r.Off, j.r.Len) {
		if err != nil {
			return err
		}
		var flags uint32
		if e.Hole {
			flags |= nbdproto.StateHole
		}
		if e.Zero {
			flags |= nbdproto.StateZero
		}
		if !s.add(e.Off, e.Off+e.Len, flags) {
			break
		}
	}
	s.append(s.end, 0) // of what is left nothing is known: data
	j.reply = l.style.AppendStatus(j.head[:0], &j.req, s.list)
	return nil
}

// A statusList makes extents out of the device's, which may begin and end
// anywhere.
type statusList struct {
	off, end int64 // what is left of the request
	align    int64 // edges are multiples of it, except those of the request
	most     int   // extents
	longest  int64 // bytes of one
	list     []nbdproto.StatusExtent
	full     bool
}

// add notes that the bytes between from and to have these flags, and reports
// whether more are wanted. Blocks that are not wholly of one kind count as
// data, about which nothing is promised.
func (s *statusList) add(from, to int64, flags uint32) bool {
	if flags == 0 {
		to += (s.align - to%s.align) % s.align
	} else {
		if len(s.list) > 0 {
			from += (s.align - from%s.align) % s.align
		}
		if to < s.end {
			to -= to % s.align
		}
		if s.off < from && from < to && !s.append(from, 0) {
			return false
		}
		if from >= to {
			return !s.full
		}
	}
	return s.append(min(to, s.end), flags)
}

// append gives the bytes up to to these flags.
func (s *statusList) append(to int64, flags uint32) bool {
	for s.off < to && !s.full {
		n := to - s.off
		if k := len(s.list) - 1; k >= 0 && s.list[k].Flags == flags && int64(s.list[k].Len) < s.longest {
			n = min(n, s.longest-int64(s.list[k].Len))
			s.list[k].Len += uint64(n)
		} else if len(s.list) == s.most {
			s.full = true
			break
		} else {
			n = min(n, s.longest)
			s.list = append(s.list, nbdproto.StatusExtent{Len: uint64(n), Flags: flags})
		}
		s.off += n
	}
	s.full = s.full || s.off >= s.end
	return !s.full
}
