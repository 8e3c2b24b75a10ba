package block

import "fmt"

// Check is the one check at the entry of a device: range, alignment, data
// length, read-only, and that a context comes with data of whole data units
// whose numbers the key's config allows. It does not ask whether the device
// supports the context's config.
func Check(r Request, i Info) error { return CheckAt(&r, i.Size, i.LogicalBlock, i.ReadOnly) }

// CheckAt is Check for callers that keep the three figures themselves; it is
// on the path of every request, where building an Info is not. logicalBlock is
// a power of two.
//
// Hot: no allocation unless it fails.
func CheckAt(r *Request, size int64, logicalBlock int, readOnly bool) error {
	if r.Op == OpFlush {
		if r.Crypt.Active() {
			return errNoData(r)
		}
		return nil
	}
	if r.Off < 0 || r.Len < 0 || r.Off > size || r.Len > size-r.Off {
		return fmt.Errorf("%w (%d bytes at %d of %d)", ErrOutOfRange, r.Len, r.Off, size)
	}
	if (r.Off|r.Len)&int64(logicalBlock-1) != 0 {
		return fmt.Errorf("%w: %d bytes at %d are not multiples of the block size %d", ErrInvalid, r.Len, r.Off, logicalBlock)
	}
	if readOnly && r.Op.Changes() {
		return ErrReadOnly
	}
	if r.Op.HasData() {
		if int64(r.Data.Len()) != r.Len {
			return fmt.Errorf("%w: %d bytes of data for a length of %d", ErrInvalid, r.Data.Len(), r.Len)
		}
	} else if r.Op >= numOps {
		return fmt.Errorf("%w: %v", ErrInvalid, r.Op)
	}
	if r.Crypt.Active() {
		return checkContext(r)
	}
	return nil
}

func checkContext(r *Request) error {
	if !r.Op.HasData() {
		return errNoData(r)
	}
	c := r.Crypt.Key.Config()
	if r.Len&int64(c.DataUnitSize-1) != 0 {
		return fmt.Errorf("%w: %d bytes are not whole data units of %d", ErrInvalid, r.Len, c.DataUnitSize)
	}
	if !c.Fits(r.Crypt.DUN, uint64(r.Len)>>c.UnitShift()) {
		return fmt.Errorf("%w: data unit numbers need more than the %d bytes that the key declared", ErrInvalid, c.DUNBytes)
	}
	return nil
}

func errNoData(r *Request) error {
	return fmt.Errorf("%w: a %v carries no data and takes no encryption context", ErrInvalid, r.Op)
}
