package volume_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/fscrypt"
	"keyway/fscrypt/volume"
	"keyway/internal/arena"
	"keyway/internal/dmtest"
	"keyway/internal/ext4"
	"keyway/internal/invariant"
	"keyway/internal/measure"
	"keyway/test/fixtures"
	"keyway/test/harness"
)

// largeFile makes a file system with an encrypted file of n bytes, whose ciphertext is
// any: mke2fs writes it in clear, and it gets a context then.
func largeFile(tb testing.TB, m *fscrypt.MasterKey, n int) []byte {
	tb.Helper()
	harness.Need(tb, "mke2fs")
	dir, img := tb.TempDir(), filepath.Join(tb.TempDir(), "img")
	if err := os.WriteFile(filepath.Join(dir, "big"), fixtures.Pattern("mix", 1, n), 0o600); err != nil {
		tb.Fatal(err)
	}
	harness.ToolOK(tb, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256",
		"-O", "^metadata_csum,^has_journal,encrypt,stable_inodes", "-d", dir, img, fmt.Sprint(n/1024+8192))
	b, err := os.ReadFile(img)
	if err != nil {
		tb.Fatal(err)
	}
	fs, err := ext4.Open(bytes.NewReader(b), int64(len(b)), ext4.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	i, err := fs.Lookup([]byte("big"))
	if err != nil {
		tb.Fatal(err)
	}
	le, desc := binary.LittleEndian, 32
	if le.Uint32(b[1024+0x60:])&0x80 != 0 { // 64bit
		desc = 64
	}
	per := le.Uint32(b[1024+0x28:])
	table := le.Uint32(b[4096+desc*int((i.Number-1)/per)+8:])
	raw := b[int(table)*4096+256*int((i.Number-1)%per):][:256]
	le.PutUint32(raw[0x20:], le.Uint32(raw[0x20:])|0x800) // encrypted
	p := fscrypt.Policy{Version: 2, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Key: m.Spec()}
	c := fscrypt.Context{Policy: p, Nonce: [16]byte{1}}.Bytes()
	const first, value = 164, 216 // bytes of the first attribute and of its value in the inode
	le.PutUint32(raw[first-4:], 0xea020000)
	copy(raw[first:], []byte{1, 9}) // a name of a byte, of the prefix of contexts
	le.PutUint16(raw[first+2:], value-first)
	le.PutUint32(raw[first+8:], uint32(len(c)))
	raw[first+16] = 'c'
	copy(raw[value:], c)
	return b
}

// A timed is a stack with a large file on it.
type timed struct {
	dev  *dm.Handle
	file *volume.File
	key  *blkcrypto.Key // of the contents too, for requests without the volume
	all  []volume.Piece // of up to a mebibyte
	n    int64
}

var timedStacks = []struct{ name, engine, table string }{
	{"leaf", "cpu", ""},
	{"linear on default-key", "cpu", "0 %d default-key aes-xts-plain64 " + metaKey + " 0 leaf 0 2 sector_size:4096 iv_large_sectors"},
	{"by the fallback", "none", "0 %d linear leaf 0"},
}

func newTimed(tb testing.TB, engine, table string, n int) *timed {
	tb.Helper()
	ctx := context.Background()
	m, err := fscrypt.NewMasterKey(bytes.Repeat([]byte("master"), 8))
	if err != nil {
		tb.Fatal(err)
	}
	img := largeFile(tb, m, n)
	w := dmtest.New(tb)
	mem, err := backend.Open(ctx, fmt.Sprintf("mem:%d", len(img)), backend.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	w.Leaf("leaf", mem, newEngine(tb, engine))
	t := &timed{n: int64(n)}
	if table == "" {
		t.dev = w.Handle("leaf")
	} else {
		t.dev = w.Map("fs", fmt.Sprintf(table, len(img)/512))
	}
	dmtest.Write(tb, t.dev, 0, img)
	v := mustOpen(tb, t.dev)
	c, err := fscrypt.Open(m, v.FileSystem(), fscrypt.Context{
		Policy: fscrypt.Policy{Version: 2, Contents: fscrypt.AES256XTS, Names: fscrypt.AES256CBCCTS, Key: m.Spec()}, Nonce: [16]byte{1},
	}, uint64(mustLookup(tb, v, "big").Inode))
	if err == nil {
		t.key, err = c.NewKey("the test's")
	}
	if err == nil {
		err = v.AddKey(m)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := t.dev.StartKey(t.key, "the test"); err != nil {
		tb.Fatal(err)
	}
	t.file = mustLookup(tb, v, "big")
	for p, err := range t.file.Pieces(0, t.n) {
		if err != nil {
			tb.Fatal(err)
		}
		for p.Len > 0 {
			part := p
			part.Len = min(p.Len, 1<<20)
			t.all = append(t.all, part)
			p = p.From(part.Len)
		}
	}
	return t
}

// straight reads all from the device by requests with the key, with as many in flight
// as the volume has.
func (t *timed) straight(tb testing.TB) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b := arena.Get(1 << 20)
			defer b.Put()
			buf := b.Bytes()
			for {
				k := int(next.Add(1)) - 1
				if k >= len(t.all) {
					return
				}
				p := &t.all[k]
				r := block.Request{
					Op: block.OpRead, Flags: block.SkipDefaultKey, Off: p.Dev, Len: p.Len, Data: block.Bytes(buf[:p.Len]),
					Crypt: blkcrypto.Context{Key: t.key, DUN: p.DUN},
				}
				if err := t.dev.Do(context.Background(), r); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func (t *timed) send(tb testing.TB) {
	if n, err := t.file.Send(context.Background(), io.Discard); err != nil || n != t.n {
		tb.Errorf("%d bytes, %v", n, err)
	}
}

// BenchmarkSend reads a large encrypted file, and the same bytes from the device by
// requests with the same key, in turn. "ratio" is the time of the first by that of the
// second: the median of the rounds; it is to be at most 1.15.
func BenchmarkSend(b *testing.B) {
	const n = 64 << 20
	for _, st := range timedStacks {
		b.Run(st.name, func(b *testing.B) {
			t := newTimed(b, st.engine, st.table, n)
			t.straight(b)
			t.send(b)
			b.SetBytes(n)
			b.ReportAllocs()
			var ratios []float64
			for b.Loop() {
				start := time.Now()
				t.send(b)
				sent := time.Since(start)
				b.StopTimer()
				start = time.Now()
				t.straight(b)
				ratios = append(ratios, float64(sent)/float64(time.Since(start)))
				b.StartTimer()
			}
			b.ReportMetric(measure.Median(slices.Clone(ratios)), "ratio")
		})
	}
}

// TestSendAllocatesNothingPerRequest: what a large file allocates more than a small one
// is what its map does, and the bytes are those that requests with the key read.
func TestSendAllocatesNothingPerRequest(t *testing.T) {
	const n = 24 << 20
	s := newTimed(t, "cpu", "", n)
	var got bytes.Buffer
	got.Grow(n)
	if _, err := s.file.Send(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, n)
	for _, p := range s.all {
		r := block.Request{Op: block.OpRead, Off: p.Dev, Len: p.Len, Data: block.Bytes(want[p.Off:][:p.Len]), Crypt: blkcrypto.Context{Key: s.key, DUN: p.DUN}}
		if err := s.dev.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), want) || bytes.Equal(want[:4096], fixtures.Pattern("mix", 1, 4096)) {
		t.Error("the file is not what the requests read")
	}
	if invariant.Enabled {
		return // pools drop at random under the race detector
	}
	// 24 requests, and as many chunks: less than one allocation for each, with all that
	// is made once.
	if a := testing.AllocsPerRun(20, func() { s.send(t) }); a > 60 {
		t.Errorf("%v allocations for %d requests", a, n>>20)
	} else {
		t.Logf("%v allocations for %d requests", a, n>>20)
	}
}
