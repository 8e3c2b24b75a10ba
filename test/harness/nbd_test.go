package harness

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The crash and limit tests rely on this client, so it is tried on a server that
// is not ours.
func TestNBDClientAgainstForeignServer(t *testing.T) {
	Need(t, "nbdkit")
	sock := filepath.Join(Dir(t), "s")
	cmd := exec.Command("nbdkit", "-f", "-U", sock, "memory", "16M")
	Spawn(t, cmd)
	WaitSocket(t, sock)

	c, err := DialNBD("unix", sock, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != 16<<20 {
		t.Errorf("size %d, want %d", c.Size, 16<<20)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i + 1)}, 8192)
			off := int64(i) * 8192
			if e, err := c.Do(NBDWrite, NBDFUA, off, 0, want); e != 0 || err != nil {
				t.Errorf("write %d: errno %d, %v", i, e, err)
			}
			got := make([]byte, len(want))
			if e, err := c.Do(NBDRead, 0, off, 0, got); e != 0 || err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d: errno %d, %v, %x...", i, e, err, got[:4])
			}
		})
	}
	wg.Wait()
	if e, err := c.Do(NBDRead, 0, 16<<20, 0, make([]byte, 512)); e == 0 || err != nil {
		t.Errorf("read beyond the end: errno %d, %v; want an error reply", e, err)
	}
	if e, err := c.Do(NBDFlush, 0, 0, 0, nil); e != 0 || err != nil {
		t.Errorf("flush: errno %d, %v", e, err)
	}
	cmd.Process.Kill()
	if _, err := c.Do(NBDFlush, 0, 0, 0, nil); !errors.Is(err, ErrDisconnected) {
		t.Errorf("flush after the server was killed: %v, want %v", err, ErrDisconnected)
	}
}
