package dm_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/internal/dmtest"
)

// TestUnalignedWritesOfSeveralHandles: two users of one device, each with a
// handle, who write parts of the same block lose nothing.
func TestUnalignedWritesOfSeveralHandles(t *testing.T) {
	w := dmtest.New(t)
	disk := w.Disk("a", 1<<20, 0)
	w.AddKey("k", bytes.Repeat([]byte{1, 2, 3, 4}, 16))
	w.Map("d", "0 2048 crypt aes-xts-plain64 :64:logon:k 0 a 0 2 sector_size:4096 iv_large_sectors")
	disk.Before = func(_ context.Context, r block.Request) error {
		if r.Op == block.OpRead {
			time.Sleep(time.Millisecond) // between the read and the write back
		}
		return nil
	}
	var wg sync.WaitGroup
	for k := range 2 {
		h, err := w.Open(t.Context(), "d", false)
		if err != nil {
			t.Fatal(err)
		}
		dev := h.(interface{ Unaligned() block.Device }).Unaligned()
		wg.Go(func() {
			defer h.Close()
			off := int64(k) * 512
			for i := range 20 {
				b := bytes.Repeat([]byte{byte(i + 1)}, 512)
				if err := write(dev, off, b); err != nil {
					t.Error(err)
				}
				got := make([]byte, 512)
				if err := dev.Do(t.Context(), block.Request{Op: block.OpRead, Off: off, Len: 512, Data: block.Bytes(got)}); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(got, b) {
					t.Errorf("user %d: write %d is lost", k, i)
				}
			}
		})
	}
	wg.Wait()
}
