package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/export"
	"keyway/internal/nbdproto"
	"keyway/internal/nbdproto/nbdtest"
)

const patience = time.Minute // a machine under load is no failure

// start serves exports on a Unix socket and returns how to connect. When the
// test ends the server is stopped, and everything must be gone.
func start(t *testing.T, cfg Config, exports ...export.Export) (*Server, func() net.Conn) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exports {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		select {
		case <-served:
		case <-time.After(patience):
			t.Error("Serve did not return")
		}
		if n := len(s.Connections()); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if s.budget.used != 0 {
			t.Errorf("%d bytes are left in the budget", s.budget.used)
		}
	})
	return s, func() net.Conn {
		t.Helper()
		nc, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(patience))
		return nc
	}
}

// client starts a server for dev and enters transmission.
func client(t *testing.T, dev block.Device, s nbdproto.Style, meta bool) *nbdtest.Client {
	t.Helper()
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	return enter(t, dial(), "d", s, meta)
}

func enter(t *testing.T, nc net.Conn, name string, s nbdproto.Style, meta bool, items ...uint16) *nbdtest.Client {
	t.Helper()
	c, err := nbdtest.Dial(nc, name, s, meta, items...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// do sends a command and wants that error.
func do(t *testing.T, c *nbdtest.Client, typ, flags uint16, off, n uint64, payload []byte, want nbdproto.Errno) nbdtest.Answer {
	t.Helper()
	a, err := c.Do(typ, flags, off, n, payload)
	if err != nil {
		t.Fatalf("command %d, flags %#x, %d bytes at %d: %v", typ, flags, n, off, err)
	}
	if a.Errno != want {
		t.Fatalf("command %d, flags %#x, %d bytes at %d: error %d %q, want %d", typ, flags, n, off, a.Errno, a.Message, want)
	}
	return a
}

func fill(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) ^ byte(i>>8) ^ seed | 1
	}
	return b
}

func eachStyle(t *testing.T, f func(t *testing.T, s nbdproto.Style)) {
	for _, s := range []nbdproto.Style{nbdproto.Simple, nbdproto.Structured, nbdproto.Extended} {
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

// TestWhatIsWrittenIsRead covers sizes around every limit of the data path,
// inline and by workers.
func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		t.Run(fmt.Sprintf("blocks=%v", blocks), func(t *testing.T) {
			eachStyle(t, func(t *testing.T, s nbdproto.Style) {
				dev := newMemory(40 << 20)
				dev.blocks.Store(blocks)
				c := client(t, dev, s, false)
				for i, n := range []int{1, 511, 512, 4096, 4097, maxSmall - 28, maxSmall, maxSmall + 1, inSize, outSize, outSize + 1, MaxRequest} {
					for _, off := range []uint64{0, 1, 65537} {
						if n >= inSize && off != 1 || n == MaxRequest && s == nbdproto.Structured {
							continue
						}
						b := fill(n, byte(i))
						do(t, c, nbdproto.CmdWrite, 0, off, uint64(n), b, 0)
						a := do(t, c, nbdproto.CmdRead, 0, off, uint64(n), nil, 0)
						if !bytes.Equal(a.Data, b) {
							t.Fatalf("%d bytes at %d came back changed", n, off)
						}
					}
				}
			})
		})
	}
}

