package sm4xts

import "keyway/test/naive"

// The reference, which shares no code with the product.
var (
	naiveBox    = naive.SM4Box
	newNaiveSM4 = naive.NewSM4
	naiveXTS    = naive.SM4XTS
)
