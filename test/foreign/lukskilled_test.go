package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/test/harness"
)

// kdfLUKS is a derivation that costs nothing, in the words of both.
var kdfLUKS = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}

// small are the arguments of a volume whose header is as short as it can be, so that
// few writes make it: 3 MB for LUKS1, which has eight keyslots, and 288 KB for LUKS2.
func small(typ string) []string {
	offset := map[string]string{"luks1": "6080", "luks2": "576"}[typ]
	return append([]string{"--type", typ, "--offset", offset}, kdfLUKS...)
}

// volumes makes an image of each version, with a passphrase of its own.
func (b *luksBench) volume(typ, pass string) string {
	b.t.Helper()
	image := filepath.Join(b.Dir, typ+".img")
	b.OK(append([]string{"luks", "format", image, "--size", "3200K", "--key-file", pass}, small(typ)...)...)
	return image
}

// isLUKS reports whether there is a header, by cryptsetup and by keyway, who must agree.
func (b *luksBench) isLUKS(image string) bool {
	b.t.Helper()
	theirs := harness.Tool(b.t, "cryptsetup", "isLuks", image).Code == 0
	r := b.Run("luks", "dump", image)
	if theirs != (r.Code == 0) {
		b.t.Errorf("cryptsetup finds a header: %v; keyway dump: status %d, %s", theirs, r.Code, r.Stderr)
	}
	return theirs
}

// Who kills a format over a volume has the old volume, no volume, or the new one, in
// this order, and never a header that opens with neither passphrase; and the same
// command makes the new one.
func TestLUKSFormatKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	fresh := b.file("fresh", []byte("of the new volume"))
	for _, x := range []struct{ from, to string }{{"luks1", "luks2"}, {"luks2", "luks1"}} {
		t.Run(x.to+" over "+x.from, func(t *testing.T) {
			b := b.in(t)
			args := append([]string{"luks", "format", theCopy, "--yes", "--key-file", fresh}, small(x.to)...)
			stage, was := 0, [3]int{}
			b.eachKill(8, b.volume(x.from, b.pass), args, func(t *testing.T, image string, ended bool) {
				now := 1
				if b.isLUKS(image) {
					if b.opensTheirs(image, b.pass) {
						now = 0
					} else if now = 2; !b.opensTheirs(image, fresh) {
						t.Error("there is a header, and neither passphrase opens it")
					}
				}
				if now < stage || ended && now != 2 {
					t.Errorf("stage %d after stage %d, ended: %v", now, stage, ended)
				}
				stage = now
				was[now]++
				if now == 1 {
					b.OK(append([]string{"luks", "format", image, "--yes", "--key-file", fresh}, small(x.to)...)...)
					if !b.opensTheirs(image, fresh) {
						t.Error("formatted again, it does not open")
					}
				}
			})
			for i, n := range was {
				if n == 0 {
					t.Errorf("never in stage %d: %v", i, was)
				}
			}
		})
	}
}