// TestDeepQueue keeps many requests of all sizes in flight and matches the
// replies by cookie.
func TestDeepQueue(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		t.Run(fmt.Sprintf("blocks=%v", blocks), func(t *testing.T) {
			dev := newMemory(16 << 20)
			dev.blocks.Store(blocks)
			c := client(t, dev, nbdproto.Simple, false)
			const n = 1900
			size := func(i int) int { return 1 + i*i*37%8192 }
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				for i := range n {
					r := nbdproto.Request{Type: nbdproto.CmdWrite, Cookie: uint64(i), Offset: uint64(i) * 8192, Length: uint64(size(i))}
					if _, err := c.Conn.Write(append(r.Append(nil), fill(size(i), byte(i))...)); err != nil {
						t.Error(err)
						return
					}
				}
			})
			seen := make([]bool, n)
			for range n {
				b := make([]byte, nbdproto.SimpleSize)
				if _, err := io.ReadFull(c.Conn, b); err != nil {
					t.Fatal(err)
				}
				h, _, err := nbdproto.ParseReply(b, nbdproto.Simple)
				if err != nil || h.Errno != 0 || h.Cookie >= n || seen[h.Cookie] {
					t.Fatalf("reply %+v, %v", h, err)
				}
				seen[h.Cookie] = true
			}
			for i := range n {
				a := do(t, c, nbdproto.CmdRead, 0, uint64(i)*8192, uint64(size(i)), nil, 0)
				if !bytes.Equal(a.Data, fill(size(i), byte(i))) {
					t.Fatalf("write %d came back changed", i)
				}
			}
		})
	}
}

func TestErrorsOfMisuse(t *testing.T) {
	type call struct {
		name       string
		typ, flags uint16
		off, n     uint64
		want       nbdproto.Errno
	}
	const size = 1 << 20
	calls := []call{
		{"read beyond the end", nbdproto.CmdRead, 0, size - 512, 1024, nbdproto.EINVAL},
		{"read far beyond", nbdproto.CmdRead, 0, 1<<64 - 512, 1024, nbdproto.EINVAL},
		{"write beyond the end", nbdproto.CmdWrite, 0, size - 512, 1024, nbdproto.ENOSPC},
		{"zeroes beyond the end", nbdproto.CmdWriteZeroes, 0, size, 1, nbdproto.ENOSPC},
		{"trim beyond the end", nbdproto.CmdTrim, 0, size - 512, 513, nbdproto.EINVAL},
		{"cache beyond the end", nbdproto.CmdCache, 0, size, 512, nbdproto.EINVAL},
		{"unknown command", 4242, 0, 0, 0, nbdproto.EINVAL},
		{"resize", 8, 0, 0, 512, nbdproto.EINVAL},
		{"unknown flag", nbdproto.CmdRead, 1 << 15, 0, 512, nbdproto.EINVAL},
		{"NO_HOLE on a read", nbdproto.CmdRead, nbdproto.CmdFlagNoHole, 0, 512, nbdproto.EINVAL},
		{"FAST_ZERO on a write", nbdproto.CmdWrite, nbdproto.CmdFlagFastZero, 0, 512, nbdproto.EINVAL},
		{"REQ_ONE on a trim", nbdproto.CmdTrim, nbdproto.CmdFlagReqOne, 0, 512, nbdproto.EINVAL},
		{"unknown flag on cache", nbdproto.CmdCache, 1 << 9, 0, 512, nbdproto.EINVAL},
		{"flush with a range", nbdproto.CmdFlush, 0, 512, 512, nbdproto.EINVAL},
		{"status without a context", nbdproto.CmdBlockStatus, 0, 0, 512, nbdproto.EINVAL},
		{"FUA is allowed anywhere", nbdproto.CmdRead, nbdproto.CmdFlagFUA, 0, 512, 0},
		{"nothing read", nbdproto.CmdRead, 0, size, 0, 0},
		{"nothing written", nbdproto.CmdWrite, 0, 0, 0, 0},
		{"nothing trimmed", nbdproto.CmdTrim, 0, 0, 0, 0},
		{"nothing cached", nbdproto.CmdCache, 0, 0, 0, 0},
		{"nothing zeroed", nbdproto.CmdWriteZeroes, 0, 0, 0, 0},
	}
	eachStyle(t, func(t *testing.T, s nbdproto.Style) {
		c := client(t, newMemory(size), s, false)
		calls := calls
		if s == nbdproto.Simple {
			calls = append(calls, call{"DF that was not offered", nbdproto.CmdRead, nbdproto.CmdFlagDF, 0, 512, nbdproto.EINVAL})
		}
		for _, k := range calls {
			t.Run(k.name, func(t *testing.T) {
				var p []byte
				if k.typ == nbdproto.CmdWrite {
					p = make([]byte, k.n)
				}
				do(t, c, k.typ, k.flags, k.off, k.n, p, k.want)
				// The stream is in step: the next command works.
				do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
			})
		}
	})
}

