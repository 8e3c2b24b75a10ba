package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/control"
	"keyway/dm"
	"keyway/internal/secret"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// stripedFiles is a daemon with a file system of the fixtures on "top", a stripe of two
// leafs with small engines.
func stripedFiles(t *testing.T) (*Daemon, *control.Client, *fsimages.FileSystem) {
	return stripedOver(t, "ufs?slots=3", "cpu?slots=2")
}

func stripedOver(t *testing.T, engines ...string) (*Daemon, *control.Client, *fsimages.FileSystem) {
	t.Helper()
	f := imageOf(t, "ext4-on-striped")
	d, c := start(t, nil)
	dir := t.TempDir()
	for i, engine := range engines {
		name := []string{"a", "b"}[i]
		file := filepath.Join(dir, name)
		must(t, os.WriteFile(file, f.Disk(t, name), 0o600))
		create(t, c, control.Create{Name: name, Backend: "file:" + file, Engine: engine})
	}
	table := strings.NewReplacer("{a}", "a", "{b}", "b").Replace(f.Tables[0].Table)
	create(t, c, control.Create{Name: "top", Table: table})
	return d, c, f
}

func imageOf(t *testing.T, name string) *fsimages.FileSystem {
	t.Helper()
	for _, f := range fsimages.All(t, "ext4") {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no image %s", name)
	return nil
}

// keysOf describes the keys of a file system, and opens what has their bytes.
func keysOf(t *testing.T, f *fsimages.FileSystem) (keys []control.FscryptKey, in *os.File) {
	t.Helper()
	var all []byte
	seen := map[string]bool{}
	for _, d := range f.Directories {
		if seen[d.MasterKey+d.Descriptor] {
			continue
		}
		seen[d.MasterKey+d.Descriptor] = true
		b := fixtures.Hex(d.MasterKey)
		k := control.FscryptKey{Source: "test", Size: len(b)}
		if d.PolicyVersion == 1 {
			k.Descriptor = d.Descriptor
		}
		keys, all = append(keys, k), append(all, b...)
	}
	return keys, fileOf(t, all)
}

func fileOf(t *testing.T, b []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(name, b, 0o600))
	in, err := os.Open(name)
	must(t, err)
	t.Cleanup(func() { in.Close() })
	return in
}

// again makes a file readable from its start.
func again(t *testing.T, in *os.File) *os.File {
	t.Helper()
	_, err := in.Seek(0, io.SeekStart)
	must(t, err)
	return in
}

// noTrace wants that no key is in an engine, and that nobody has a device open but the
// tables.
func noTrace(t *testing.T, c *control.Client) {
	t.Helper()
	x, err := c.Crypto(t.Context(), "top")
	must(t, err)
	for _, e := range x.Engines {
		for _, k := range e.Keys {
			if strings.Contains(k.Key, "fscrypt") {
				t.Errorf("%s has %q in keyslot %d", e.Engine, k.Key, k.Slot)
			}
		}
		if e.Quarantined > 0 {
			t.Errorf("%s: %d keyslots in quarantine", e.Engine, e.Quarantined)
		}
	}
	dev, err := c.Device(t.Context(), "top")
	must(t, err)
	if dev.Open != 0 {
		t.Errorf("top is open by %v", dev.Holders)
	}
}

// over waits until no call has a file system open, and wants that no master key is
// left: there is as much key memory as before.
func over(t *testing.T, d *Daemon, before secret.Usage) {
	t.Helper()
	n := 1
	for end := time.Now().Add(time.Minute); n > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		d.mu.Lock()
		n = d.calls.n
		d.mu.Unlock()
	}
	if n > 0 {
		t.Fatal("a call that has lost its client goes on")
	}
	if now := secret.Held(); now.Hidden+now.Locked+now.Ordinary > before.Hidden+before.Locked+before.Ordinary {
		t.Errorf("key memory: %+v, and before %+v", now, before)
	}
}

