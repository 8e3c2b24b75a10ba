package adiantum

import "keyway/test/naive"

// The reference, which shares no code with the product.
var (
	newNaive     = naive.NewAdiantum
	naiveNH      = naive.NH
	naiveXChaCha = naive.XChaCha
	words        = naive.Words
)