func TestReadOnlyRefusesChanges(t *testing.T) {
	device := newMemory(1 << 20)
	device.info.ReadOnly = true
	for name, e := range map[string]export.Export{
		"export": {Name: "d", Dev: newMemory(1 << 20), ReadOnly: true},
		"device": {Name: "d", Dev: device},
	} {
		t.Run(name, func(t *testing.T) {
			_, dial := start(t, Config{}, e)
			c := enter(t, dial(), "d", nbdproto.Structured, false)
			if c.Flags&nbdproto.ReadOnly == 0 || c.Flags&(nbdproto.SendTrim|nbdproto.SendWriteZeroes|nbdproto.SendFUA) != 0 {
				t.Errorf("flags %#x", c.Flags)
			}
			do(t, c, nbdproto.CmdWrite, nbdproto.CmdFlagFUA, 0, 512, make([]byte, 512), nbdproto.EPERM)
			do(t, c, nbdproto.CmdTrim, 0, 0, 512, nil, nbdproto.EPERM)
			do(t, c, nbdproto.CmdWriteZeroes, 0, 0, 512, nil, nbdproto.EPERM)
			do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
			do(t, c, nbdproto.CmdFlush, 0, 0, 0, nil, 0)
		})
	}
}

func TestFlagsFollowTheDevice(t *testing.T) {
	base := nbdproto.HasFlags | nbdproto.SendFlush | nbdproto.SendFUA | nbdproto.SendWriteZeroes | nbdproto.CanMultiConn | nbdproto.SendCache
	for _, k := range []struct {
		discard, zeroes block.Support
		want            uint16
	}{
		{block.None, block.None, base},
		{block.Native, block.None, base | nbdproto.SendTrim},
		{block.Emulated, block.Emulated, base | nbdproto.SendTrim},
		{block.None, block.Native, base | nbdproto.SendFastZero},
	} {
		dev := newMemory(1 << 20)
		dev.info.Discard, dev.info.Zeroes = k.discard, k.zeroes
		if c := client(t, dev, nbdproto.Simple, false); c.Flags != k.want {
			t.Errorf("%v: flags %#x, want %#x", k, c.Flags, k.want)
		}
		if c := client(t, dev, nbdproto.Structured, false); c.Flags != k.want|nbdproto.SendDF {
			t.Errorf("%v: structured flags %#x, want %#x", k, c.Flags, k.want|nbdproto.SendDF)
		}
	}
}

func TestOversize(t *testing.T) {
	dev := newMemory(80 << 20)
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: dev})
	t.Run("read", func(t *testing.T) {
		eachStyle(t, func(t *testing.T, s nbdproto.Style) {
			c := enter(t, dial(), "d", s, false)
			do(t, c, nbdproto.CmdRead, 0, 0, MaxRequest+1, nil, nbdproto.EINVAL)
			do(t, c, nbdproto.CmdRead, 0, 0, 1, nil, 0)
		})
	})
	t.Run("write is consumed", func(t *testing.T) {
		c := enter(t, dial(), "d", nbdproto.Simple, false)
		do(t, c, nbdproto.CmdWrite, 0, 0, MaxRequest+1, make([]byte, MaxRequest+1), nbdproto.EINVAL)
		do(t, c, nbdproto.CmdRead, 0, 0, 1, nil, 0)
	})
	t.Run("absurd write ends the connection", func(t *testing.T) {
		c := enter(t, dial(), "d", nbdproto.Simple, false)
		do(t, c, nbdproto.CmdWrite, 0, 0, 1<<32-1, nil, nbdproto.EINVAL)
		ended(t, c)
	})
	t.Run("oversize payload under extended headers ends the connection", func(t *testing.T) {
		c := enter(t, dial(), "d", nbdproto.Extended, false)
		do(t, c, nbdproto.CmdWrite, 0, 0, MaxRequest+1, nil, nbdproto.EINVAL)
		ended(t, c)
	})
}

