package foreign

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"keyway/dm"
	_ "keyway/dm/target"
	"keyway/fscrypt"
	fsvolume "keyway/fscrypt/volume"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
	"keyway/keyslot/soft"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
	"keyway/test/oracle"
)

// A rewritten is an image in which files were written in place.
type rewritten struct {
	t     *testing.T
	image *fsimages.FileSystem
	disks map[string]*dmtest.RAM
	top   *dm.Handle
	want  []reading // what the kernel shall read
}

// A reading is a range of a file and its new contents.
type reading struct {
	oracle.Range
	plain []byte
}

// kernelHas reports whether the stock kernel has a policy: it lacks HCTR2 and SM4, and
// does not know data units smaller than a block.
func kernelHas(d *fsimages.Directory) bool {
	switch fscrypt.Mode(d.NamesMode) {
	case fscrypt.AES256HCTR2, fscrypt.SM4CBCCTS:
		return false
	}
	return d.Log2DataUnitSize == 0
}

func newEngine(t *testing.T, spec string) *keyslot.Manager {
	t.Helper()
	switch spec {
	case "none":
		return nil
	case "cpu":
		return keyslot.New(soft.New("cpu", 4))
	}
	s, err := emul.ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	return keyslot.New(emul.New(spec, s.Options))
}

// rewrite writes to every file whose policy the kernel has, through the tables of the
// image and with an engine in front of each disk.
func rewrite(t *testing.T, f *fsimages.FileSystem, engine string, seed uint64) *rewritten {
	t.Helper()
	x := &rewritten{t: t, image: f, disks: map[string]*dmtest.RAM{}}
	w := dmtest.New(t)
	for name := range f.Disks {
		disk := f.Disk(t, name)
		x.disks[name] = dmtest.NewRAM(int64(len(disk)))
		x.disks[name].Set(disk)
		w.Leaf(name, x.disks[name], newEngine(t, engine))
	}
	if len(f.Tables) == 0 {
		x.top = w.Handle("a")
	}
	for _, tb := range f.Tables {
		x.top = w.Map(tb.Device, tb.TableOn(nil))
	}
	v, err := fsvolume.Open(t.Context(), x.top, fsvolume.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := v.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for _, k := range x.keys() {
		m, err := fscrypt.NewMasterKey(k.Raw)
		if k.Descriptor != nil {
			m, err = fscrypt.NewMasterKeyAs(k.Raw, [8]byte(k.Descriptor))
		}
		if err == nil {
			err = v.AddKey(m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	rnd := rand.New(rand.NewPCG(seed, 2))
	before := dmtest.Read(t, x.top, 0, int(x.top.Info().Size))
	touched := make([]bool, len(before)/512)
	for i := range f.Files {
		file := &f.Files[i]
		if !x.readable(file) {
			continue
		}
		x.file(v, file, rnd, func(from, to int64) {
			for s := from / 512; s < to/512; s++ {
				touched[s] = true
			}
		})
	}
	after := dmtest.Read(t, x.top, 0, len(before))
	for s, ours := range touched {
		if !ours && !bytes.Equal(after[512*s:512*s+512], before[512*s:512*s+512]) {
			t.Fatalf("byte %d of the file system changed, where nothing was written", 512*s)
		}
	}
	return x
}

// readable reports whether the kernel has the policy of a file.
func (x *rewritten) readable(f *fsimages.File) bool {
	for i := range x.image.Directories {
		d := &x.image.Directories[i]
		if len(f.Path) > len(d.Path) && f.Path[:len(d.Path)+1] == d.Path+"/" {
			return kernelHas(d)
		}
	}
	x.t.Fatalf("%s is in no directory", f.Path)
	return false
}

// file writes ranges of a file, or sometimes all of it, and notes what is in it then.
func (x *rewritten) file(v *fsvolume.Volume, f *fsimages.File, rnd *rand.Rand, touch func(from, to int64)) {
	t := x.t
	file, err := v.Lookup(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	todo := f.Ranges(rnd)
	if whole, ok := f.Whole(); ok && rnd.IntN(3) == 0 {
		todo = []fsimages.Range{whole}
	}
	from := len(x.want)
	for _, e := range f.Extents { // all that has blocks
		if n := min(e.Length, f.Size-e.Logical); n > 0 {
			x.want = append(x.want, reading{oracle.Range{Path: f.Path, Off: e.Logical, Len: n}, f.Plain(e.Logical, n)})
		}
	}
	for _, r := range todo {
		p := fixtures.Pattern("mix", rnd.Uint64(), int(r.To-r.From))
		if _, err := file.WriteAt(t.Context(), p, r.From); err != nil {
			t.Fatal(err)
		}
		f.Where(r, v.Info().BlockSize, touch)
		for _, w := range x.want[from:] {
			if lo, hi := max(w.Off, r.From), min(w.Off+w.Len, r.To); lo < hi {
				copy(w.plain[lo-w.Off:hi-w.Off], p[lo-r.From:hi-r.From])
			}
		}
	}
	if err := file.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func (x *rewritten) keys() (all []oracle.Key) {
	seen := map[string]bool{}
	for _, d := range x.image.Directories {
		if seen[d.MasterKey+d.Descriptor] {
			continue
		}
		seen[d.MasterKey+d.Descriptor] = true
		k := oracle.Key{Raw: fixtures.Hex(d.MasterKey)}
		if d.PolicyVersion == 1 {
			k.Descriptor = fixtures.Hex(d.Descriptor)
		}
		all = append(all, k)
	}
	return all
}

// mount puts the disks into files for the guest.
func (x *rewritten) mount(dir string) oracle.Mount {
	m := oracle.Mount{Kind: x.image.Filesystem, Keys: x.keys()}
	for _, name := range []string{"a", "b"} {
		disk, ok := x.disks[name]
		if !ok {
			continue
		}
		path := filepath.Join(dir, x.image.Name+"."+name)
		if err := os.WriteFile(path, disk.Bytes(), 0o600); err != nil {
			x.t.Fatal(err)
		}
		m.Disks = append(m.Disks, path)
	}
	if len(x.image.Tables) > 0 {
		m.Table = x.image.Tables[0].Table
	}
	for i := range x.image.Directories {
		if d := &x.image.Directories[i]; kernelHas(d) {
			m.List = append(m.List, d.Path)
		}
	}
	for _, w := range x.want {
		m.Ranges = append(m.Ranges, w.Range)
	}
	return m
}

// Files that were written in place, through the stack and its engines, are read by the
// kernel with the master keys, byte for byte; their names and sizes are what they were.
func TestKernelReadsWhatIsWrittenInPlace(t *testing.T) {
	needKernel(t)
	engines := map[string]string{
		"ext4-4k": "cpu", "ext4-1k": "ufs?slots=3", "ext4-on-linear": "ufs?slots=1", "ext4-on-striped": "cpu", "ext4-on-crypt": "none", "f2fs": "fmp",
	}
	var all []*rewritten
	var mounts []oracle.Mount
	dir := t.TempDir()
	for i, f := range append(fsimages.All(t, "ext4"), fsimages.All(t, "f2fs")...) {
		x := rewrite(t, f, engines[f.Name], uint64(i))
		all, mounts = append(all, x), append(mounts, x.mount(dir))
	}
	ranges, policies := 0, map[string]bool{}
	for i, seen := range oracle.Read(t, mounts) {
		x := all[i]
		for k, got := range seen.Data {
			w := x.want[k]
			if n := firstDifference(got, w.plain); n >= 0 {
				t.Errorf("%s: %s: the kernel reads %02x at byte %d, want %02x", x.image.Name, w.Path, got[n], w.Off+int64(n), w.plain[n])
			}
			ranges++
		}
		names := map[string]oracle.Name{}
		for _, n := range seen.Names {
			names[n.Path] = n
		}
		for _, f := range x.image.Files {
			if !x.readable(&f) {
				continue
			}
			if n := names[f.Path]; n.Size != f.Size || n.Inode != uint64(f.Inode) {
				t.Errorf("%s: %s: the kernel sees %+v, want inode %d of %d bytes", x.image.Name, f.Path, n, f.Inode, f.Size)
			}
		}
		for _, d := range x.image.Directories {
			if kernelHas(&d) {
				policies[fmt.Sprint(d.PolicyVersion, d.ContentsMode, d.Flags&^3)] = true
			}
		}
	}
	t.Logf("%d ranges of %d kinds of policies", ranges, len(policies))
	if ranges < 300 || len(policies) < 8 {
		t.Errorf("%d ranges, %d kinds of policies", ranges, len(policies))
	}
}
