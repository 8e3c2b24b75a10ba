package target

import (
	"context"
	"encoding/binary"
	"fmt"

	"keyway/block"
	"keyway/internal/arena"
)

// The store of a persistent snapshot as Linux has it on disk, little-endian
// throughout, in chunks. Chunk 0 begins with four words of 32 bits: magic,
// valid, version, and the sectors in a chunk. Chunk 1 is the first metadata
// area: as many exceptions as fit a chunk, each the number of a chunk of the
// origin and of the chunk of the store that has its data (64 bits each). After
// an area come as many chunks of data, then the next area. Exceptions are added
// one after the other; the first whose second number is 0 is the end.
const (
	snapMagic   = 0x70416e53
	snapVersion = 1

	snapHeader     = 16 // bytes
	snapException  = 16 // bytes
	snapFirstData  = 2  // chunk
	snapDefault    = 32 // sectors in a chunk where nobody says how many
	snapMaxSectors = 1<<31>>9 - 1

	// snapPiece bounds what is read or copied at once, in bytes.
	snapPiece = 256 << 10
)

// An exception is a chunk of the origin, and the chunk of the store that has
// its data.
type exception struct{ from, to int64 }

// A snapStore reads and writes the metadata of one store. It has no lock. Of the
// exceptions it keeps only those in the block to which the next is added.
type snapStore struct {
	chunk   int64 // bytes
	perArea int64 // exceptions in an area
	unit    int64 // bytes of metadata that are written at once: the medium does not tear them
	exists  bool  // there is a header
	valid   bool  // it says so
	stale   bool  // the area goes on after the last exception
	count   int64 // exceptions
	last    []byte
}

// openStore reads the header. A device that begins with zeroes is a store yet to
// be made, of chunks of the given size; one that exists says its size itself.
// chunk 0 means the usual size.
func openStore(ctx context.Context, dev block.Device, name string, chunk int64) (*snapStore, error) {
	i := dev.Info()
	head := make([]byte, max(i.LogicalBlock, 512))
	if err := readAt(ctx, dev, 0, head); err != nil {
		return nil, fmt.Errorf("COW device %q: %w", name, err)
	}
	word := func(n int) uint32 { return binary.LittleEndian.Uint32(head[4*n:]) }
	s := &snapStore{chunk: chunk, valid: true}
	switch {
	case word(0) == snapMagic && word(2) != snapVersion:
		return nil, fmt.Errorf("COW device %q: a store of version %d, and only %d is known", name, word(2), snapVersion)
	case word(0) == snapMagic:
		s.exists, s.valid, s.chunk = true, word(1) != 0, int64(word(3))<<9
	case word(0) != 0:
		return nil, fmt.Errorf("COW device %q holds something that is no snapshot; if that is not needed, zero its first sector", name)
	case chunk == 0:
		s.chunk = max(snapDefault<<9, int64(i.LogicalBlock))
	}
	if err := checkChunk(s.chunk); err != nil {
		return nil, fmt.Errorf("COW device %q: %w", name, err)
	}
	s.perArea = s.chunk / snapException
	s.unit = max(int64(i.LogicalBlock), 512)
	if p := int64(i.PhysicalBlock); p > s.unit && p&(p-1) == 0 {
		s.unit = p
	}
	s.unit = min(s.unit, s.chunk)
	s.last = make([]byte, s.unit)
	return s, nil
}

// checkChunk refuses what the kernel refuses as the size of a chunk, in bytes.
func checkChunk(n int64) error {
	switch {
	case n <= 0 || n&(n-1) != 0:
		return fmt.Errorf("a chunk has %d sectors, which is not a power of two", n>>9)
	case n>>9 > snapMaxSectors:
		return fmt.Errorf("a chunk has %d sectors, which is more than %d", n>>9, snapMaxSectors)
	}
	return nil
}

// area is the chunk where a metadata area is.
func (s *snapStore) area(n int64) int64 { return 1 + n*(s.perArea+1) }

// isData reports whether a chunk is one that holds data.
func (s *snapStore) isData(chunk int64) bool {
	return chunk >= snapFirstData && chunk%(s.perArea+1) != 1
}

// after is the chunk of data that comes next after one.
func (s *snapStore) after(chunk int64) int64 {
	if chunk++; !s.isData(chunk) {
		chunk++
	}
	return chunk
}

// fits reports whether a store of so many chunks has room for exception n,
// counted from 0, with its data in the given chunk. One that fills an area needs
// the next, in which the end is.
func (s *snapStore) fits(n, data, chunks int64) bool {
	return data < chunks && s.area((n+1)/s.perArea) < chunks
}