// ended wants the server to have closed the connection.
func ended(t *testing.T, c *nbdtest.Client) {
	t.Helper()
	if n, err := c.Conn.Read(make([]byte, 1)); err == nil || n != 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the connection is still there: %d bytes, %v", n, err)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatal("the connection is still there")
	}
}

func TestPayloadOnCommandsThatHaveNone(t *testing.T) {
	c := client(t, newMemory(1<<20), nbdproto.Extended, false)
	p := make([]byte, 700)
	do(t, c, nbdproto.CmdRead, nbdproto.CmdFlagPayloadLen, 0, 700, p, nbdproto.EINVAL)
	do(t, c, nbdproto.CmdFlush, nbdproto.CmdFlagPayloadLen, 0, 700, p, nbdproto.EINVAL)
	do(t, c, 999, nbdproto.CmdFlagPayloadLen, 0, 700, p, nbdproto.EINVAL)
	// A write without the flag carries nothing.
	r := nbdproto.Request{Type: nbdproto.CmdWrite, Cookie: 77, Length: 512}
	if err := c.Send(r.AppendExt(nil)); err != nil {
		t.Fatal(err)
	}
	c.Cookie = 77
	if a, err := c.Answer(nbdproto.CmdWrite, 0, 512); err != nil || a.Errno != nbdproto.EINVAL {
		t.Fatalf("%+v %v", a, err)
	}
	do(t, c, nbdproto.CmdRead, 0, 0, 512, nil, 0)
}

func TestBadMagicEndsTheConnection(t *testing.T) {
	eachStyle(t, func(t *testing.T, s nbdproto.Style) {
		c := client(t, newMemory(1<<20), s, false)
		if err := c.Send(bytes.Repeat([]byte("no"), 20)); err != nil {
			t.Fatal(err)
		}
		ended(t, c)
	})
}

func TestZeroesTrimCacheFlush(t *testing.T) {
	for _, zeroes := range []block.Support{block.None, block.Native} {
		t.Run(zeroes.String(), func(t *testing.T) {
			dev := newMemory(4 << 20)
			dev.info.Zeroes = zeroes
			c := client(t, dev, nbdproto.Structured, false)
			do(t, c, nbdproto.CmdWrite, 0, 0, 1<<20, fill(1<<20, 1), 0)
			do(t, c, nbdproto.CmdWriteZeroes, nbdproto.CmdFlagFUA|nbdproto.CmdFlagNoHole, 100, 200000, nil, 0)
			if dev.flushes.Load() != 1 {
				t.Errorf("%d flushes for one FUA", dev.flushes.Load())
			}
			want := fill(1<<20, 1)
			clear(want[100:200100])
			if a := do(t, c, nbdproto.CmdRead, 0, 0, 1<<20, nil, 0); !bytes.Equal(a.Data, want) {
				t.Error("zeroes in the wrong place")
			}
			if zeroes == block.Native {
				do(t, c, nbdproto.CmdWriteZeroes, nbdproto.CmdFlagFastZero, 4096, 8192, nil, 0)
				do(t, c, nbdproto.CmdWriteZeroes, nbdproto.CmdFlagFastZero, 1, 2, nil, nbdproto.ENOTSUP)
			} else {
				do(t, c, nbdproto.CmdWriteZeroes, nbdproto.CmdFlagFastZero, 4096, 8192, nil, nbdproto.EINVAL)
			}
			do(t, c, nbdproto.CmdTrim, nbdproto.CmdFlagFUA, 512<<10, 64<<10, nil, 0)
			if a := do(t, c, nbdproto.CmdRead, 0, 512<<10, 64<<10, nil, 0); !bytes.Equal(a.Data, make([]byte, 64<<10)) {
				t.Error("trim did nothing")
			}
			do(t, c, nbdproto.CmdCache, 0, 0, 4<<20, nil, 0)
			n := dev.flushes.Load()
			do(t, c, nbdproto.CmdFlush, 0, 0, 0, nil, 0)
			do(t, c, nbdproto.CmdWrite, nbdproto.CmdFlagFUA, 0, 512, make([]byte, 512), 0)
			if got := dev.flushes.Load() - n; got != 2 {
				t.Errorf("%d flushes for a flush and a FUA write", got)
			}
		})
	}
}