// Every file of the fixture over engines and software, twice at once, and nothing is
// left behind.
func TestFscryptCallsReadWhatLinuxWrote(t *testing.T) {
	_, c, f := stripedFiles(t)
	var wg sync.WaitGroup
	for range 2 {
		keys, in := keysOf(t, f)
		wg.Go(func() {
			r := control.Fscrypt{Keys: keys}
			var want []byte
			for _, file := range f.Files {
				if file.Size > 1<<20 {
					continue // sparse
				}
				b := make([]byte, file.Size)
				for _, p := range file.Pieces {
					copy(b[p.Offset:], p.Plain())
				}
				r.Paths, want = append(r.Paths, []byte("/"+file.Path)), append(want, b...)
			}
			var got bytes.Buffer
			total, err := c.FscryptCat(t.Context(), "top", r, in, control.FscryptSink{
				Data:    func(p []byte) error { got.Write(p); return nil },
				Problem: func(p control.FscryptProblem) error { return errors.New(p.Error) },
			})
			if err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%v, %d bytes, want %d", err, got.Len(), len(want))
			}
			if total != (control.FscryptTotals{Files: int64(len(r.Paths)), Bytes: int64(len(want))}) || len(r.Paths) < 20 {
				t.Errorf("totals %+v of %d files", total, len(r.Paths))
			}
		})
	}
	wg.Wait()
	noTrace(t, c)
	x, err := c.Crypto(t.Context(), "a")
	must(t, err)
	if e := x.Engines[0]; e.Programs == 0 || e.Evictions == 0 {
		t.Errorf("%s: %d programs and %d evictions: it was not used", e.Engine, e.Programs, e.Evictions)
	}
}

func TestFscryptStatusAndExplainTellWhoServes(t *testing.T) {
	t.Run("engines", func(t *testing.T) { tellsWhoServes(t, "engine", dm.ByEngine, "ufs?slots=3", "cpu?slots=2") })
	t.Run("one engine", func(t *testing.T) { tellsWhoServes(t, "software", dm.ByFallback, "ufs?slots=3", "none") })
}

func tellsWhoServes(t *testing.T, service string, by dm.By, engines ...string) {
	_, c, f := stripedOver(t, engines...)
	keys, in := keysOf(t, f)
	st, err := c.FscryptStatus(t.Context(), "top", control.Fscrypt{Keys: keys}, in)
	must(t, err)
	if len(st.Policies) != len(f.Directories) || st.FileSystem != "ext4" || len(st.Problems) > 0 {
		t.Errorf("%d policies, want %d: %+v", len(st.Policies), len(f.Directories), st)
	}
	for _, p := range st.Policies {
		if !p.Present || p.Config == nil || p.Config.Mode != "AES-256-XTS" || p.Service != service || p.Files < 10 {
			t.Errorf("policy: %+v", p)
		}
	}
	if len(st.Keys) != 1 || st.Keys[0].Policies != len(st.Policies) {
		t.Errorf("keys: %+v", st.Keys)
	}

	// Without the key nothing is known but where it lies.
	locked, err := c.FscryptStatus(t.Context(), "top", control.Fscrypt{}, nil)
	must(t, err)
	for _, p := range locked.Policies {
		if p.Present || p.Config != nil || p.Service != "" {
			t.Errorf("policy without its key: %+v", p)
		}
	}

	var big fsimages.File
	for _, file := range f.Files {
		if file.Path == "xts/p50000" {
			big = file
		}
	}
	for _, off := range []int64{0, 4096, 49999} {
		x, err := c.FscryptExplain(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte(big.Path)}, Keys: keys, Offset: off}, again(t, in))
		must(t, err)
		at := int64(-1)
		for _, e := range big.Extents {
			if off >= e.Logical && off < e.Logical+e.Length {
				at = e.Physical + off - e.Logical
			}
		}
		if x.DeviceOff != at || x.DUN != fmt.Sprint(off/4096) || x.Way == nil || len(x.Way.Ciphers) != 1 {
			t.Errorf("byte %d: %+v, want it at %d", off, x, at)
			continue
		}
		if got := x.Way.Ciphers[0].By; got != string(by) {
			t.Errorf("byte %d of the device: by %s, want %s", at, got, by)
		}
	}
	noTrace(t, c)
}

