package blkcrypto

// A Context is what a request carries: the key, and the number of the data
// unit at which the request's data begins. It is a value: copying it is the
// clone of the kernel's bio_crypt_ctx, Advance the split.
type Context struct {
	Key *Key
	DUN DUN
}

// Active reports whether c asks for encryption.
func (c Context) Active() bool { return c.Key != nil }

// Advance returns the context of the data that begins n bytes further on. n
// is a multiple of the data unit size: a remainder would encrypt two data
// units under one number, and panics.
func (c Context) Advance(n int64) Context {
	if c.Key == nil {
		return c
	}
	if n&int64(c.Key.cfg.DataUnitSize-1) != 0 {
		panic("blkcrypto: context advanced into a data unit")
	}
	c.DUN, _ = c.DUN.Add(uint64(n) >> c.Key.shift)
	return c
}

// Rewind is the exact inverse of Advance.
func (c Context) Rewind(n int64) Context {
	if c.Key == nil {
		return c
	}
	if n&int64(c.Key.cfg.DataUnitSize-1) != 0 {
		panic("blkcrypto: context rewound into a data unit")
	}
	c.DUN = c.DUN.Sub(uint64(n) >> c.Key.shift)
	return c
}
