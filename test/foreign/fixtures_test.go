package foreign

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

// exportAll serves devices on one socket.
func exportAll(d *harness.Daemon, devices ...string) (sock string) {
	sock = filepath.Join(d.Dir, "all.sock")
	for _, x := range devices {
		d.OK("export", "add", x, "--nbd", "unix:"+sock, "--name", x)
	}
	return sock
}

// leaf makes a leaf device on a file with the given content; nil: size zeros.
func leaf(t testing.TB, d *harness.Daemon, name string, content []byte, size int64) (file string) {
	t.Helper()
	file = filepath.Join(d.Dir, name+".img")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	d.OK("create", name, "--backend", "file:"+file)
	return file
}

// Every disk that the kernel's dm-crypt wrote reads back through the daemon, and a
// disk that the daemon wrote with the same table is the same, byte for byte.
func TestKernelDMCryptDisksThroughTheDaemon(t *testing.T) {
	d := harness.Start(t)
	var names []string
	blank := map[string]string{}
	disks := fixtures.DMCrypt(t)
	for i, f := range disks {
		img := f.Image.Bytes(t)
		for kind, content := range map[string][]byte{"read": img, "write": nil} {
			dev := fmt.Sprintf("%s%d", kind, i)
			file := leaf(t, d, dev+"-disk", content, int64(len(img)))
			create(d, dev, f.TableOn(dev+"-disk"))
			names = append(names, dev)
			if content == nil {
				blank[f.Name] = file
			}
		}
	}
	sock := exportAll(d, names...)
	for i, f := range disks {
		t.Run(f.Name, func(t *testing.T) {
			r := dial(t, sock, fmt.Sprint("read", i))
			w := dial(t, sock, fmt.Sprint("write", i))
			if r.Size != f.Sectors*512 {
				t.Errorf("size %d, want %d", r.Size, f.Sectors*512)
			}
			for _, x := range f.Regions {
				want := x.Plain()
				if k := firstDifference(read(t, r, x.Offset, x.Length), want); k >= 0 {
					t.Errorf("region at %d differs at byte %d", x.Offset, k)
				}
				write(t, w, x.Offset, want)
			}
			flush(t, w)
			got, err := os.ReadFile(blank[f.Name])
			if err != nil {
				t.Fatal(err)
			}
			if k := firstDifference(got, f.Image.Bytes(t)); k >= 0 {
				t.Errorf("the disk written anew differs from the kernel's at byte %d", k)
			}
		})
	}
}

// The same for stacks of tables over several disks.
func TestKernelLayoutsThroughTheDaemon(t *testing.T) {
	for _, l := range fixtures.Layouts(t) {
		t.Run(l.Name, func(t *testing.T) {
			d := harness.Start(t)
			blank := map[string]string{}
			for _, kind := range []string{"r", "w"} {
				names := map[string]string{}
				for x, img := range l.Disks {
					names[x] = kind + "-" + x
					content := img.Bytes(t)
					if kind == "w" {
						content = nil
					}
					blank[x] = leaf(t, d, names[x], content, img.Size) // the last kind stays
				}
				for _, m := range l.Tables {
					create(d, kind+"-"+m.Device, m.TableOn(names))
					names[m.Device] = kind + "-" + m.Device
				}
			}
			sock := exportAll(d, "r-"+l.Top, "w-"+l.Top)
			r, w := dial(t, sock, "r-"+l.Top), dial(t, sock, "w-"+l.Top)
			if r.Size != l.Sectors*512 {
				t.Errorf("size %d, want %d", r.Size, l.Sectors*512)
			}
			for _, x := range l.Regions {
				want := x.Plain()
				if k := firstDifference(read(t, r, x.Offset, x.Length), want); k >= 0 && !l.ReadsElsewhere() {
					t.Errorf("region at %d differs at byte %d", x.Offset, k)
				}
				write(t, w, x.Offset, want)
			}
			flush(t, w)
			for x, img := range l.Disks {
				got, err := os.ReadFile(blank[x])
				if err != nil {
					t.Fatal(err)
				}
				if k := firstDifference(got, img.Bytes(t)); k >= 0 {
					t.Errorf("disk %s written anew differs from the kernel's at byte %d", x, k)
				}
			}
		})
	}
}

// Keys given in hex or by file appear nowhere: not in output, log or state, in
// neither form.
func TestKeyBytesAppearNowhere(t *testing.T) {
	d := harness.Start(t)
	f := fixtures.DMCrypt(t)[0]
	leaf(t, d, "disk", f.Image.Bytes(t), f.Image.Size)
	create(d, "hex", f.TableOn("disk"))
	key := testKey(61)
	addKey(t, d, "named", 4096, key)
	d.OK("create", "mem", "--backend", "mem:1M", "--engine", "cpu")
	create(d, "ref", "0 2048 default-key aes-xts-plain64 :64:logon:named 0 mem 0 2 sector_size:4096 iv_large_sectors")
	sock := exportAll(d, "hex", "ref")
	c := dial(t, sock, "ref")
	write(t, c, 0, make([]byte, 8192)) // programs the key
	flush(t, c)

	var seen bytes.Buffer
	for _, args := range [][]string{
		{"table"}, {"status"}, {"info"}, {"ls", "--tree"}, {"deps"}, {"key", "list"}, {"export", "list"}, {"crypto", "ref"},
		{"table", "--json"}, {"status", "--json"}, {"info", "--json"}, {"key", "list", "--json"}, {"ls", "--json"},
	} {
		r := d.Run(args...)
		seen.WriteString(r.Stdout + r.Stderr)
	}
	d.OK("key", "evict", "named", "--force")
	d.Term(drainLimit)
	seen.WriteString(d.Log())
	err := filepath.Walk(d.State, func(path string, i os.FileInfo, err error) error {
		if err != nil || !i.Mode().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		seen.WriteString(path)
		seen.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string][]byte{"hex": f.Key(), "named": key} {
		for _, part := range [][]byte{k, fmt.Appendf(nil, "%x", k), fmt.Appendf(nil, "%X", k), k[:16], fmt.Appendf(nil, "%x", k[:16]), k[len(k)-16:]} {
			if i := bytes.Index(seen.Bytes(), part); i >= 0 {
				t.Errorf("bytes of key %q appear: ...%q", name, seen.Bytes()[max(0, i-200):i])
				break
			}
		}
	}
}