func TestFscryptExportIsAnArchiveOfAll(t *testing.T) {
	_, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	export := func(path string) (found map[string]*tar.Header, data map[string][]byte) {
		var b bytes.Buffer
		total, err := c.FscryptExport(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte(path)}, Keys: keys}, again(t, in), control.FscryptSink{
			Data:    func(p []byte) error { b.Write(p); return nil },
			Problem: func(p control.FscryptProblem) error { return errors.New(p.Error) },
		})
		must(t, err)
		found, data = map[string]*tar.Header{}, map[string][]byte{}
		for r := tar.NewReader(&b); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			found[h.Name] = h
			data[h.Name], err = io.ReadAll(r)
			must(t, err)
		}
		if total.Files != int64(len(found)) || total.Problems != 0 {
			t.Errorf("%s: %+v, and %d names", path, total, len(found))
		}
		return found, data
	}
	n := 0
	for _, file := range f.Files {
		if file.Size > 1<<20 || strings.Count(file.Path, "/") != 1 {
			continue // sparse
		}
		n++
		found, data := export(file.Path)
		want := make([]byte, file.Size)
		for _, p := range file.Pieces {
			copy(want[p.Offset:], p.Plain())
		}
		_, name, _ := strings.Cut(file.Path, "/")
		if h := found[name]; len(found) != 1 || h == nil || h.Typeflag != tar.TypeReg || !bytes.Equal(data[name], want) {
			t.Errorf("%s: %d names, %+v, %d bytes", file.Path, len(found), h, len(data[name]))
		}
	}
	for _, link := range f.Symlinks {
		_, name, _ := strings.Cut(link.Path, "/")
		if found, _ := export(link.Path); found[name] == nil || found[name].Typeflag != tar.TypeSymlink || found[name].Linkname != link.Target {
			t.Errorf("%s: %+v, want a link to %s", link.Path, found[name], link.Target)
		}
	}
	found, data := export("xts/sub")
	if d := found["deep/"]; len(found) != 2 || d == nil || d.Typeflag != tar.TypeDir || d.Mode != 0o755 || len(data["deep/inner"]) != 5000 {
		t.Errorf("xts/sub: %v", found)
	}
	if n < 20 {
		t.Errorf("only %d files", n)
	}
	noTrace(t, c)
}

// Without the key names are those of Linux, and contents are problems.
func TestFscryptCallsWithoutTheKey(t *testing.T) {
	_, c, f := stripedFiles(t)
	names := map[string]bool{}
	err := c.FscryptList(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte("xts")}}, nil, control.FscryptSink{Entry: func(e control.FscryptEntry) error {
		names[strings.TrimPrefix(e.Path, "xts/")] = e.Locked
		return nil
	}})
	must(t, err)
	for _, file := range f.Files {
		if strings.Count(file.Path, "/") == 1 && strings.HasPrefix(file.Path, "xts/") && !names[file.NoKeyName] {
			t.Errorf("%s is not listed as %s", file.Path, file.NoKeyName)
		}
	}
	_, err = c.FscryptExport(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte("xts")}}, nil, control.FscryptSink{})
	if e, ok := errors.AsType[*control.Error](err); !ok || !strings.Contains(e.Message, "encrypted under master key") || !strings.Contains(e.Hint, "--key") {
		t.Errorf("export of a locked directory: %v", err)
	}
	var problems []string
	total, err := c.FscryptExport(t.Context(), "top", control.Fscrypt{}, nil, control.FscryptSink{
		Data:    func([]byte) error { return nil },
		Problem: func(p control.FscryptProblem) error { problems = append(problems, p.Error); return nil },
	})
	if err != nil || len(problems) != len(f.Directories) || total.Problems != int64(len(problems)) {
		t.Errorf("export of the root: %v, %d problems, want one for each locked directory: %q", err, len(problems), problems)
	}
}

// A client that goes away in the middle leaves nothing behind.
func TestFscryptCallEndsWithItsClient(t *testing.T) {
	d, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	// So that engines have what memory they keep.
	_, err := c.FscryptCat(t.Context(), "top", control.Fscrypt{Paths: [][]byte{[]byte("xts/p50000")}, Keys: keys}, again(t, in), control.FscryptSink{
		Data: func([]byte) error { return nil },
	})
	must(t, err)
	over(t, d, secret.Usage{Locked: 1 << 40})
	before := secret.Held()
	gone := errors.New("gone")
	sink := control.FscryptSink{Data: func([]byte) error { return gone }, Problem: func(control.FscryptProblem) error { return nil }}
	r := control.Fscrypt{Paths: [][]byte{[]byte("xts/far")}, Keys: keys} // 5 GiB, most of it holes
	if _, err := c.FscryptCat(t.Context(), "top", r, again(t, in), sink); !errors.Is(err, gone) {
		t.Errorf("cat: %v, want %v", err, gone)
	}
	over(t, d, before)
	noTrace(t, c)
	r.Paths = nil
	if _, err := c.FscryptExport(t.Context(), "top", r, again(t, in), sink); !errors.Is(err, gone) {
		t.Errorf("export: %v, want %v", err, gone)
	}
	over(t, d, before)
	noTrace(t, c)

	// One that stops reading, and then ends.
	ctx, cancel := context.WithCancel(t.Context())
	sink.Data = func([]byte) error {
		dev, err := c.Device(t.Context(), "top")
		if err == nil && (dev.Open != 1 || dev.Holders[0] != "fscrypt cat") {
			err = fmt.Errorf("open by %v", dev.Holders)
		}
		cancel()
		return err
	}
	r.Paths = [][]byte{[]byte("xts/far")}
	if _, err := c.FscryptCat(ctx, "top", r, again(t, in), sink); !errors.Is(err, context.Canceled) {
		t.Errorf("cat: %v, want %v", err, context.Canceled)
	}
	over(t, d, before)
	noTrace(t, c)
}