func TestZeroesBeyondFourGiB(t *testing.T) {
	dev := newMemory(0)
	dev.info.Size = 1 << 40
	huge := &hugeDevice{memory: dev}
	c := client(t, huge, nbdproto.Extended, false)
	do(t, c, nbdproto.CmdWriteZeroes, 0, 4096, 1<<39, nil, 0)
	do(t, c, nbdproto.CmdTrim, 0, 0, 1<<40, nil, 0)
	huge.mu.Lock()
	defer huge.mu.Unlock()
	if fmt.Sprint(huge.seen) != "[write-zeroes 4096 549755813888 discard 0 1099511627776]" {
		t.Errorf("%v", huge.seen)
	}
}

// hugeDevice notes the requests that it is given.
type hugeDevice struct {
	*memory
	seen []any // guarded by mu
}

func (h *hugeDevice) Do(_ context.Context, r block.Request) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, r.Op, r.Off, r.Len)
	return nil
}

func TestDeviceErrors(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		dev := newMemory(1 << 20)
		dev.blocks.Store(blocks)
		c := client(t, dev, nbdproto.Structured, false)
		for _, k := range []struct {
			err         error
			read, write nbdproto.Errno
		}{
			{block.ErrIO, nbdproto.EIO, nbdproto.EIO},
			{errors.New("strange"), nbdproto.EIO, nbdproto.EIO},
			{&block.OpError{Dev: "x", Err: block.ErrNoSpace}, nbdproto.ENOSPC, nbdproto.ENOSPC},
			{block.ErrReadOnly, nbdproto.EPERM, nbdproto.EPERM},
			{block.ErrOutOfRange, nbdproto.EINVAL, nbdproto.ENOSPC},
			{block.ErrNoCrypto, nbdproto.EINVAL, nbdproto.EINVAL},
			{block.ErrInvalid, nbdproto.EINVAL, nbdproto.EINVAL},
			{block.ErrNotSupported, nbdproto.EINVAL, nbdproto.EINVAL}, // ENOTSUP is for fast zeroes
			{block.ErrClosed, nbdproto.ESHUTDOWN, nbdproto.ESHUTDOWN},
		} {
			dev.fail.Store(&k.err)
			a := do(t, c, nbdproto.CmdRead, 0, 0, 4096, nil, k.read)
			if a.Message == "" {
				t.Errorf("%v: no message", k.err)
			}
			do(t, c, nbdproto.CmdWrite, 0, 0, 4096, make([]byte, 4096), k.write)
			do(t, c, nbdproto.CmdWrite, 0, 0, 256<<10, make([]byte, 256<<10), k.write)
			dev.fail.Store(nil)
			do(t, c, nbdproto.CmdRead, 0, 0, 4096, nil, 0)
		}
	}
}

func TestExportNameEntersTransmission(t *testing.T) {
	_, dial := start(t, Config{}, export.Export{Name: "d", Dev: newMemory(1 << 20)})
	c := &nbdtest.Client{Conn: dial()}
	if err := c.Hello(3); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(nbdtest.OptionBytes(nbdproto.OptExportName, []byte("d"))); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(c.Conn, b); err != nil || binary.BigEndian.Uint64(b) != 1<<20 {
		t.Fatalf("%x %v", b, err)
	}
	do(t, c, nbdproto.CmdWrite, 0, 512, 3, []byte("abc"), 0)
	if a := do(t, c, nbdproto.CmdRead, 0, 512, 4, nil, 0); string(a.Data) != "abc\x00" {
		t.Errorf("%q", a.Data)
	}
}
