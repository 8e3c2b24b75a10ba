package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/control"
	"keyway/internal/secret"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// written is the request to write n bytes of a file.
func written(path string, off, n int64, keys []control.FscryptKey) control.FscryptWrite {
	return control.FscryptWrite{Path: []byte(path), Keys: keys, Offset: off, Length: n}
}

// Writes side by side: those that another one keeps out may come again, and all that
// succeeded is there. Nothing is left behind, and the disks are as the kernel left them
// once the old contents are back.
func TestFscryptWriteThroughAStack(t *testing.T) {
	d, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	before := disks(t, d, c)
	var wg sync.WaitGroup
	const path, parts, size = "xts/p50000", 8, 5000
	want := fixtures.Pattern("mix", 77, parts*size)
	for i := range parts {
		_, own := keysOf(t, f)
		wg.Go(func() {
			off := int64(i * size)
			for end := time.Now().Add(time.Minute); ; {
				x, err := c.FscryptWrite(t.Context(), "top", written("/"+path, off, size, keys), again(t, own), bytes.NewReader(want[off:]))
				if err == nil && x.Bytes == size {
					return
				}
				if e, ok := errors.AsType[*control.Error](err); !ok || !strings.Contains(e.Message, "another call writes") || time.Now().After(end) {
					t.Errorf("part %d: %+v, %v", i, x, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := catOf(t, c, path, keys, again(t, in)); !bytes.Equal(got[:len(want)], want) || len(got) != 50000 {
		t.Errorf("%d bytes, other than those that were written", len(got))
	}
	noTrace(t, c)
	for _, file := range f.Files {
		if file.Path == path {
			old := file.Plain(0, file.Size)
			_, err := c.FscryptWrite(t.Context(), "top", written(path, 0, file.Size, keys), again(t, in), bytes.NewReader(old))
			must(t, err)
		}
	}
	after := disks(t, d, c)
	for name := range before {
		if !bytes.Equal(before[name], after[name]) {
			t.Errorf("disk %s is not as the kernel left it", name)
		}
	}
}

// disks reads the files beneath the leaves.
func disks(t *testing.T, d *Daemon, c *control.Client) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, name := range []string{"a", "b"} {
		d.mu.Lock()
		uri := d.devices[name].spec.Backend
		d.mu.Unlock()
		b, err := os.ReadFile(strings.TrimPrefix(uri, "file:"))
		must(t, err)
		all[name] = b
	}
	return all
}

func catOf(t *testing.T, c *control.Client, path string, keys []control.FscryptKey, in *os.File) []byte {
	t.Helper()
	var got bytes.Buffer
	_, err := c.FscryptCat(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte(path)}, Keys: keys}, in, control.FscryptSink{
		Data:    func(p []byte) error { got.Write(p); return nil },
		Problem: func(p control.FscryptProblem) error { return errors.New(p.Error) },
	})
	must(t, err)
	return got.Bytes()
}

// What is refused is before a byte of the body is asked for.
func TestFscryptWriteRefusesBeforeItReads(t *testing.T) {
	_, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	for _, x := range []struct {
		r    control.FscryptWrite
		want string
	}{
		{written("xts/p4097", 4090, 100, keys), "does not become longer"},
		{written("xts/hole", 4000, 1000, keys), "are a hole"},
		{written("xts", 0, 1, keys), "no contents"},
		{written("xts/absent", 0, 1, keys), "does not exist"},
		{written("xts/p4097", -1, 100, keys), "negative"},
	} {
		data := &counting{Reader: empty(100 << 20)}
		_, err := c.FscryptWrite(t.Context(), "top", x.r, again(t, in), data)
		if err == nil || !strings.Contains(err.Error(), x.want) || data.n > 0 {
			t.Errorf("%s: %v, after %d bytes; want %q", x.r.Path, err, data.n, x.want)
		}
	}
	if _, err := c.FscryptWrite(t.Context(), "absent", written("xts/a", 0, 1, nil), nil, empty(1)); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("%v", err)
	}
	noTrace(t, c)
}

func empty(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A client that goes away in the middle leaves nothing behind: no key, nothing open,
// and the next one may write.
func TestFscryptWriteWhoseClientGoesAway(t *testing.T) {
	d, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	old := catOf(t, c, "xts/p50000", keys, again(t, in)) // engines have what memory they keep
	over(t, d, secret.Usage{Locked: 1 << 40})
	before := secret.Held()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := c.FscryptWrite(ctx, "top", written("xts/p50000", 0, 50000, keys), again(t, in), r)
		done <- err
	}()
	if _, err := w.Write(make([]byte, 20000)); err != nil { // the daemon asked for it
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	w.Close()
	over(t, d, before)
	noTrace(t, c)
	if !bytes.Equal(catOf(t, c, "xts/p50000", keys, again(t, in)), old) {
		t.Error("a part of a mebibyte was written")
	}
	_, err := c.FscryptWrite(t.Context(), "top", written("xts/p50000", 0, 3, keys), again(t, in), strings.NewReader("abc"))
	must(t, err)
}

// A daemon that ends does not wait for a client that sends nothing.
func TestFscryptWriteEndsWithTheDaemon(t *testing.T) {
	d, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	r, w := io.Pipe()
	defer w.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.FscryptWrite(t.Context(), "top", written("xts/p50000", 0, 50000, keys), again(t, in), r)
		done <- err
	}()
	if _, err := w.Write(make([]byte, 20000)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, d.Close(ctx))
	if err := <-done; err == nil {
		t.Error("written by a daemon that has ended")
	}
}

// Whoever is connected to an export, of the device or of one beneath or above it, may
// have the file system mounted.
func TestFscryptWriteNotUnderClientsOfExports(t *testing.T) {
	_, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	sock := filepath.Join(t.TempDir(), "s")
	for _, name := range []string{"top", "a"} {
		_, err := c.AddExport(t.Context(), control.Export{Name: name, Device: name, NBD: "unix:" + sock + name})
		must(t, err)
		try := func() error {
			_, err := c.FscryptWrite(t.Context(), "top", written("xts/p50000", 0, 3, keys), again(t, in), strings.NewReader("abc"))
			return err
		}
		must(t, try()) // nobody is connected
		conn, err := harness.DialNBD("unix", sock+name, name)
		must(t, err)
		if err := try(); err == nil || !strings.Contains(err.Error(), `export "`+name+`"`) {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
		for end := time.Now().Add(time.Minute); try() != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the client has gone, and it is still refused")
			}
		}
	}
}

// A call that writes keeps out those that write to what is above or beneath its device,
// and no others.
func TestFscryptWriteNotThroughTwoDevices(t *testing.T) {
	d, _, _ := stripedFiles(t) // top is on a and b
	for _, x := range []struct {
		first, second string
		busy          bool
	}{{"top", "a", true}, {"b", "top", true}, {"top", "top", true}, {"a", "b", false}} {
		done, err := d.enterWrite(x.first)
		must(t, err)
		again, err := d.enterWrite(x.second)
		if got := errors.Is(err, block.ErrBusy); got != x.busy || err != nil && !got {
			t.Errorf("%s under %s: %v", x.second, x.first, err)
		}
		if err == nil {
			again()
		}
		done()
		if again, err = d.enterWrite(x.second); err != nil {
			t.Errorf("%s after %s: %v", x.second, x.first, err)
		} else {
			again()
		}
	}
}