// A format that makes its files, the header in one of its own: killed at any write, the
// same command with --yes goes on with what is there.
func TestLUKSFormatOfNewFilesKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	image, header := filepath.Join(b.Dir, "data"), filepath.Join(b.Dir, "header")
	args := append([]string{"luks", "format", image, "--size", "64K", "--header", header, "--exact-size", "--key-file", b.pass, "--luks2-keyslots-size", "256K"}, kdfLUKS...)
	for k, killed := 1, true; killed; k++ {
		killed = b.killedAt(k, args...)
		if !killed && k <= 8 {
			t.Errorf("it wrote and synced %d times only: is this what it does?", k-1)
		}
		if killed {
			if st, err := os.Stat(header); err == nil && st.Size() > 0 && b.isLUKS(header) && !b.opensTheirs(image, b.pass, "--header", header) {
				t.Errorf("killed at call %d: a header that does not open", k)
			}
			b.OK(append(args, "--yes")...)
		}
		if !b.opensTheirs(image, b.pass, "--header", header) {
			t.Errorf("killed at call %d, and formatted again: it does not open", k)
		}
		for _, f := range []string{image, header} {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Who kills a restore has a volume that opens with the passphrase of before or with that
// of the backup, or with neither, and then the same command makes it the backup's: it
// does not take the volume for another, and the backup is as it was.
func TestLUKSRestoreKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	fresh := b.file("fresh", []byte("of later"))
	for _, typ := range []string{"luks1", "luks2"} {
		image, backup := b.volume(typ, b.pass), filepath.Join(b.Dir, typ+".backup")
		b.OK("luks", "backup", image, backup)
		sum := fileSum(t, backup)
		b.OK(append([]string{"luks", "change-key", image, "--key-file", b.pass, "--new-key-file", fresh, "--in-place"}, kdfLUKS...)...)
		for _, destroyed := range []bool{false, true} {
			restore := []string{"luks", "restore", theCopy, backup, "--yes"}
			name := typ
			if destroyed {
				content, err := os.ReadFile(image)
				if err != nil {
					t.Fatal(err)
				}
				clear(content[:32<<10]) // both copies
				image = b.file(typ+".img", content)
				restore, name = append(restore, "--force"), typ+" without a header"
			}
			t.Run(name, func(t *testing.T) {
				b := b.in(t)
				b.eachKill(6, image, restore, func(t *testing.T, image string, ended bool) {
					there := b.isLUKS(image)
					old, restored := there && b.opensTheirs(image, fresh), there && b.opensTheirs(image, b.pass)
					if old && restored || ended && !restored || !there && !destroyed {
						t.Errorf("a header: %v; the passphrase of before opens: %v; that of the backup: %v; ended: %v", there, old, restored, ended)
					}
					again := append([]string{"luks", "restore", image}, restore[3:]...)
					b.OK(again...)
					if !b.opensTheirs(image, b.pass) || b.opensTheirs(image, fresh) {
						t.Error("restored again, it does not open with the passphrase of the backup alone")
					}
					if fileSum(t, backup) != sum {
						t.Error("the backup changed")
					}
				})
			})
		}
	}
}

// A backup that was killed is none: nobody restores it, and it is in nobody's way.
func TestLUKSBackupKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	for _, typ := range []string{"luks1", "luks2"} {
		image, backup := b.volume(typ, b.pass), filepath.Join(b.Dir, typ+".backup")
		whole := filepath.Join(b.Dir, typ+".whole")
		b.OK("luks", "backup", image, whole)
		sum, want := fileSum(t, image), fileSum(t, whole)
		for k, killed := 1, true; killed; k++ {
			if killed = b.killedAt(k, "luks", "backup", image, backup); !killed && k < 3 {
				t.Errorf("it wrote and synced %d times only: is this what it does?", k-1)
			}
			if fileSum(t, image) != sum {
				t.Fatal("a backup changed the image")
			}
			if _, err := os.Stat(backup); err == nil && fileSum(t, backup) != want {
				for _, r := range []harness.Result{
					b.Run("luks", "restore", image, backup, "--yes", "--force"),
					harness.Tool(t, "cryptsetup", "--batch-mode", "luksHeaderRestore", image, "--header-backup-file", backup),
				} {
					if r.Code == 0 {
						t.Fatalf("%s, killed at call %d: what it left is taken for a backup", typ, k)
					}
				}
			} else if err != nil && !killed {
				t.Error(err)
			}
			os.Remove(backup)
		}
	}
}

// The rest of what writes: whatever of it is killed, and where, the header is there and
// keyslots that it is not about open.
func TestLUKSEditsKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	token := b.file("token", []byte(`{"type":"example","keyslots":["0"]}`))
	other := b.file("other", []byte("of keyslot 1"))
	fresh := b.file("fresh", []byte("a new one"))
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	for _, typ := range []string{"luks1", "luks2"} {
		image := filepath.Join(b.Dir, typ+"e.img")
		offset := map[string]string{"luks1": "6080", "luks2": "1088"}[typ] // two keyslots and no room for a third
		b.OK(append([]string{"luks", "format", image, "--size", "3200K", "--type", typ, "--offset", offset, "--key-file", b.pass}, kdfLUKS...)...)
		b.OK(append([]string{"luks", "add-key", image, "--key-file", b.pass, "--new-key-file", other}, kdfLUKS...)...)
		for _, x := range []struct {
			least   int
			version string // "": both
			done    string // what dump --json has in the end, and not before; "": look at the passphrase
			args    []string
		}{
			{4, "", uuid, []string{"luks", "label", theCopy, "--uuid", uuid}},
			{4, "", "", []string{"luks", "kill-slot", theCopy, "1", "--yes"}},
			{6, "luks2", "", append([]string{"luks", "change-key", theCopy, "--in-place", "--key-file", other, "--new-key-file", fresh}, kdfLUKS...)},
			{4, "luks2", `"example"`, []string{"luks", "token", "add", theCopy, "--json-file", token}},
			{4, "luks2", `"allow-discards"`, []string{"luks", "flags", theCopy, "allow-discards"}},
		} {
			if x.version != "" && x.version != typ {
				continue
			}
			t.Run(typ+" "+strings.Join(x.args[1:3], " "), func(t *testing.T) {
				b := b.in(t)
				if typ == "luks1" {
					x.least = 2 // there is one copy of it
				}
				before := b.OK("luks", "dump", image) + b.OK("luks", "dump", image, "--json")
				if x.done != "" && strings.Contains(before, x.done) {
					t.Fatalf("there is %s already", x.done)
				}
				b.eachKill(x.least, image, x.args, func(t *testing.T, image string, ended bool) {
					if !b.opensTheirs(image, b.pass) {
						t.Error("keyslot 0 does not open")
					}
					if x.done == "" {
						if ended && b.opensTheirs(image, other) {
							t.Error("the passphrase that was to go opens")
						}
						return
					}
					if !b.opensTheirs(image, other) {
						t.Error("keyslot 1 does not open")
					}
					r := b.Run("luks", "dump", image, "--json")
					text := b.Run("luks", "dump", image)
					if r.Code != 0 || text.Code != 0 || ended && !strings.Contains(r.Stdout+text.Stdout, x.done) {
						t.Errorf("ended: %v, dump: %s%s%s", ended, r.Stderr, text.Stdout, r.Stdout)
					}
				})
			})
		}
	}
}

