// Package roofline does what bounds a cipher on one core: AES rounds, as many as
// the instructions allow. Nothing that is made of AES rounds can be faster; how
// near it comes tells how much there is left to gain.
package roofline

const (
	chains    = 12 // independent ones, which hide the latency of a round
	unroll    = 4  // rounds of each chain in a turn of the assembly's loop
	turns     = 500
	blockSize = 16 // bytes
)

// A Width is one way this CPU has to run AES rounds.
type Width struct {
	Bits  int // of a vector: 128, 256 or 512
	asm   func(state *byte, turns int)
	state []byte
}

// Widths are those that this CPU has, the narrowest first; none on a CPU without
// AES instructions and in builds with the tag purego.
func Widths() []Width {
	all := native()
	for i := range all {
		all[i].state = make([]byte, all[i].stateSize())
	}
	return all
}

func (w Width) stateSize() int { return chains * w.Bits / 8 }

// Run runs a batch of rounds, for a few microseconds, and returns how many: one
// round of one 16-byte block counts as one. A Width serves one goroutine.
func (w Width) Run() int {
	w.asm(&w.state[0], turns)
	return unroll * turns * len(w.state) / blockSize
}

// BytesPerSecond is what a cipher with this many rounds for each 16-byte block
// reaches at most where a second has so many rounds.
func BytesPerSecond(roundsPerSecond float64, rounds int) float64 {
	return roundsPerSecond * blockSize / float64(rounds)
}
