package volume_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"keyway/block"
	"keyway/dm"
	"keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/internal/invariant"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
	"keyway/test/volumetest"
)

// A layout is a file system on disks beneath tables.
type layout struct {
	name   string
	image  *fsimages.FileSystem
	disks  map[string][]byte
	tables []fixtures.LayoutTable // lowest first, of the disks or each other; none: disk a itself
	own    bool                   // the kernel wrote it so
}

// text is the table of the topmost device over the disks with this suffix, and those
// beneath it are made.
func (l *layout) text(w *dmtest.World, suffix string) string {
	names := map[string]string{}
	for d := range l.disks {
		names[d] = d + suffix
	}
	if len(l.tables) == 0 {
		return fmt.Sprintf("0 %d linear a%s 0", len(l.disks["a"])/512, suffix)
	}
	last := len(l.tables) - 1
	for _, tb := range l.tables[:last] {
		w.Map(tb.Device+suffix, tb.TableOn(names))
		names[tb.Device] = tb.Device + suffix
	}
	return l.tables[last].TableOn(names)
}

// engines are those that decrypt, with fewer slots than there are keys.
var engines = []string{"none", "cpu", "ufs?slots=2", "cqhci?slots=1", "fmp"}

func newEngine(t testing.TB, spec string) *keyslot.Manager {
	t.Helper()
	switch spec {
	case "none":
		return nil
	case "cpu":
		return keyslot.New(soft.New("cpu", 2))
	}
	s, err := emul.ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	return keyslot.New(emul.New(spec, s.Options))
}

// leaves makes a leaf of each disk with an engine of its own.
func (l *layout) leaves(t testing.TB, w *dmtest.World, suffix, spec string) (all []*keyslot.Manager) {
	t.Helper()
	for name, b := range l.disks {
		e := newEngine(t, spec)
		w.Leaf(name+suffix, &volumetest.Medium{Bytes: b}, e)
		if e != nil {
			all = append(all, e)
		}
	}
	return all
}

const metaKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

// layouts returns the image as the kernel made it; one on a disk alone, over linear and
// striped too; and each over default-key, where encrypted contents lie as the kernel
// wrote them and all the rest was written through the target.
func layouts(t testing.TB, f *fsimages.FileSystem) []*layout {
	t.Helper()
	own := &layout{name: "as it is", image: f, disks: map[string][]byte{}, tables: f.Tables, own: true}
	for name := range f.Disks {
		own.disks[name] = disk(t, f, name)
	}
	w := dmtest.New(t)
	own.leaves(t, w, "", "none")
	fs := w.Map("own", own.text(w, "")) // the bytes of the file system
	size := fs.Info().Size
	b := dmtest.Read(t, fs, 0, int(size))
	n := size / 512
	all := []*layout{own}
	if len(f.Tables) == 0 {
		all = append(all,
			through(t, f, "linear", size, fmt.Sprintf("0 %d linear {b} 8\n%d %d linear {a} 0", n/2, n/2, n/2), nil, b),
			through(t, f, "striped", size, fmt.Sprintf("0 %d striped 2 32 {a} 0 {b} 0", n), nil, b))
	}
	skip := map[int64]bool{} // blocks of 512 bytes with contents that fscrypt encrypted
	for _, file := range f.Files {
		for _, e := range file.Extents {
			for at := e.Physical; at < e.Physical+e.Length; at += 512 {
				skip[at] = true
			}
		}
	}
	return append(all, through(t, f, "default-key", size,
		fmt.Sprintf("0 %d default-key aes-xts-plain64 %s 0 {a} 0 1 sector_size:512", n, metaKey), skip, b))
}

