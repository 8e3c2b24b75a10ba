package model

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"keyway/block"
)

func fill(b byte) []byte { return bytes.Repeat([]byte{b}, 512) }

// mayHold tells which fills a crash may leave in block 0.
func mayHold(d *Disk) (fills string) {
	for b := byte('a'); b <= 'z'; b++ {
		if d.Legal(0, fill(b)) == nil {
			fills += string(b)
		}
	}
	if d.Legal(0, make([]byte, 512)) == nil {
		fills += "0"
	}
	return fills
}

func write(d *Disk, b byte, fua bool) { d.Begin(0, fill(b)).End(true, fua) }

func TestWhatACrashMayLeave(t *testing.T) {
	for _, c := range []struct {
		name    string
		history func(d *Disk)
		want    string
	}{
		{"nothing written", func(d *Disk) {}, "0"},
		{"volatile", func(d *Disk) { write(d, 'a', false); write(d, 'b', false) }, "ab0"},
		{"flushed", func(d *Disk) { write(d, 'a', false); write(d, 'b', false); d.EndFlush(d.BeginFlush()) }, "b"},
		{"flushed, then written", func(d *Disk) {
			write(d, 'a', false)
			d.EndFlush(d.BeginFlush())
			write(d, 'b', false)
		}, "ab"},
		{"fua", func(d *Disk) { write(d, 'a', false); write(d, 'b', true) }, "b"},
		{"fua, then written", func(d *Disk) { write(d, 'a', true); write(d, 'b', false) }, "ab"},
		{"flush that began before the write ended", func(d *Disk) {
			write(d, 'a', false)
			c := d.Begin(0, fill('b'))
			f := d.BeginFlush()
			c.End(true, false)
			d.EndFlush(f)
		}, "ab"},
		{"failed write", func(d *Disk) {
			write(d, 'a', true)
			d.Begin(0, fill('b')).End(false, false)
			d.EndFlush(d.BeginFlush())
		}, "ab"},
		{"failed flush", func(d *Disk) { write(d, 'a', false); d.BeginFlush() }, "a0"},
		{"concurrent writes, both ended", func(d *Disk) {
			a, b := d.Begin(0, fill('a')), d.Begin(0, fill('b'))
			b.End(true, false)
			a.End(true, false)
			d.EndFlush(d.BeginFlush())
		}, "ab"},
		{"zeroes", func(d *Disk) { write(d, 'a', true); d.BeginZero(0, 512).End(true, true) }, "0"},
		{"discard", func(d *Disk) { d.BeginDiscard(0, 512).End(true, true) }, "abcdefghijklmnopqrstuvwxyz0"},
	} {
		d := New(1024, 512)
		c.history(d)
		if got := mayHold(d); got != c.want {
			t.Errorf("%s: a crash may leave %q, want %q", c.name, got, c.want)
		}
		for seed := range uint64(20) {
			if err := d.Legal(0, d.Crash(seed)); err != nil {
				t.Errorf("%s: Crash(%d) is not legal: %v", c.name, seed, err)
			}
		}
	}
}

func TestCrashLosesEveryVolatileWriteForSomeSeed(t *testing.T) {
	d := New(512, 512)
	write(d, 'a', false)
	write(d, 'b', false)
	seen := map[byte]bool{}
	for seed := range uint64(64) {
		seen[d.Crash(seed)[0]] = true
	}
	if len(seen) != 3 {
		t.Errorf("64 crashes left %d versions, want 3", len(seen))
	}
	if !bytes.Equal(d.Crash(7), d.Crash(7)) {
		t.Error("the same seed gave two media")
	}
}

func TestCheckKnowsTheOrderOfChanges(t *testing.T) {
	d := New(1024, 512)
	write(d, 'a', false)
	write(d, 'b', false)
	if err := d.Check(0, fill('b')); err != nil {
		t.Error(err)
	}
	err := d.Check(0, fill('a'))
	if err == nil || !strings.Contains(err.Error(), "block 0") {
		t.Errorf("reading an old version: %v", err)
	}
	c := d.Begin(0, fill('c'))
	for _, b := range []byte("bc") {
		if err := d.Check(0, fill(b)); err != nil {
			t.Errorf("%c beside a pending write: %v", b, err)
		}
	}
	c.End(true, false)
	if d.Check(0, fill('b')) == nil {
		t.Error("the version before a completed write passes")
	}
	if got := d.Read(500, 24); !bytes.Equal(got, append(bytes.Repeat([]byte("c"), 12), make([]byte, 12)...)) {
		t.Errorf("Read across blocks: %q", got)
	}
}

func TestDeviceHonoursFUAOnlyIfItHasIt(t *testing.T) {
	for _, fua := range []block.Support{block.None, block.Native} {
		d := NewDevice(block.Info{Size: 4096, LogicalBlock: 512, FUA: fua})
		r := block.Request{Op: block.OpWrite, Flags: block.FUA, Len: 512, Data: block.Bytes(fill('a'))}
		if err := d.Do(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		if lost := d.Legal(0, make([]byte, 512)) == nil; lost != (fua == block.None) {
			t.Errorf("FUA %v: the write may be lost: %v", fua, lost)
		}
	}
}
