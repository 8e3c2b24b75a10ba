package target

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"keyway/block"
	"keyway/dm"
)

func init() {
	dm.Register(dm.TargetType{
		Name: "unstriped", Features: dm.PassesCrypto,
		Usage: "<number of stripes> <chunk sectors> <stripe> <device> <start sector>", New: newUnstriped,
	})
}

// unstriped is one stripe of a device whose chunks are dealt out in turn, as
// striped does it, or an SSD inside.
type unstriped struct {
	block.Device
	name          string
	start, length int64 // bytes; how much of the device is told to others
	at            int64 // where the row begins in its table, in bytes
	chunk         int64 // bytes
	stripes, own  int64
}

func newUnstriped(_ context.Context, b *dm.Builder, a *dm.Args) (dm.Target, error) {
	u := &unstriped{length: b.Len(), at: b.Start()}
	u.stripes = int64(upTo32Bits(a, "number of stripes", 1))
	u.chunk = int64(upTo32Bits(a, "chunk size, in sectors", 1)) << 9
	u.own = int64(upTo32Bits(a, "stripe", 0))
	// The kernel takes a number one too high, and its requests fail; so here.
	if a.Err() == nil && u.own > u.stripes && u.stripes > 1 {
		a.Fail("stripe", fmt.Errorf("%d of %d: the first is 0", u.own, u.stripes))
	}
	u.name, u.start = a.String("device"), a.Sectors("start")
	if err := a.End(); err != nil {
		return nil, err
	}
	if u.length%u.chunk != 0 {
		return nil, fmt.Errorf("%d sectors are not whole chunks of %d", u.length>>9, u.chunk>>9)
	}
	// The kernel counts chunks from the start of the table, not of the row, so
	// that a row elsewhere has only one meaning if it begins with a chunk.
	if u.at%u.chunk != 0 {
		return nil, fmt.Errorf("the row begins at sector %d, which is not where a chunk of %d begins", u.at>>9, u.chunk>>9)
	}
	if most := max(u.stripes, u.own) + 1; u.chunk > 1<<61/most || (u.at+u.length)/u.chunk >= 1<<61/(u.chunk*most) {
		return nil, errors.New("the stripes reach beyond 2^61 bytes")
	}
	var err error
	if u.Device, err = b.OpenSpan(u.name, u.start, u.length); err != nil {
		return nil, err
	}
	if lb := int64(u.Device.Info().LogicalBlock); u.chunk%lb != 0 {
		return nil, fmt.Errorf("chunks of %d sectors are not whole blocks of device %q, which has %d bytes in one", u.chunk>>9, u.name, lb)
	}
	return u, nil
}

// Chunk is where requests are cut; a single stripe cuts none.
func (u *unstriped) Chunk() int64 {
	if u.stripes == 1 {
		return 0
	}
	return u.chunk
}

// place returns where the byte of the row at off is on the device, and how
// many follow it there.
func (u *unstriped) place(off int64) (at, n int64) {
	off += u.at
	c := off / u.chunk
	at = u.start + (c*u.stripes+u.own)*u.chunk + off%u.chunk
	if u.stripes == 1 {
		return at, 1<<62 - off
	}
	return at, u.chunk - off%u.chunk
}

// Do passes a request within one chunk on, and divides others.
//
// Hot: no allocation for a request within one chunk.
func (u *unstriped) Do(ctx context.Context, r block.Request) error {
	if _, n := u.place(r.Off); r.Len <= n {
		dev, _ := u.Map(&r)
		return u.beyond(dev.Do(ctx, r))
	}
	if err := wholeUnits(&r, u.chunk); err != nil {
		return err
	}
	var parts []block.Part
	for done := int64(0); done < r.Len; {
		at, n := u.place(r.Off + done)
		p := r.Sub(done, min(n, r.Len-done))
		p.Off = at
		parts = append(parts, block.Part{Dev: u.Device, Req: p})
		done += p.Len
	}
	return u.beyond(block.Parallel(ctx, parts))
}

// Map moves r, which lies within one chunk, to its place on the device.
func (u *unstriped) Map(r *block.Request) (block.Device, error) {
	r.Off, _ = u.place(r.Off)
	return u.Device, nil
}

// Explain says which chunk has the byte at off.
func (u *unstriped) Explain(off int64) string {
	c := (u.at + off) / u.chunk
	return fmt.Sprintf("chunk %d of stripe %d, of %d sectors, is chunk %d of the device", c, u.own, u.chunk>>9, c*u.stripes+u.own)
}

// beyond is an error of the medium for a request that is in the range of the
// row but not of the device.
func (u *unstriped) beyond(err error) error {
	if errors.Is(err, block.ErrOutOfRange) {
		return fmt.Errorf("%w: stripe %d of %d ends beyond device %q", block.ErrIO, u.own, u.stripes, u.name)
	}
	return err
}

// wholeUnits refuses a request whose data units would be cut at multiples of
// chunk bytes. The table keeps them away; a context never goes lost if not.
func wholeUnits(r *block.Request, chunk int64) error {
	if !r.Crypt.Active() {
		return nil
	}
	if unit := int64(r.Crypt.Key.Config().DataUnitSize); (r.Off|chunk)&(unit-1) != 0 {
		return fmt.Errorf("%w: chunks of %d bytes cut data units of %d", block.ErrNoCrypto, chunk, unit)
	}
	return nil
}

func (u *unstriped) Info() block.Info {
	i := u.Device.Info()
	if u.stripes > 1 {
		i.MinIO, i.OptIO = int(u.chunk), 0
	}
	return i
}

func (u *unstriped) Extents(ctx context.Context, off, n int64) iter.Seq2[block.Extent, error] {
	return inPlaces(ctx, off, n, func(off int64) (block.Device, int64, int64) {
		at, n := u.place(off)
		return u.Device, at, n
	})
}

// Under tells of as much of the device as the kernel's target does.
func (u *unstriped) Under() []block.Span {
	return []block.Span{{Dev: u.Device, Off: u.start, Len: u.length}}
}

func (u *unstriped) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	return fmt.Sprintf("%d %d %d %s %d", u.stripes, u.chunk>>9, u.own, dm.QuoteWord(u.name), u.start>>9)
}
