package f2fs

// BlockOf tells tests where a node lies.
func (f *FS) BlockOf(nid uint32) uint32 {
	e, err := f.find(nid)
	if err != nil {
		panic(err)
	}
	return e.block
}
