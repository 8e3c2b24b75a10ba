package nbd

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/export"
	"keyway/internal/nbdproto"
)

// opened is one of several handles on a device.
type opened struct {
	block.Device
	all block.Device
}

func (o *opened) Unaligned() block.Device { return o.all }

// slowRead leaves time between the read and the write back.
type slowRead struct{ block.Device }

func (s slowRead) Do(ctx context.Context, r block.Request) error {
	err := s.Device.Do(ctx, r)
	if r.Op == block.OpRead {
		time.Sleep(time.Millisecond)
	}
	return err
}

// TestUnalignedWritesThroughTwoServers: a device that is exported twice, under
// handles of its own and at different addresses, loses no part of a block that
// clients of both write.
func TestUnalignedWritesThroughTwoServers(t *testing.T) {
	disk := newMemory(1 << 20)
	disk.info.LogicalBlock = 4096
	disk.blocks.Store(true) // workers perform everything, side by side
	dev := slowRead{disk}
	all := block.RMW(dev)
	var wg sync.WaitGroup
	for k := range 2 {
		_, dial := start(t, Config{}, export.Export{Name: "d", Dev: &opened{dev, all}})
		c := enter(t, dial(), "d", nbdproto.Structured, false)
		wg.Go(func() {
			off := uint64(k) * 512
			for i := range 20 {
				b := bytes.Repeat([]byte{byte(i + 1)}, 512)
				if a, err := c.Do(nbdproto.CmdWrite, 0, off, 512, b); err != nil || a.Errno != nbdproto.OK {
					t.Errorf("write: %v %v", a.Errno, err)
					return
				}
				a, err := c.Do(nbdproto.CmdRead, nbdproto.CmdFlagDF, off, 512, nil)
				if err != nil || a.Errno != nbdproto.OK {
					t.Errorf("read: %v %v", a.Errno, err)
					return
				}
				if !bytes.Equal(a.Data, b) {
					t.Errorf("client %d: write %d is lost", k, i)
				}
			}
		})
	}
	wg.Wait()
}
