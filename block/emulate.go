package block

import "context"

// EmulateFUA performs a write with FUA on a device that has none: the write,
// then a flush, which covers it because the write's Do has returned.
func EmulateFUA(ctx context.Context, dev Device, r Request) error {
	r.Flags &^= FUA
	if r.NoWait() {
		r.Flags &^= Scratch // the flush may ask for all of it again
	}
	if err := dev.Do(ctx, r); err != nil {
		return err
	}
	return dev.Do(ctx, Request{Op: OpFlush, Flags: r.Flags & NoWait, Lane: r.Lane})
}

// zeroes is what EmulateZeroes writes; nobody ever writes to it, since those
// requests are not Scratch. 256 KiB keeps a large range to few requests.
var zeroes [256 << 10]byte

// EmulateZeroes performs a write of zeroes by writing them.
func EmulateZeroes(ctx context.Context, dev Device, r Request) error {
	if r.Flags&FastZero != 0 {
		return ErrNotSupported
	}
	if r.NoWait() && r.Len > int64(len(zeroes)) {
		return ErrWouldBlock
	}
	w := r
	w.Op = OpWrite
	w.Flags &^= NoUnmap | Scratch | Shared
	for done := int64(0); done < r.Len; done += w.Len {
		w.Off = r.Off + done
		w.Len = min(r.Len-done, int64(len(zeroes)))
		w.Data = Bytes(zeroes[:w.Len])
		if err := dev.Do(ctx, w); err != nil {
			return err
		}
	}
	return nil
}
