package target

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/dmcrypt"
)

// encrypt is what crypt, inlinecrypt and default-key have in common: a row on
// a device, and a context that they give to requests. The device serves it by
// an engine or by its fallback; the bytes on the medium are those of dm-crypt
// under the same cipher either way.
type encrypt struct {
	block.Device
	typ, name     string // of the target, and of the device beneath
	start, length int64  // bytes

	cipher   string
	ref      dm.KeyRef // in the table's text
	held     atomic.Pointer[heldKey]
	config   blkcrypto.Config
	ivOffset uint64        // sectors
	base     blkcrypto.DUN // of the row's first data unit

	discards bool
	options  []string // in the order in which they are printed
}

// A heldKey is the key of a row with the reference that got it. key is nil once it
// has been wiped.
type heldKey struct {
	ref dm.KeyRef
	key *blkcrypto.Key
}

// encryptArgs parses "<cipher> <key> <iv_offset> <device> <start> [options]".
// typ is the target's name; option takes the options that it has beside those of
// all three, and may be nil.
func encryptArgs(b *dm.Builder, a *dm.Args, typ string, limit int, fold bool,
	option func(e *encrypt, name, value string) (known bool, err error)) (*encrypt, error) {
	e := &encrypt{typ: typ, length: b.Len()}
	e.cipher = a.String("cipher")
	e.parseKey(a)
	e.ivOffset = a.Uint("iv_offset, in sectors")
	e.name = a.String("device")
	e.start = a.Sectors("start")
	e.config.KeyType, e.config.DataUnitSize = blkcrypto.Raw, 512
	large := false
	a.Options(limit, func(name, value string) error {
		if fold {
			name = strings.ToLower(name)
		}
		switch name {
		case "allow_discards":
			e.discards = true
		case "iv_large_sectors":
			large = true
		case "sector_size":
			return e.setUnit(value)
		default:
			if option != nil {
				if known, err := option(e, name, value); known || err != nil {
					return err
				}
			}
			return fmt.Errorf("%q is not an option of this target", name)
		}
		return nil
	})
	if a.Err() == nil {
		e.setMode(a, typ)
	}
	if err := a.End(); err != nil {
		return nil, err
	}
	e.printOptions(large)
	if !large && e.config.DataUnitSize != 512 {
		e.config.Numbering = blkcrypto.BySector
	}
	return e, e.number()
}

func (e *encrypt) parseKey(a *dm.Args) {
	word := a.String("key")
	if a.Err() != nil {
		return
	}
	if word == "-" && e.typ == "crypt" {
		return // no bytes at all: for a cipher without key
	}
	var err error
	if e.ref, err = dm.ParseKeyRef(word); err != nil {
		a.Fail("key", err)
	}
}

// setMode finds the mode, for which the key type must be known: the size of a
// wrapped key is the hardware's affair.
func (e *encrypt) setMode(a *dm.Args, typ string) {
	size := e.ref.Size
	if e.config.KeyType == blkcrypto.HWWrapped {
		size = blkcrypto.AES256XTS.KeySize()
	}
	var err error
	if e.config.Mode, err = ModeOf(typ, e.cipher, size); err != nil {
		what, n := "key", 2
		if _, known := dmcrypt.Parse(e.cipher); known != nil && typ == "crypt" {
			what, n = "cipher", 1
		}
		a.FailAt(n, what, err)
	}
}

func (e *encrypt) setUnit(value string) error {
	for _, n := range []int{512, 1024, 2048, 4096} {
		if value == fmt.Sprint(n) {
			e.config.DataUnitSize = n
			return nil
		}
	}
	return fmt.Errorf("sector_size %q is not 512, 1024, 2048 or 4096", value)
}

func (e *encrypt) printOptions(large bool) {
	if e.discards {
		e.options = append([]string{"allow_discards"}, e.options...)
	}
	if e.config.DataUnitSize != 512 {
		e.options = append(e.options, fmt.Sprintf("sector_size:%d", e.config.DataUnitSize))
	}
	if large {
		e.options = append(e.options, "iv_large_sectors")
	}
}

