package trace_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/secret"
	"keyway/internal/trace"
	"keyway/keyslot"
)

// sink is a file in memory.
type sink struct {
	mu  sync.Mutex
	b   bytes.Buffer
	err error // of the next writes
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.b.Write(p)
}

func (s *sink) Close() error { return nil }

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const keyBytes = "these are the bytes of the key which no trace has, sixty-four..."

func newKey(tb testing.TB, name string) *blkcrypto.Key {
	tb.Helper()
	raw := make([]byte, 64)
	copy(raw, keyBytes)
	b, err := secret.Copy(raw)
	if err != nil {
		tb.Fatal(err)
	}
	k, err := blkcrypto.NewKey(name, blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 16}, b)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = k.Evict(context.Background()) })
	return k
}

// all reads a trace that must be good.
func all(tb testing.TB, text string) (*trace.Info, []trace.Event) {
	tb.Helper()
	var events []trace.Event
	info, err := trace.Read(strings.NewReader(text), func(e *trace.Event) error {
		events = append(events, *e)
		return nil
	})
	if err != nil {
		tb.Fatalf("%v\n%s", err, text)
	}
	return info, events
}

// TestWhatIsWrittenIsRead: events of all shapes, numbers up to the widest, of many
// engines at once.
func TestWhatIsWrittenIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 4))
	s := &sink{}
	w := trace.NewWriter(s, "the test", nil)
	names := []string{"engine cpu of device \"disk0\"", "línea\nnueva", strings.Repeat("x", 500)}
	var engines []keyslot.Tracer
	for i, n := range names {
		engines = append(engines, w.Engine(n, 16*i))
	}
	keys := []*blkcrypto.Key{newKey(t, "a"), newKey(t, "inode 12, \"etc\""), newKey(t, "")}
	var want []trace.Event
	for range 5000 {
		e := trace.Event{Engine: rng.IntN(3), Key: rng.IntN(3), Start: rng.Int64() >> rng.IntN(63)}
		e.End = min(e.Start+rng.Int64()>>rng.IntN(63), 1<<63-1)
		if e.End < e.Start {
			e.End = e.Start
		}
		k := keys[e.Key]
		if rng.IntN(50) == 0 {
			e.Evict = true
			engines[e.Engine].Evicted(k, e.Start, e.End)
		} else {
			e.Op = block.Op(rng.IntN(2))
			e.Failed = rng.IntN(9) == 0
			for i := range rng.IntN(5) {
				e.DUN[i] = rng.Uint64() >> rng.IntN(64)
			}
			e.Off, e.Len = rng.Int64N(1<<62), rng.Int64N(1<<20)
			engines[e.Engine].Request(keyslot.Traced{
				Op: e.Op, Failed: e.Failed, Crypt: blkcrypto.Context{Key: k, DUN: e.DUN},
				Off: e.Off, Len: e.Len, Start: e.Start, End: e.End,
			})
		}
		want = append(want, e)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{keyBytes[:8], keyBytes[32:40]} {
		for _, form := range []string{part, hex.EncodeToString([]byte(part)), base64.StdEncoding.EncodeToString([]byte(part))[:8]} {
			if strings.Contains(s.String(), form) {
				t.Errorf("the trace has %q of the key", form)
			}
		}
	}
	info, got := all(t, s.String())
	order := map[int64]int{} // keys are numbered as they come
	for i, k := range info.Keys {
		order[k.Number] = i
	}
	for i := range want {
		want[i].Key = order[int64(keys[want[i].Key].ID())]
		if got[i] != want[i] {
			t.Fatalf("event %d: got\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
	if info.Truncated || info.Events != len(want) || len(got) != len(want) || info.Began.IsZero() {
		t.Errorf("info %+v", info)
	}
	for i, e := range info.Engines {
		if want := names[i][:min(len(names[i]), trace.MaxName)]; e.Name != want || e.Slots != 16*i {
			t.Errorf("engine %+v, want %q with %d slots", e, want, 16*i)
		}
	}
	if k := info.Keys[order[int64(keys[1].ID())]]; k.Name != "inode 12, \"etc\"" || k.Mode != "AES-256-XTS" || k.UnitSize != 4096 {
		t.Errorf("key %+v", k)
	}
}

// TestWriterFlushes: what was traced is in the file a second later, however little it
// is, and is readable although the end is missing: the process may be killed.
func TestWriterFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		w := trace.NewWriter(s, "the test", nil)
		e := w.Engine("e", 1)
		k := newKey(t, "a")
		start := e.Now()
		time.Sleep(5 * time.Microsecond)
		e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k}, Len: 4096, Start: start, End: e.Now()})
		time.Sleep(time.Second)
		synctest.Wait()
		info, events := all(t, s.String())
		if !info.Truncated || len(events) != 1 || events[0].End-events[0].Start != 5000 {
			t.Errorf("%+v, %+v, want one event of 5000 ns, and no end", info, events)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k}}) // too late, and no harm
		if info, _ := all(t, s.String()); info.Truncated || info.Events != 1 {
			t.Errorf("after the end: %+v", info)
		}
	})
}