// through writes a file system through a table over two empty disks; what is in skip
// is marked as encrypted above.
func through(t testing.TB, f *fsimages.FileSystem, name string, size int64, table string, skip map[int64]bool, b []byte) *layout {
	t.Helper()
	w := dmtest.New(t)
	l := &layout{name: name, image: f, disks: map[string][]byte{}, tables: []fixtures.LayoutTable{{Device: "top", Table: table}}}
	disks := map[string]*dmtest.RAM{"a": w.Disk("a", size+8*512, 0)}
	if strings.Contains(table, "{b}") {
		disks["b"] = w.Disk("b", size+8*512, 0)
	}
	top := w.Map("top", l.tables[0].TableOn(nil))
	for at, end := int64(0), int64(0); at < size; at = end {
		for end = at + 512; end < size && skip[end] == skip[at]; end += 512 {
		}
		r := block.Request{Op: block.OpWrite, Off: at, Len: end - at, Data: block.Bytes(b[at:end])}
		if skip[at] {
			r.Flags |= block.SkipDefaultKey
		}
		if err := top.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for name, d := range disks {
		l.disks[name] = d.Bytes()
	}
	return l
}

// checkCiphertext compares where the volume says that contents lie with the manifest,
// and the bytes there with what the kernel wrote.
func checkCiphertext(t testing.TB, l *layout, v *volume.Volume, dev block.Device) {
	t.Helper()
	for i := range l.image.Files {
		w := &l.image.Files[i]
		f := mustLookup(t, v, w.Path)
		h := sha256.New()
		var got []fsimages.Extent
		for p, err := range f.Pieces(0, w.Size) {
			if err != nil {
				t.Fatalf("%s: %v", w.Path, err)
			}
			if p.Kind != volume.Data {
				continue
			}
			if !p.Encrypted || !p.Keyed {
				t.Errorf("%s: %+v", w.Path, p)
			}
			if k := len(got) - 1; k >= 0 && got[k].Logical+got[k].Length == p.Off && got[k].Physical+got[k].Length == p.Dev {
				got[k].Length += p.Len // cut since numbers are not consecutive
			} else {
				got = append(got, fsimages.Extent{Logical: p.Off, Physical: p.Dev, Length: p.Len})
			}
			raw := make([]byte, p.Len)
			if l.own && l.image.Name == "ext4-on-crypt" {
				copy(raw, l.disks["a"][p.Dev:]) // the manifest tells of the disk under a target that moves nothing
			} else if err := dev.Do(t.Context(), block.Request{Op: block.OpRead, Flags: block.SkipDefaultKey, Off: p.Dev, Len: p.Len, Data: block.Bytes(raw)}); err != nil {
				t.Fatal(err)
			}
			h.Write(raw)
		}
		if fmt.Sprint(got) != fmt.Sprint(w.Extents) && len(got)+len(w.Extents) > 0 {
			t.Errorf("%s: pieces %v, want %v", w.Path, got, w.Extents)
		}
		// What is under crypt only was encrypted twice; elsewhere it lies as if once.
		if sum := hex.EncodeToString(h.Sum(nil)); sum != w.CipherSHA256 && (l.own || l.image.Name != "ext4-on-crypt") {
			t.Errorf("%s: ciphertext has sha256 %s, want %s", w.Path, sum, w.CipherSHA256)
		}
	}
}

// TestEverywhere reads every image on every layout with every engine: contents and
// names are what was written, whoever decrypts, and ciphertext what the kernel made of
// it (dm-fscrypt.md, invariant 70). With crypt beneath it is encrypted a second time
// and with default-key never (invariants 66 and 68). Nothing is in a keyslot when the
// last file is closed, and engines have not been idle.
func TestEverywhere(t *testing.T) {
	for _, f := range images(t) {
		t.Run(f.Name, func(t *testing.T) {
			all := layouts(t, f)
			if want := 4 - 2*min(1, len(f.Tables)); len(all) != want {
				t.Errorf("%d layouts, want %d", len(all), want)
			}
			some := engines
			if invariant.Enabled { // the race detector makes it ten times as long
				some = engines[:2]
			}
			for _, l := range all {
				for _, spec := range some {
					t.Run(l.name+"/"+spec, func(t *testing.T) { readEverywhere(t, l, spec) })
				}
				t.Run(l.name+"/reloaded", func(t *testing.T) { readReloaded(t, l) })
			}
		})
	}
}

func readEverywhere(t *testing.T, l *layout, spec string) {
	w := dmtest.New(t)
	all := l.leaves(t, w, "", spec)
	top := w.Map("fs", l.text(w, ""))
	v := mustOpen(t, top)
	addKeys(t, v, l.image)
	check(t, v, l.image)
	if spec == "none" {
		checkCiphertext(t, l, v, top)
	}
	programs := uint64(0)
	for _, e := range all {
		if kept := e.Residents(); len(kept) > keysOf(l) {
			t.Errorf("%d keys in keyslots of %s after the last file was closed", len(kept), spec)
		}
		programs += e.Stats().Programs
	}
	crypt := l.own && l.image.Name == "ext4-on-crypt" // takes no contexts from above
	if uses := spec == "cpu" || strings.HasPrefix(spec, "ufs"); uses && !crypt && programs == 0 {
		t.Errorf("%s was never programmed", spec)
	}
}

// keysOf is how many keys the tables of a layout have themselves.
func keysOf(l *layout) int {
	if l.name == "default-key" || l.own && l.image.Name == "ext4-on-crypt" {
		return 1
	}
	return 0
}

// readReloaded reads everything while the table moves among leaves over the same bytes
// with engines that serve more and less: no request fails or reads anything else.
func readReloaded(t *testing.T, l *layout) {
	w := dmtest.New(t)
	var texts []string
	for i, spec := range engines {
		suffix := fmt.Sprint("-", i)
		l.leaves(t, w, suffix, spec)
		texts = append(texts, l.text(w, suffix))
	}
	top := w.Map("fs", texts[0])
	v := mustOpen(t, top)
	addKeys(t, v, l.image)
	reload := func(text string) error {
		table, err := w.Parse(text)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return w.Device("fs").Reload(ctx, table, dm.SuspendOptions{})
	}
	cycle, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			err := reload(texts[n%len(texts)])
			if err != nil {
				t.Errorf("reload %d: %v", n, err)
			}
			if n == 2*len(texts) || err != nil && n < 2*len(texts) {
				close(cycle)
			}
			select {
			case <-stop:
				return
			default:
			}
			if err != nil {
				return
			}
		}
	})
	for more := true; more; {
		check(t, v, l.image)
		select {
		case <-cycle:
			more = false
		default:
		}
	}
	close(stop)
	wg.Wait()
	closeVolume(t, v)
	for i := range engines {
		for d := range l.disks {
			if e := w.Device(fmt.Sprint(d, "-", i)).Engine(); e != nil && len(e.Residents()) > keysOf(l) {
				t.Errorf("keys left in %s: %+v", e.Name(), e.Residents())
			}
		}
	}
}