// Who kills an erase has keyslots that open or are gone, and the same command takes the
// rest: in the end nothing opens, neither here nor in cryptsetup.
func TestLUKSEraseKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	other := b.file("other", []byte("of keyslot 1"))
	for _, typ := range []string{"luks1", "luks2"} {
		image := filepath.Join(b.Dir, typ+"e.img")
		offset := map[string]string{"luks1": "6080", "luks2": "1088"}[typ]
		b.OK(append([]string{"luks", "format", image, "--size", "3200K", "--type", typ, "--offset", offset, "--key-file", b.pass}, kdfLUKS...)...)
		b.OK(append([]string{"luks", "add-key", image, "--key-file", b.pass, "--new-key-file", other}, kdfLUKS...)...)
		if r := b.Run("luks", "erase", image); r.Code != 2 || !strings.Contains(r.Stderr, "keyslots 0, 1 will be gone, and the data lost for good") {
			t.Errorf("without --yes: status %d, %s", r.Code, r.Stderr)
		}
		t.Run(typ, func(t *testing.T) {
			b := b.in(t)
			b.eachKill(6, image, []string{"luks", "erase", theCopy, "--yes"}, func(t *testing.T, image string, ended bool) {
				// Without keyslots cryptsetup's status is another than for a wrong passphrase.
				if !b.isLUKS(image) {
					t.Fatal("the header is gone")
				}
				if !ended && b.Run("luks", "erase", image, "--yes").Code != 0 {
					// Killed behind the last write that matters: nothing is left to do.
					if r := b.Run("luks", "erase", image, "--yes"); r.Code != 1 || !strings.Contains(r.Stderr, "no keyslot is in use") {
						t.Errorf("erase again: status %d, %s", r.Code, r.Stderr)
					}
				}
				for _, pass := range []string{b.pass, other} {
					if r := harness.Tool(t, "cryptsetup", "--batch-mode", "open", "--test-passphrase", "--key-file", pass, image); r.Code == 0 {
						t.Error("erased, it opens with " + pass)
					}
				}
				if text := b.cryptsetup("luksDump", image); strings.Contains(text, "ENABLED") || strings.Contains(text, "0: luks2") || strings.Contains(text, "1: luks2") {
					t.Errorf("erased, there are keyslots:\n%s", text)
				}
				b.refused(image, "no keyslot is in use")
			})
		})
	}
}

// A copy of a header that was destroyed, and a repair that is killed: the other copy opens
// all the time, and another repair ends it.
func TestLUKSRepairKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	image := b.volume("luks2", b.pass)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		damaged := append([]byte(nil), content...)
		clear(damaged[i*16<<10:][:4096])
		b.eachKill(2, b.file(fmt.Sprint(i, ".img"), damaged), []string{"luks", "repair", theCopy, "--yes"}, func(t *testing.T, image string, ended bool) {
			if !b.opensTheirs(image, b.pass) {
				t.Errorf("copy %d: it does not open", i+1)
			}
			if !ended {
				b.OK("luks", "repair", image, "--yes")
			}
			if r := b.Run("luks", "repair", image, "--yes"); r.Code != 0 || !strings.Contains(r.Stdout, "both copies are good") {
				t.Errorf("copy %d: status %d, %s%s", i+1, r.Code, r.Stdout, r.Stderr)
			}
		})
	}
}