// TestLossesAreCounted: after an error of the file nothing waits for it and nothing is
// written, the first error is told once, and the end tells how much is lost.
func TestLossesAreCounted(t *testing.T) {
	s := &sink{}
	var told []error
	w := trace.NewWriter(s, "the trace", func(err error) { told = append(told, err) })
	e := w.Engine("e", 1)
	k := newKey(t, "a")
	full := errors.New("no space left")
	s.mu.Lock()
	s.err = full
	s.mu.Unlock()
	const n = 100000 // more than the pieces hold
	for range n {
		e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k}, Len: 4096})
	}
	err := w.Close()
	if want := fmt.Sprintf("trace the trace: %d events lost: no space left", n); err == nil || err.Error() != want {
		t.Errorf("close: %v, want %s", err, want)
	}
	if len(told) != 1 || !errors.Is(told[0], full) {
		t.Errorf("told %v, want %v once", told, full)
	}
}

// TestWriterIsLossless: many tell it more than it has room for, and a file that is
// slower keeps them waiting.
func TestWriterIsLossless(t *testing.T) {
	pr, pw := io.Pipe()
	w := trace.NewWriter(pw, "the test", nil)
	e := w.Engine("e", 1)
	const workers, each = 4, 20000
	var wg sync.WaitGroup
	for i := range workers {
		k := newKey(t, fmt.Sprint(i))
		wg.Go(func() {
			for j := range int64(each) {
				e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(uint64(j))}, Off: j, Start: j, End: j})
			}
		})
	}
	closed := make(chan error, 1)
	go func() { wg.Wait(); closed <- w.Close() }()
	next := map[int]int64{}
	info, err := trace.Read(pr, func(e *trace.Event) error {
		if e.Off != next[e.Key] || e.DUN[0] != uint64(e.Off) {
			return fmt.Errorf("key %d: offset %d, want %d", e.Key, e.Off, next[e.Key])
		}
		next[e.Key]++
		return nil
	})
	if err != nil || info.Events != workers*each || info.Truncated || len(info.Keys) != workers {
		t.Errorf("%+v, %v", info, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestCreateSparesWhatIsThere and makes files for the owner only.
func TestCreateSparesWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.trace")
	w, err := trace.Create(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(path); err != nil || i.Mode() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", i.Mode(), err)
	}
	before, _ := os.ReadFile(path)
	if _, err := trace.Create(path, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a trace: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Errorf("the trace has changed")
	}
	if _, err := trace.Create(filepath.Dir(path), nil); err == nil {
		t.Errorf("over a directory: no error")
	}
	path += ".discarded"
	if w, err = trace.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	w.Discard()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a discarded trace: %v", err)
	}
}

// TestEnginesOfOneNameAreOne: a device that is made again has the same one.
func TestEnginesOfOneNameAreOne(t *testing.T) {
	s := &sink{}
	w := trace.NewWriter(s, "the test", nil)
	k := newKey(t, "a")
	for _, e := range []trace.Engine{{Name: "a", Slots: 1}, {Name: "b", Slots: 1}, {Name: "a", Slots: 1}, {Name: "a", Slots: 2}} {
		w.Engine(e.Name, e.Slots).Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k}})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	info, events := all(t, s.String())
	var got []int
	for _, e := range events {
		got = append(got, e.Engine)
	}
	if want := []int{0, 1, 0, 2}; !reflect.DeepEqual(got, want) || len(info.Engines) != 3 {
		t.Errorf("engines %v of %+v, want %v", got, info.Engines, want)
	}
}

// TestKeysAreForgottenWhenTheyGo, so that a writer does not grow with every key there
// ever was; one that is used after its eviction from one engine is introduced again.
func TestKeysAreForgottenWhenTheyGo(t *testing.T) {
	s := &sink{}
	w := trace.NewWriter(s, "the test", nil)
	e := w.Engine("e", 1)
	k := newKey(t, "a")
	for range 2 {
		for range 3 {
			e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k}})
		}
		e.Evicted(k, 0, 0)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(s.String(), "\nkey "); n != 2 {
		t.Errorf("the key is introduced %d times, want 2\n%s", n, s)
	}
	if info, _ := all(t, s.String()); len(info.Keys) != 1 || info.Events != 8 {
		t.Errorf("%+v, want one key and 8 events", info)
	}
}

// TestTracingDoesNotAllocate once a key is known, with wide numbers too.
func TestTracingDoesNotAllocate(t *testing.T) {
	w := trace.NewWriter(&discard{}, "the test", nil)
	defer w.Close()
	e := w.Engine("e", 1)
	k := newKey(t, "a")
	r := keyslot.Traced{Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN{1, 2, 3, 4}}, Off: 1 << 40, Len: 4096}
	if n := testing.AllocsPerRun(1000, func() { r.Start = e.Now(); r.End = e.Now(); e.Request(r) }); n != 0 {
		t.Errorf("%v allocations a request, want 0", n)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func BenchmarkTrace(b *testing.B) {
	w := trace.NewWriter(&discard{}, "the test", nil)
	defer w.Close()
	e := w.Engine("e", 1)
	k := newKey(b, "a")
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		start := e.Now()
		e.Request(keyslot.Traced{Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(uint64(i))}, Off: i << 12, Len: 4096, Start: start, End: e.Now()})
	}
}
