package argon2

import "context"

// laneScratch is what computing a segment needs beside the matrix.
type laneScratch struct {
	work                   block
	input, half, addresses block
}

// segment is one quarter of a lane in one pass.
type segment struct {
	m                 *matrix
	pass, slice, lane int
	// offset is the first block of a lane that may be referred to, behind which are
	// as many as window, not counting those of this segment.
	offset, window int
}

// every is the number of blocks after which a segment looks whether it is cancelled.
const every = 2048

// fillSegment computes a quarter of a lane, or less if ctx is done.
func (m *matrix) fillSegment(ctx context.Context, pass, slice, lane int) {
	s := segment{m: m, pass: pass, slice: slice, lane: lane, window: slice * m.segment}
	if pass > 0 {
		s.offset, s.window = (slice+1)%quarters*m.segment, m.lane-m.segment
	}
	w := &m.scratch[lane]
	independent := m.params.Variant == Argon2i || pass == 0 && slice < quarters/2
	first := 0
	if pass == 0 && slice == 0 {
		first = 2
	}
	if independent {
		w.input = block{uint64(pass), uint64(lane), uint64(slice), uint64(len(m.blocks)), uint64(m.params.Time), uint64(m.params.Variant)}
		w.nextAddresses()
	}

	prev := m.at(lane, (slice*m.segment+first+m.lane-1)%m.lane)
	word := prev[0]
	if independent {
		word = w.addresses[first]
	}
	ref := s.reference(word, first)
	for i := first; i < m.segment; i++ {
		if i%every == every-1 && ctx.Err() != nil {
			return
		}
		dst := m.at(lane, slice*m.segment+i)
		var old *block
		if pass > 0 {
			old = dst
		}
		// The first half already tells which block is mixed in next: it comes out of
		// the memory during the second.
		word := mixFirst(&w.work, prev, ref, old)
		next := ref
		if i+1 < m.segment {
			if independent {
				if (i+1)%len(w.addresses) == 0 {
					w.nextAddresses()
				}
				word = w.addresses[(i+1)%len(w.addresses)]
			}
			next = s.reference(word, i+1)
		}
		mixLast(dst, &w.work, prev, ref, old, next)
		prev, ref = dst, next
	}
}

// nextAddresses computes the next 128 pseudorandom words of a segment. RFC 9106,
// section 3.4.1.2.
func (w *laneScratch) nextAddresses() {
	w.input[6]++
	mixFirst(&w.half, &zero, &w.input, nil)
	mixLast(&w.addresses, &w.half, &zero, &w.input, nil, &zero)
	mixFirst(&w.half, &zero, &w.addresses, nil)
	mixLast(&w.addresses, &w.half, &zero, &w.addresses, nil, &zero)
}

var zero block // never written to

// reference maps a pseudorandom word to the block that is mixed into block i of the
// segment. RFC 9106, section 3.4.2.
func (s *segment) reference(word uint64, i int) *block {
	lane := s.lane
	if s.pass > 0 || s.slice > 0 {
		lane = int(word >> 32 % uint64(s.m.params.Lanes))
	}
	window := s.window
	switch {
	case lane == s.lane:
		window += i - 1 // without the block just before
	case i == 0:
		window--
	}
	x := word & 0xffffffff
	x = x * x >> 32
	x = uint64(window) * x >> 32
	at := s.offset + window - 1 - int(x)
	if at >= s.m.lane {
		at -= s.m.lane
	}
	return s.m.at(lane, at)
}
