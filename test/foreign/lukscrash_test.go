package foreign

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/harness"
	"keyway/test/spawn"
)

// A keyway command that is killed at whatever write leaves a header that opens with
// the old or with the new passphrase, here and in cryptsetup, and other keyslots open
// all the time.
func TestLUKSKilledAtEveryWrite(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	other, fresh := b.file("other", []byte("of another keyslot")), b.file("fresh", []byte("a new one"))
	for _, typ := range []string{"luks1", "luks2"} {
		image := filepath.Join(b.Dir, typ+".img")
		b.OK("luks", "format", image, "--size", "3M", "--type", typ, "--offset", "6080", "--key-file", b.pass, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
		b.OK("luks", "add-key", image, "--key-file", b.pass, "--new-key-file", other, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
		opens := func(t *testing.T, image, pass string) bool {
			theirs := b.in(t).opensTheirs(image, pass)
			r := b.Run("luks", "add-key", image, "--key-file", pass, "--new-key-file", pass, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
			if (r.Code == 0) != theirs {
				t.Errorf("cryptsetup opens it: %v; keyway: status %d, %s", theirs, r.Code, r.Stderr)
			}
			return theirs
		}
		kdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
		t.Run(typ+" change-key", func(t *testing.T) {
			was := map[bool]int{}
			b.in(t).eachKill(6, image, append([]string{"luks", "change-key", theCopy, "--key-file", b.pass, "--new-key-file", fresh}, kdf...), func(t *testing.T, image string, ended bool) {
				old, changed := opens(t, image, b.pass), opens(t, image, fresh)
				if !old && !changed || ended && (old || !changed) {
					t.Errorf("the old passphrase opens: %v; the new one: %v; ended: %v", old, changed, ended)
				}
				if !opens(t, image, other) {
					t.Error("another keyslot does not open")
				}
				was[changed]++
			})
			if was[false] == 0 || was[true] == 0 {
				t.Errorf("it always opened with the same passphrase: %v", was)
			}
		})
		t.Run(typ+" add-key", func(t *testing.T) {
			b.in(t).eachKill(4, image, append([]string{"luks", "add-key", theCopy, "--key-file", b.pass, "--new-key-file", fresh}, kdf...), func(t *testing.T, image string, ended bool) {
				if !opens(t, image, b.pass) || !opens(t, image, other) {
					t.Error("a keyslot that was there does not open")
				}
				if added := opens(t, image, fresh); ended && !added {
					t.Error("the new passphrase does not open")
				}
			})
		})
		t.Run(typ+" remove-key", func(t *testing.T) {
			b.in(t).eachKill(4, image, []string{"luks", "remove-key", theCopy, "--key-file", other, "--yes"}, func(t *testing.T, image string, ended bool) {
				if !opens(t, image, b.pass) {
					t.Error("a keyslot that was to stay does not open")
				}
				if left := opens(t, image, other); ended && left {
					t.Error("the removed passphrase opens")
				}
			})
		})
	}
}

// The same in a loop, with kills at random moments and without a tracer: each round
// goes on with what the last has left.
func TestLUKSKilledAtRandom(t *testing.T) {
	harness.Need(t, "cryptsetup")
	b := newLUKSBench(t)
	passes := []string{b.pass, b.file("fresh", []byte("a new one"))}
	other := b.file("other", []byte("of another keyslot"))
	image := filepath.Join(b.Dir, "v.img")
	kdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	b.OK(append([]string{"luks", "format", image, "--size", "3M", "--offset", "6080", "--key-file", b.pass}, kdf...)...)
	b.OK(append([]string{"luks", "add-key", image, "--key-file", b.pass, "--new-key-file", other}, kdf...)...)
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	current, rounds, changed, killed := 0, 0, 0, 0
	longest := 20 * time.Millisecond // of one that was not killed, so far
	for end := time.Now().Add(harness.Soak(t, 3*time.Second)); time.Now().Before(end); rounds++ {
		cmd := exec.Command(harness.Binary(t), append([]string{"luks", "change-key", image, "--key-file", passes[current], "--new-key-file", passes[1-current]}, kdf...)...)
		cmd.Env = []string{"HOME=" + b.Dir}
		begin := time.Now()
		if err := spawn.Start(cmd); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rnd.Int64N(int64(longest*5/4))), func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			longest = max(longest, time.Since(begin))
		} else if cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("round %d, seed %d: not killed, and %v", rounds, seed, err)
		} else {
			killed++
		}
		old, new := b.opensTheirs(image, passes[current]), b.opensTheirs(image, passes[1-current])
		if old == new || err == nil && !new {
			t.Fatalf("round %d, seed %d: the old passphrase opens: %v, the new one: %v, ended: %v", rounds, seed, old, new, err)
		}
		if !b.opensTheirs(image, other) {
			t.Fatalf("round %d, seed %d: another keyslot does not open", rounds, seed)
		}
		if new {
			current = 1 - current
			changed++
		}
	}
	t.Logf("%d rounds, %d killed, %d changed", rounds, killed, changed)
	b.OK(append([]string{"luks", "add-key", image, "--key-file", other, "--new-key-file", b.file("last", []byte("x"))}, kdf...)...)
}