// number checks the geometry and finds how many bytes the data unit numbers
// need: an engine with narrow numbers may serve a short row.
func (e *encrypt) number() error {
	unit := int64(e.config.DataUnitSize)
	sectors := uint64(unit >> 9)
	switch {
	case e.length%unit != 0:
		return fmt.Errorf("its %d sectors are not whole encryption sectors of %d bytes", e.length>>9, unit)
	case e.start%unit != 0:
		return fmt.Errorf("start sector %d is not a multiple of the encryption sector of %d bytes", e.start>>9, unit)
	case e.ivOffset%sectors != 0:
		return fmt.Errorf("iv_offset %d is not a multiple of the encryption sector of %d bytes", e.ivOffset, unit)
	}
	if e.config.Numbering == blkcrypto.ByUnit {
		e.base = blkcrypto.DUN64(e.ivOffset / sectors)
	} else {
		e.base = blkcrypto.DUN64(e.ivOffset)
	}
	last := e.config.DUN(e.base, e.length-unit)
	if last[1] != 0 || e.ivOffset+uint64(e.length>>9) < e.ivOffset {
		return fmt.Errorf("iv_offset %d and %d sectors go beyond 2^64, where sector numbers would begin again", e.ivOffset, e.length>>9)
	}
	e.config.DUNBytes = last.Bytes()
	return nil
}

// open opens the device and takes the key.
func (e *encrypt) open(b *dm.Builder, weak bool) error {
	var err error
	if e.Device, err = b.OpenSpan(e.name, e.start, e.length); err != nil {
		return err
	}
	return e.take(b.Context(), b, e.ref, weak)
}

// take makes the key that ref names the row's.
func (e *encrypt) take(ctx context.Context, b *dm.Builder, ref dm.KeyRef, weak bool) error {
	k, err := b.TakeKey(ctx, ref, e.config, weak)
	if err != nil {
		return err
	}
	if err := b.StartKey(e.Device, k, "target "+e.typ); err != nil {
		return err
	}
	e.held.Store(&heldKey{ref, k})
	return nil
}

// context returns the context of data that begins off bytes into the row.
func (e *encrypt) context(off int64) (blkcrypto.Context, error) {
	h := e.held.Load()
	if h.key == nil {
		return blkcrypto.Context{}, errNoKey
	}
	return blkcrypto.Context{Key: h.key, DUN: e.base}.Advance(off), nil
}

// Do encrypts what has data.
//
// Hot: no allocation.
func (e *encrypt) Do(ctx context.Context, r block.Request) error {
	dev, err := e.Map(&r)
	if err != nil {
		return err
	}
	return dev.Do(ctx, r)
}

// Map gives r the context and moves it to its place on the device. A request
// that already has a context is refused: honouring one and dropping the other
// would leave bytes on the medium that nobody expects.
func (e *encrypt) Map(r *block.Request) (block.Device, error) {
	if err := e.admits(r); err != nil {
		return nil, err
	}
	if r.Op.HasData() {
		var err error
		if r.Crypt, err = e.context(r.Off); err != nil {
			return nil, err
		}
		r.Flags &^= block.SkipDefaultKey | block.KeyHeld // what goes down from here is this target's, not the sender's
	}
	r.Off += e.start
	return e.Device, nil
}

// admits refuses what the target does not take.
func (e *encrypt) admits(r *block.Request) error {
	switch {
	case r.Crypt.Active():
		return fmt.Errorf("%w: the target encrypts itself", block.ErrNoCrypto)
	case r.Op == block.OpDiscard && !e.discards:
		return block.ErrNotSupported
	}
	return nil
}

// Info raises the block size to the data unit. Zeroes are written, so that
// they read back as zeroes.
func (e *encrypt) Info() block.Info {
	i := e.Device.Info()
	unit := e.config.DataUnitSize
	i.LogicalBlock, i.PhysicalBlock, i.MinIO = max(i.LogicalBlock, unit), max(i.PhysicalBlock, unit), max(i.MinIO, unit)
	i.Zeroes = block.None
	if !e.discards {
		i.Discard = block.None
	}
	return i
}

func (e *encrypt) Under() []block.Span {
	return []block.Span{{Dev: e.Device, Off: e.start, Len: e.length}}
}

// Status prints the key's reference, of a wiped one too, so that the line can be
// loaded again.
func (e *encrypt) Status(k dm.StatusKind) string {
	if k == dm.StatusInfo {
		return ""
	}
	key := "-"
	if h := e.held.Load(); h != nil {
		key = dm.QuoteWord(h.ref.String())
	}
	s := fmt.Sprintf("%s %s %d %s %d", e.cipher, key, e.ivOffset, dm.QuoteWord(e.name), e.start>>9)
	if len(e.options) > 0 {
		s += fmt.Sprintf(" %d %s", len(e.options), strings.Join(e.options, " "))
	}
	return s
}
