package target

// exceptions are the exceptions of a snapshot, by chunk of the origin. Where
// both numbers are below 2^32, that is up to 16 TiB in the smallest usual chunks,
// one takes 8 bytes and its share of the map, about 16 in all.
type exceptions struct {
	near map[uint32]uint32
	far  map[int64]int64
}

// get returns the place of a chunk.
//
// Hot: no allocation.
func (x *exceptions) get(from int64) (to int64, ok bool) {
	if from>>32 == 0 {
		if near, ok := x.near[uint32(from)]; ok {
			return int64(near), true
		}
	}
	to, ok = x.far[from]
	return to, ok
}

func (x *exceptions) put(e exception) {
	if (e.from|e.to)>>32 == 0 {
		if x.near == nil {
			x.near = map[uint32]uint32{}
		}
		x.near[uint32(e.from)] = uint32(e.to)
		return
	}
	if x.far == nil {
		x.far = map[int64]int64{}
	}
	x.far[e.from] = e.to
}

// places returns all places.
func (x *exceptions) places() map[int64]bool {
	all := make(map[int64]bool, len(x.near)+len(x.far))
	for _, to := range x.near {
		all[int64(to)] = true
	}
	for _, to := range x.far {
		all[to] = true
	}
	return all
}
