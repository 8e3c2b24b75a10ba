package target_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"keyway/block"
	"keyway/internal/dmtest"
	"keyway/internal/model"
)

// A section is a part of a disk, as a disk.
type section struct {
	block.Device
	off, n int64
}

func (s section) Do(ctx context.Context, r block.Request) error {
	if err := block.Check(r, s.Info()); err != nil {
		return err
	}
	r.Off += s.off
	return s.Device.Do(ctx, r)
}

func (s section) Info() block.Info {
	i := s.Device.Info()
	i.Size = s.n
	return i
}

func (s section) Close() error { return nil }

// powered is a disk with a volatile cache whose power fails after so many
// requests: the one that is under way then may have done anything.
type powered struct {
	*model.Device
	left atomic.Int64
}

func (p *powered) on() bool { return p.left.Load() > 0 }

func (p *powered) Do(ctx context.Context, r block.Request) error {
	switch n := p.left.Add(-1); {
	case n > 0:
		return p.Device.Do(ctx, r)
	case n == 0 && r.Op == block.OpWrite:
		data := make([]byte, r.Len)
		r.Data.CopyTo(data)
		p.Device.Begin(r.Off, data).End(false, false)
	}
	return block.ErrIO
}

const (
	crashLeg     = 32 << 10 // bytes, 8 regions
	crashTable   = "0 64 mirror disk 2 log 8 2 a 0 b 0"
	crashDisk    = 4096 + 2*crashLeg
	crashChanges = 48
)

// crashWorld is a world with the log and the legs on one disk.
func crashWorld(t *testing.T, disk block.Device, legA func(block.Device) block.Device) *dmtest.World {
	w := dmtest.New(t)
	w.Leaf("log", section{disk, 0, 4096}, nil)
	w.Leaf("a", legA(section{disk, 4096, crashLeg}), nil)
	w.Leaf("b", section{disk, 4096 + crashLeg, crashLeg}, nil)
	return w
}

func same(d block.Device) block.Device { return d }

// breaking is a leg that fails its writes from one of them on.
type breaking struct {
	block.Device
	left atomic.Int64
}

func (b *breaking) Do(ctx context.Context, r block.Request) error {
	if r.Op.Changes() && b.left.Add(-1) < 0 {
		return block.ErrIO
	}
	return b.Device.Do(ctx, r)
}

// TestMirrorAfterACrash: the power fails after each of the requests that the legs
// and the log get, of which any that no flush has covered may be lost. Then what
// was acknowledged and flushed is there, the log knows every region that may
// differ, and the legs are alike when it says so. The same if a leg had failed
// before and works again: it is not what the other is made from.
func TestMirrorAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name   string
		table  string
		breaks int64 // the first leg, after so many writes; 0: never
		filled bool  // the second leg, from the first
	}{
		{"both legs good", crashTable, 0, false},
		{"the first leg failed", crashTable + " 1 handle_errors", 12, false},
		{"the first leg failed at once", crashTable + " 2 handle_errors keep_log", 9, false},
		{"the second leg is being filled", crashTable, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for at := int64(1); ; at += stride() {
				if ended := crashOnce(t, c.table, c.breaks, c.filled, at); ended || t.Failed() {
					if at < 80 {
						t.Errorf("the power failed after %d requests at most", at)
					}
					return
				}
			}
		})
	}
}

// crashOnce crashes after so many requests, or reports that there were fewer.
func crashOnce(t *testing.T, table string, breaks int64, filled bool, at int64) (ended bool) {
	synctest.Test(t, func(t *testing.T) {
		info := block.Info{Size: crashDisk, LogicalBlock: 512, FUA: block.Native}
		disk := &powered{Device: model.NewDevice(info)}
		disk.left.Store(1 << 40)
		breakable := same
		if breaks > 0 {
			breakable = func(d block.Device) block.Device {
				b := &breaking{Device: d}
				b.left.Store(breaks)
				return b
			}
		}
		w := crashWorld(t, disk, breakable)
		want := model.New(crashLeg, 512)
		if filled {
			data := bytes.Repeat([]byte("first"), crashLeg/5+1)[:crashLeg]
			want.Begin(0, data).End(true, true)
			r := request(block.OpWrite, data)
			r.Off, r.Flags = 4096, block.FUA
			if err := disk.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			disk.left.Store(at)
		}
		dev := w.Map("m", table)
		if !filled {
			untilStatusHas(t, dev, " 8/8 ")
			disk.left.Store(at)
		}
		rnd := rand.New(rand.NewPCG(uint64(at), 1))
		for i := range crashChanges {
			mirrorChange(t, dev, want, rnd, disk.on)
			if i%8 == 7 {
				time.Sleep(3 * time.Second) // the log is cleaned
			}
		}
		ended = disk.left.Load() > 0
		medium := disk.Crash(uint64(at))

		after := model.NewDevice(info)
		dmtest.Write(t, after, 0, medium)
		w2 := crashWorld(t, after, same)
		again := w2.Map("m", table)
		got := dmtest.Read(t, again, 0, crashLeg)
		if err := want.Legal(0, got); err != nil {
			t.Errorf("crash after %d requests: %v", at, err)
		}
		untilStatusHas(t, again, " 8/8 1 AA ")
		legs := dmtest.Read(t, after, 4096, 2*crashLeg)
		if at2 := firstDiff(legs[:crashLeg], legs[crashLeg:]); at2 >= 0 {
			t.Errorf("crash after %d requests: the log says that the legs are alike, and they differ at %d", at, at2)
		}
		if now := dmtest.Read(t, again, 0, crashLeg); !bytes.Equal(now, got) {
			t.Errorf("crash after %d requests: what is read changes at %d when the legs have become alike", at, firstDiff(now, got))
		}
		remove(t, w2, "m", again)
		remove(t, w, "m", dev)
	})
	return ended
}

// mirrorChange makes a random change that may fail. What ends when the power is off
// nobody sees end: one leg may have been the last to take it, and the first not.
func mirrorChange(t *testing.T, dev block.Device, want *model.Disk, rnd *rand.Rand, on func() bool) {
	r := block.Request{Op: block.OpFlush}
	if rnd.IntN(4) == 0 {
		began := want.BeginFlush()
		if dev.Do(t.Context(), r) == nil && on() {
			want.EndFlush(began)
		}
		return
	}
	n := 512 * (1 + rnd.Int64N(4))
	data := bytes.Repeat([]byte{byte(rnd.Uint32())}, int(n))
	r = request(block.OpWrite, data)
	r.Off = rnd.Int64N(crashLeg/512-3) * 512
	if rnd.IntN(3) == 0 {
		r.Flags = block.FUA
	}
	c := want.Begin(r.Off, data)
	c.End(dev.Do(t.Context(), r) == nil && on(), r.Flags != 0)
}