// The end of the daemon ends the calls, which evict their keys first, also if their
// clients do not read.
func TestFscryptCallEndsWithTheDaemon(t *testing.T) {
	d, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	c.Timeout = 0
	begun, done := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		first := sync.OnceFunc(func() { close(begun); <-done })
		_, err := c.FscryptCat(context.Background(), "top", control.Fscrypt{Paths: [][]byte{[]byte("xts/far")}, Keys: keys}, in, control.FscryptSink{
			Data: func([]byte) error { first(); return nil }, Problem: func(control.FscryptProblem) error { return nil },
		})
		ended <- err
	}()
	<-begun
	stop(t, d) // fails if a device is open or a key cannot be evicted
	d.mu.Lock()
	if d.calls.n != 0 {
		t.Errorf("the daemon has ended, and %d calls go on", d.calls.n)
	}
	d.mu.Unlock()
	close(done)
	if err := <-ended; err == nil {
		t.Error("a call that was ended is a success")
	}
	if err := d.enterCall(); !errors.Is(err, errEnding) {
		t.Errorf("a call after the end: %v", err)
	}
}

func TestFscryptCallsRefuseWhatIsWrong(t *testing.T) {
	_, c, f := stripedFiles(t)
	keys, in := keysOf(t, f)
	key := keys[0]
	path := [][]byte{[]byte("xts")}
	for name, r := range map[string]struct {
		r    control.Fscrypt
		in   *os.File
		want string
	}{
		"no descriptor": {control.Fscrypt{Keys: keys}, nil, "no descriptor came"},
		"no key":        {control.Fscrypt{}, in, "no key is described"},
		"short":         {control.Fscrypt{Keys: []control.FscryptKey{{Size: key.Size - 1}}}, in, "keys, 63 bytes in all"},
		"long":          {control.Fscrypt{Keys: []control.FscryptKey{key, {Size: 16}}}, in, "64 bytes came"},
		"tiny":          {control.Fscrypt{Keys: []control.FscryptKey{{Size: 1}}}, fileOf(t, []byte{1}), "1 byte"},
		"huge":          {control.Fscrypt{Keys: []control.FscryptKey{{Size: 65}}}, in, "65 bytes, not 1 to 64"},
		"many":          {control.Fscrypt{Keys: make([]control.FscryptKey, control.MaxFscryptKeys+1)}, in, "65 keys, more than 64"},
		"descriptor":    {control.Fscrypt{Keys: []control.FscryptKey{{Size: 64, Descriptor: "12"}}}, in, "16 hex digits"},
		"wrapped v1":    {control.Fscrypt{Keys: []control.FscryptKey{{Size: 64, Descriptor: "0123456789abcdef", Wrapped: true}}}, in, ""},
		"two paths":     {control.Fscrypt{Paths: [][]byte{{'a'}, {'b'}}}, nil, "2 paths"},
		"absent":        {control.Fscrypt{Paths: [][]byte{[]byte("absent\n")}}, nil, `"absent\n" does not exist`},
	} {
		if r.in != nil {
			again(t, r.in)
		}
		err := c.FscryptList(t.Context(), "top", r.r, r.in, control.FscryptSink{Entry: func(control.FscryptEntry) error { return nil }})
		if e, ok := errors.AsType[*control.Error](err); !ok || !strings.Contains(e.Message, r.want) {
			t.Errorf("%s: %v, want %q", name, err, r.want)
		}
		noTrace(t, c)
	}
	if err := c.FscryptList(t.Context(), "a", control.Fscrypt{Paths: path}, nil, control.FscryptSink{}); err == nil {
		t.Error("half of a stripe is listed")
	}
	create(t, c, control.Create{Name: "blank", Backend: "mem:1M"})
	err := c.FscryptList(t.Context(), "blank", control.Fscrypt{}, nil, control.FscryptSink{})
	if e, ok := errors.AsType[*control.Error](err); !ok || !strings.Contains(e.Message, "no ext4 or f2fs file system") || e.Hint == "" {
		t.Errorf("a device without a file system: %v", err)
	}
	if err := c.FscryptList(t.Context(), "nothing", control.Fscrypt{}, nil, control.FscryptSink{}); err == nil {
		t.Error("a device that is not there is listed")
	}
}
