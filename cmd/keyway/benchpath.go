package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/measure"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// benchStack is the devices through which requests are measured: leaves in memory
// with and without an engine, which leaves the work to the fallback.
type benchStack struct {
	figures []benchFigure
	undo    []func()
}

func (s *benchStack) close() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
	s.undo = nil
}

// add makes the devices and figures of one mode.
func (s *benchStack) add(ctx context.Context, r *benchReport, m blkcrypto.Mode) error {
	const unit = 4096
	disk := int64(16 << 20)
	for _, n := range r.plan.requests {
		disk = max(disk, 2*int64(n))
	}
	fallback := keyslot.New(soft.New("fallback", soft.FallbackSlots))
	for _, by := range []string{"engine", "fallback"} {
		b, err := secret.New(m.KeySize())
		if err != nil {
			return err
		}
		rand.Read(b.Bytes())
		k, err := blkcrypto.NewKey("bench", blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8}, b)
		if err != nil {
			b.Wipe()
			return err
		}
		s.undo = append(s.undo, func() { k.Evict(context.Background()) })
		dev, err := backend.Open(ctx, fmt.Sprintf("mem:%d", disk), backend.Options{})
		if err != nil {
			return err
		}
		if err := fill(ctx, dev, disk); err != nil {
			return err
		}
		leaf := dm.Leaf{Dev: dev, Text: "mem", Fallback: fallback}
		if by == "engine" {
			leaf.Engine = keyslot.New(soft.New("engine", soft.DefaultSlots))
		}
		mapped, err := dm.NewLeaf("bench", leaf, dm.Options{})
		if err != nil {
			return err
		}
		s.undo = append(s.undo, func() { mapped.Remove(context.Background(), dm.RemoveOptions{}) })
		for _, n := range r.plan.requests {
			data := make([]byte, n)
			for _, op := range []block.Op{block.OpWrite, block.OpRead} {
				var off int64
				s.figures = append(s.figures, benchFigure{
					what: fmt.Sprintf("%v: %v through %s", m, op, by),
					run: func(ctx context.Context, d time.Duration) (float64, error) {
						var failed error
						rate := measure.Pace(ctx, d, func() {
							off += int64(n)
							if off+int64(n) > disk {
								off = 0
							}
							err := mapped.Do(ctx, block.Request{
								Op: op, Off: off, Len: int64(n), Data: block.Bytes(data),
								Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(uint64(off) / unit)},
							})
							if err != nil {
								failed = err
							}
						})
						return rate, failed
					},
					put: func(v float64) {
						r.Path = append(r.Path, pathRow{
							Mode: m.String(), Operation: op.String(), By: by, DataUnit: unit, Size: n,
							BytesPS: v * float64(n), NsPerReq: 1e9 / v,
						})
					},
				})
			}
		}
	}
	return nil
}

// fill writes all of dev, so that no request is the first to touch a page.
func fill(ctx context.Context, dev block.Device, size int64) error {
	data := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(data)) {
		n := min(int64(len(data)), size-off)
		if err := dev.Do(ctx, block.Request{Op: block.OpWrite, Off: off, Len: n, Data: block.Bytes(data[:n])}); err != nil {
			return err
		}
	}
	return nil
}
