package daemon

import (
	"context"
	"os"
	"testing"
	"time"

	"keyway/block"
	"keyway/control"
	"keyway/dm"
)

// addKey adds a key by a pipe.
func addKey(t *testing.T, c *control.Client, name string) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	w.Write([]byte("0123456789abcdefghijklmnopqrstuv"))
	w.Write([]byte("vutsrqponmlkjihgfedcba9876543210"))
	w.Close()
	_, err = c.AddKey(t.Context(), control.AddKey{Name: name, Mode: "AES-256-XTS", DataUnit: 512, Source: "test"}, r)
	must(t, err)
}

func mappedOf(t *testing.T, d *Daemon, name string) *dm.Mapped {
	t.Helper()
	v, err := d.find(name)
	must(t, err)
	m, err := d.mapped(v)
	must(t, err)
	return m
}

// read begins to read the first sector.
func read(ctx context.Context, m *dm.Mapped) <-chan error {
	done := make(chan error, 1)
	go func() {
		done <- m.Do(ctx, block.Request{Op: block.OpRead, Len: 512, Data: block.Bytes(make([]byte, 512))})
	}()
	return done
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

// A suspended device admits nothing before it is resumed, also when the key
// that it lacks comes back; then the requests that waited are served.
func TestSuspensionOutlastsTheReturnOfAKey(t *testing.T) {
	d, c := start(t, nil)
	addKey(t, c, "k")
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	create(t, c, control.Create{Name: "v", Table: "0 2048 crypt aes-xts-plain64 :64:logon:k 0 a 0\n"})
	_, err := c.Suspend(t.Context(), "v", control.Suspend{})
	must(t, err)
	_, err = c.EvictKey(t.Context(), "k", control.EvictKey{})
	must(t, err)
	m := mappedOf(t, d, "v")
	waiting := read(t.Context(), m)
	until(t, "the read waits", func() bool { return m.State().Waiting == 1 })
	event := m.State().Event
	addKey(t, c, "k")
	create(t, c, control.Create{Name: "b", Backend: "mem:1M"})
	if n := m.State().Event; n != event {
		t.Errorf("event %d became %d: a new table was resumed", event, n)
	}
	select {
	case err := <-waiting:
		t.Fatalf("a request got through the suspended device: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	_, err = c.Resume(t.Context(), "v")
	must(t, err)
	if err := <-waiting; err != nil {
		t.Errorf("after resume, with the key back: %v", err)
	}
}

// A device suspended while its key is gone can be resumed: its requests fail.
func TestResumeWithoutItsKey(t *testing.T) {
	d, c := start(t, nil)
	addKey(t, c, "k")
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	create(t, c, control.Create{Name: "v", Table: "0 2048 crypt aes-xts-plain64 :64:logon:k 0 a 0\n"})
	_, err := c.EvictKey(t.Context(), "k", control.EvictKey{})
	must(t, err)
	_, err = c.Suspend(t.Context(), "v", control.Suspend{})
	must(t, err)
	_, err = c.Resume(t.Context(), "v")
	must(t, err)
	if err := <-read(t.Context(), mappedOf(t, d, "v")); err == nil {
		t.Error("a read without the key succeeded")
	}
}

// Requests that hang beneath a device which waits for its key hold no other
// command up.
func TestOtherCommandsDoNotWaitForADeviceThatHangs(t *testing.T) {
	d, c := start(t, nil)
	addKey(t, c, "k")
	create(t, c, control.Create{Name: "a", Backend: "mem:1M"})
	create(t, c, control.Create{Name: "v", Table: "0 1024 crypt aes-xts-plain64 :64:logon:k 0 a 0\n1024 1024 linear a 1024\n"})
	_, err := c.EvictKey(t.Context(), "k", control.EvictKey{})
	must(t, err)
	_, err = c.Suspend(t.Context(), "a", control.Suspend{})
	must(t, err)
	a, m := mappedOf(t, d, "a"), mappedOf(t, d, "v")
	done := make(chan error, 1)
	go func() {
		done <- m.Do(t.Context(), block.Request{Op: block.OpRead, Off: 1024 * 512, Len: 512, Data: block.Bytes(make([]byte, 512))})
	}()
	until(t, "the read hangs", func() bool { return a.State().Waiting == 1 })
	began := time.Now()
	addKey(t, c, "k")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("key add took %v", took)
	}
	_, err = c.Resume(t.Context(), "a")
	must(t, err)
	must(t, <-done)
	// What could not be done then is done at the next occasion.
	create(t, c, control.Create{Name: "b", Backend: "mem:1M"})
	must(t, <-read(t.Context(), m))
}