// An interrupt during the derivation ends the command, and nothing is changed.
func TestLUKSInterruptedDerivationChangesNothing(t *testing.T) {
	b := newLUKSBench(t)
	image := filepath.Join(b.Dir, "v.img")
	b.OK("luks", "format", image, "--size", "3M", "--offset", "6080", "--key-file", b.pass, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"add-key", image, "--new-key-file", b.pass}, {"change-key", image, "--new-key-file", b.pass}, {"format", image, "--offset", "6080", "--yes"},
	} {
		for _, kdf := range [][]string{{"pbkdf2", "2000000000"}, {"argon2id", "60000"}} {
			args := append([]string{"luks"}, append(args, "--key-file", b.pass, "--pbkdf", kdf[0], "--pbkdf-force-iterations", kdf[1])...)
			if kdf[0] == "argon2id" {
				args = append(args, "--pbkdf-memory", "16M")
			}
			cmd := exec.Command(harness.Binary(t), args...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := spawn.Start(cmd); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { cmd.Wait(); close(done) }()
			waitLocked(t, image, done, &errs)
			cmd.Process.Signal(syscall.SIGINT)
			select {
			case <-done:
			case <-time.After(time.Minute):
				cmd.Process.Kill()
				<-done
				t.Fatalf("%q does not end by SIGINT", args)
			}
			if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "interrupted: nothing is changed") {
				t.Errorf("%q: status %d\n%s", args, code, errs.String())
			}
			after, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Errorf("%q: the image changed", args)
			}
		}
	}
}

// waitLocked waits until somebody has locked a file, without locking it.
func waitLocked(t *testing.T, path string, ended <-chan struct{}, errs fmt.Stringer) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", st.Ino)
	for {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "FLOCK") && strings.Contains(line, "WRITE") && strings.Contains(line, inode) {
				return
			}
		}
		select {
		case <-ended:
			t.Fatalf("it ended and never locked the image: %s", errs)
		case <-time.After(time.Millisecond):
		}
	}
}

// Of commands that run at once each does its work or says that another has the image:
// none undoes what another did.
func TestLUKSTwoWriters(t *testing.T) {
	b := newLUKSBench(t)
	image := filepath.Join(b.Dir, "v.img")
	kdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	b.OK(append([]string{"luks", "format", image, "--size", "20M", "--key-file", b.pass}, kdf...)...)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var added []string
	for i := range 8 {
		pass := b.file(fmt.Sprint("pass", i), fmt.Append(nil, "passphrase ", i))
		wg.Go(func() {
			r := b.Run(append([]string{"luks", "add-key", image, "--key-file", b.pass, "--new-key-file", pass}, kdf...)...)
			mu.Lock()
			defer mu.Unlock()
			if r.Code == 0 {
				added = append(added, pass)
			} else if !strings.Contains(r.Stderr, "another program is using it") {
				t.Errorf("status %d: %s", r.Code, r.Stderr)
			}
		})
	}
	wg.Wait()
	if len(added) == 0 {
		t.Error("none got the lock")
	}
	for _, pass := range added {
		b.OK("luks", "remove-key", image, "--key-file", pass, "--yes")
	}
	if r := b.Run("luks", "remove-key", image, "--key-file", b.pass, "--yes"); r.Code != 1 || !strings.Contains(r.Stderr, "last keyslot") {
		t.Errorf("keyslots are left that nobody added: %s", r.Stderr)
	}
}

// An image that QEMU has open is not changed: it takes no lock that flock would meet.
func TestLUKSImageInQEMUIsLeftAlone(t *testing.T) {
	harness.Need(t, "qemu-nbd")
	b := newLUKSBench(t)
	image := filepath.Join(b.Dir, "v.img")
	b.OK("luks", "format", image, "--size", "3M", "--offset", "6080", "--key-file", b.pass, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
	before := fileSum(t, image)
	sock := filepath.Join(b.Dir, "qemu")
	harness.Spawn(t, exec.Command("qemu-nbd", "-f", "raw", "-k", sock, "-t", image))
	harness.WaitSocket(t, sock)
	for _, args := range [][]string{
		{"format", image, "--offset", "6080", "--yes", "--key-file", b.pass}, {"add-key", image, "--key-file", b.pass, "--new-key-file", b.pass},
		{"kill-slot", image, "0", "--last", "--yes"}, {"label", image, "--label", "x"}, {"repair", image, "--yes"},
	} {
		if r := b.Run(append([]string{"luks"}, args...)...); r.Code != 1 || !strings.Contains(r.Stderr, "another program is using it, such as QEMU") {
			t.Errorf("luks %s: status %d, %s", args[0], r.Code, r.Stderr)
		}
	}
	if after := fileSum(t, image); after != before {
		t.Error("the image changed")
	}
}