// read calls use for every exception, and leaves the store ready for more.
func (s *snapStore) read(ctx context.Context, dev block.Device, use func(exception) error) error {
	if !s.exists {
		return nil
	}
	chunks := dev.Info().Size / s.chunk
	buf := arena.Get(int(min(s.chunk, snapPiece)))
	defer buf.Put()
	for area := s.area(0); area < chunks; area += s.perArea + 1 {
		ended := false
		for at := int64(0); at < s.chunk; at += int64(buf.Len()) {
			if err := readAt(ctx, dev, area*s.chunk+at, buf.Bytes()); err != nil {
				return err
			}
			for b := buf.Bytes(); len(b) > 0; b = b[snapException:] {
				e := exception{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))}
				switch {
				case ended:
					s.stale = s.stale || e != exception{}
					continue
				case e.to == 0:
					ended = true
					s.stale = e.from != 0
					continue
				case !s.isData(e.to) || e.to >= chunks || e.from < 0 || e.from > 1<<62/s.chunk:
					return fmt.Errorf("exception %d says that chunk %d of the origin is chunk %d of the %d of the store, which cannot be",
						s.count, e.from, e.to, chunks)
				}
				if err := use(e); err != nil {
					return err
				}
				s.remember(e)
			}
		}
		if ended {
			break
		}
	}
	return nil
}

// remember counts an exception, and puts it into the block that was not full.
func (s *snapStore) remember(e exception) {
	at := s.count * snapException % s.unit
	if at == 0 {
		clear(s.last)
	}
	binary.LittleEndian.PutUint64(s.last[at:], uint64(e.from))
	binary.LittleEndian.PutUint64(s.last[at+8:], uint64(e.to))
	s.count++
}

// add makes exceptions durable: of a crash meanwhile none or the first few of
// them are left. Their data is durable already.
func (s *snapStore) add(ctx context.Context, dev block.Device, all []exception) error {
	if err := s.prepare(ctx, dev); err != nil {
		return err
	}
	for len(all) > 0 {
		in := s.count % s.perArea // its place in the area
		at := s.area(s.count/s.perArea)*s.chunk + in*snapException
		n := min(int64(len(all)), s.perArea-in)
		if in+n == s.perArea {
			// The end moves to the next area: it must be there first.
			if err := zeroAt(ctx, dev, s.area(s.count/s.perArea+1)*s.chunk, s.chunk); err != nil {
				return err
			}
			if err := flush(ctx, dev); err != nil {
				return err
			}
		}
		from := at &^ (s.unit - 1)
		buf := make([]byte, (at+n*snapException-from+s.unit-1)&^(s.unit-1))
		copy(buf, s.last[:at-from])
		for i, e := range all[:n] {
			binary.LittleEndian.PutUint64(buf[at-from+int64(i)*snapException:], uint64(e.from))
			binary.LittleEndian.PutUint64(buf[at-from+int64(i)*snapException+8:], uint64(e.to))
		}
		if err := writeDurably(ctx, dev, from, buf); err != nil {
			return err
		}
		copy(s.last, buf[int64(len(buf))-s.unit:])
		s.count += n
		if s.count*snapException%s.unit == 0 {
			clear(s.last)
		}
		all = all[n:]
	}
	return nil
}

// prepare makes a store that does not exist, and cuts off what an earlier crash
// has left after the last exception.
func (s *snapStore) prepare(ctx context.Context, dev block.Device) error {
	switch {
	case !s.exists:
		// The header says that there is an area, so it comes last.
		if err := zeroAt(ctx, dev, 0, 2*s.chunk); err != nil {
			return err
		}
		if err := flush(ctx, dev); err != nil {
			return err
		}
		if err := s.writeHeader(ctx, dev, true); err != nil {
			return err
		}
		s.exists = true
	case s.stale:
		at := s.count % s.perArea * snapException &^ (s.unit - 1)
		area := s.area(s.count/s.perArea) * s.chunk
		if err := writeDurably(ctx, dev, area+at, s.last); err != nil {
			return err
		}
		if rest := s.chunk - at - s.unit; rest > 0 {
			if err := zeroAt(ctx, dev, area+at+s.unit, rest); err != nil {
				return err
			}
			if err := flush(ctx, dev); err != nil {
				return err
			}
		}
		s.stale = false
	}
	return nil
}

// writeHeader says, durably, that the store is valid or that it is not.
func (s *snapStore) writeHeader(ctx context.Context, dev block.Device, valid bool) error {
	b := make([]byte, s.unit)
	for n, word := range []uint32{snapMagic, 0, snapVersion, uint32(s.chunk >> 9)} {
		binary.LittleEndian.PutUint32(b[4*n:], word)
	}
	if valid {
		b[4] = 1
	}
	return writeDurably(ctx, dev, 0, b)
}

func readAt(ctx context.Context, dev block.Device, off int64, b []byte) error {
	return dev.Do(ctx, block.Request{Op: block.OpRead, Off: off, Len: int64(len(b)), Data: block.Bytes(b)})
}

// writeDurably writes b, and makes it and all that was complete before durable.
func writeDurably(ctx context.Context, dev block.Device, off int64, b []byte) error {
	return block.EmulateFUA(ctx, dev, block.Request{Op: block.OpWrite, Off: off, Len: int64(len(b)), Data: block.Bytes(b)})
}

func zeroAt(ctx context.Context, dev block.Device, off, n int64) error {
	r := block.Request{Op: block.OpWriteZeroes, Off: off, Len: n}
	if dev.Info().Zeroes == block.None {
		return block.EmulateZeroes(ctx, dev, r)
	}
	return dev.Do(ctx, r)
}

func flush(ctx context.Context, dev block.Device) error {
	return dev.Do(ctx, block.Request{Op: block.OpFlush})
}
