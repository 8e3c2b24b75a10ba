package target_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyway/internal/dmtest"
	"keyway/test/fixtures"
)

var targets = []string{"linear", "striped", "zero", "error", "crypt", "flakey", "delay", "dust", "unstriped", "switch", "log-writes", "mirror",
	"snapshot", "snapshot-origin"}

// supported are the targets of this release.
func supported(table string) bool {
	for line := range strings.Lines(table) {
		w := strings.Fields(line)
		if len(w) < 3 {
			continue
		}
		if !slices.Contains(targets, w[2]) {
			return false
		}
	}
	return true
}

func hash(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// stacks are the ways in which a disk can serve the same table.
var stacks = []struct {
	name  string
	slots int
}{{"software", 0}, {"engine", 4}}

// TestDMCryptDisks opens every disk that the kernel's dm-crypt wrote, and
// writes it anew (dm-fscrypt.md, invariant 66).
func TestDMCryptDisks(t *testing.T) {
	n := 0
	for _, disk := range fixtures.DMCrypt(t) {
		if !supported(disk.Table) {
			continue
		}
		n++
		for _, st := range stacks {
			t.Run(disk.Name+"/"+st.name, func(t *testing.T) {
				image := disk.Image.Bytes(t)
				w := dmtest.New(t)
				old := w.Disk("old", int64(len(image)), st.slots)
				old.Set(image)
				anew := w.Disk("new", int64(len(image)), st.slots)
				from, to := w.Map("from", disk.TableOn("old")), w.Map("to", disk.TableOn("new"))
				for _, r := range disk.Regions {
					if got := dmtest.Read(t, from, r.Offset, r.Length); hash(got) != r.PlainSHA256 {
						t.Errorf("region at %d reads as sha256 %s, want %s", r.Offset, hash(got), r.PlainSHA256)
					}
					dmtest.Write(t, to, r.Offset, r.Plain())
				}
				if got := anew.Bytes(); hash(got) != disk.Image.SHA256 {
					t.Errorf("written anew: sha256 %s, want %s; first difference at %d", hash(got), disk.Image.SHA256, firstDiff(got, image))
				}
			})
		}
	}
	if n < 40 {
		t.Errorf("%d disks, want at least 36", n)
	}
}

// TestLayouts builds every stack of tables that the kernel built, reads its
// regions, and writes them anew through the top.
func TestLayouts(t *testing.T) {
	n := 0
	for _, l := range fixtures.Layouts(t) {
		all := true
		for _, tab := range l.Tables {
			all = all && supported(tab.Table)
		}
		if !all {
			continue
		}
		n++
		for _, st := range stacks {
			t.Run(l.Name+"/"+st.name, func(t *testing.T) {
				w := dmtest.New(t)
				names, again := map[string]string{}, map[string]string{}
				fresh := map[string]*dmtest.RAM{}
				for x, img := range l.Disks {
					b := img.Bytes(t)
					names[x], again[x] = "old-"+x, "new-"+x
					w.Disk(names[x], int64(len(b)), st.slots).Set(b)
					fresh[x] = w.Disk(again[x], int64(len(b)), st.slots)
				}
				for _, tab := range l.Tables {
					w.Map("old:"+tab.Device, tab.TableOn(names))
					names[tab.Device] = "old:" + tab.Device
					w.Map("new:"+tab.Device, tab.TableOn(again))
					again[tab.Device] = "new:" + tab.Device
				}
				from, to := w.Handle("old:"+l.Top), w.Handle("new:"+l.Top)
				if got, want := from.Info().Size, l.Sectors*512; got != want {
					t.Errorf("size %d, want %d", got, want)
				}
				for _, r := range l.Regions {
					if got := dmtest.Read(t, from, r.Offset, r.Length); hash(got) != r.PlainSHA256 && !l.ReadsElsewhere() {
						t.Errorf("region at %d reads as sha256 %s, want %s", r.Offset, hash(got), r.PlainSHA256)
					}
					dmtest.Write(t, to, r.Offset, r.Plain())
				}
				for x, img := range l.Disks {
					if got := fresh[x].Bytes(); hash(got) != img.SHA256 {
						t.Errorf("disk %s written anew: first difference at %d", x, firstDiff(got, img.Bytes(t)))
					}
				}
			})
		}
	}
	if n < 9 {
		t.Errorf("%d layouts, want at least 9", n)
	}
}

func firstDiff(a, b []byte) int {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestKernelTables meets the kernel's verdict on every table of our targets,
// and prints and measures it as the kernel does.
func TestKernelTables(t *testing.T) {
	n := 0
	for i, c := range fixtures.Tables(t) {
		if !supported(c.Table) {
			continue
		}
		n++
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := dmtest.New(t)
			w.Disk("@", 2048*512, 0)
			w.AddKey("kwtest", bytes.Repeat([]byte{3}, 32))
			tab, err := w.Parse(c.Table)
			if (err == nil) != c.Accepted {
				t.Fatalf("%q: %v; the kernel: accepted %v %s", brief(c.Table), err, c.Accepted, c.Error)
			}
			if err != nil {
				return
			}
			defer tab.Close(t.Context())
			// What a mirror copies first it does once it is live: TestKernelMirrors.
			if got, want := tab.Text(0), strings.Join(c.Status, "\n"); trim(got) != trim(want) && !strings.Contains(want, " mirror ") {
				t.Errorf("status %q, want %q", trim(got), trim(want))
			}
			if got, want := tab.Text(1), strings.Join(c.Printed, "\n"); !strings.Contains(want, " crypt ") && trim(got) != trim(want) {
				t.Errorf("table %q, want %q", trim(got), trim(want))
			} else if strings.Contains(want, " crypt ") && withoutKey(got) != withoutKey(want) {
				t.Errorf("table %q, want %q", withoutKey(got), withoutKey(want))
			}
			info := tab.Info()
			if info.Size != c.Sectors*512 || info.LogicalBlock != c.LogicalBlock {
				t.Errorf("size %d, block %d; want %d, %d", info.Size, info.LogicalBlock, c.Sectors*512, c.LogicalBlock)
			}
			again, err := w.Parse(tab.Text(1))
			if err != nil {
				t.Fatalf("what it prints cannot be loaded: %v", err)
			}
			again.Close(t.Context())
		})
	}
	if n < 50 {
		t.Errorf("%d tables of our targets, want at least 50", n)
	}
}

func brief(s string) string {
	if len(s) > 200 {
		return s[:60] + "…" + s[len(s)-100:]
	}
	return s
}

func trim(s string) string {
	var lines []string
	for l := range strings.Lines(s) {
		lines = append(lines, strings.TrimSpace(l))
	}
	return strings.Join(lines, "\n")
}

func withoutKey(s string) string {
	w := strings.Fields(s)
	if len(w) > 4 {
		w[4] = "KEY"
	}
	return strings.Join(w, " ")
}