// TestDefaultKeyEncryptsTheRest: on default-key everything but the contents of
// encrypted files was encrypted by the target, once, and those not (dm-fscrypt.md,
// invariant 68); a reader with other rules finds no file system.
func TestDefaultKeyEncryptsTheRest(t *testing.T) {
	f := image(t, "ext4-1k")
	all := layouts(t, f)
	plain, l := all[0].disks["a"], all[len(all)-1]
	skipped := map[int64]bool{}
	for _, file := range f.Files {
		for _, e := range file.Extents {
			for at := e.Physical; at < e.Physical+e.Length; at += 512 {
				skipped[at] = true
			}
		}
	}
	same := 0
	for at := int64(0); at < int64(len(plain)); at += 512 {
		if bytes.Equal(plain[at:at+512], l.disks["a"][at:at+512]) != skipped[at] {
			t.Fatalf("block at %d: in clear or encrypted twice", at)
		}
		if skipped[at] {
			same++
		}
	}
	if same < 1000 {
		t.Errorf("%d blocks that the target left alone", same)
	}
	w := dmtest.New(t)
	w.Leaf("a", &volumetest.Medium{Bytes: l.disks["a"]}, nil)
	if _, err := volume.Open(t.Context(), w.Handle("a"), volume.Options{}); err == nil {
		t.Error("a file system without the table's key")
	}
}
