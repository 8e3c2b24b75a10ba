package memory

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyway/test/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv("MEMORY_TEST_HOLD") != "" {
		hold()
	}
	if raceEnabled {
		os.Exit(m.Run())
	}
	os.Setenv("CGO_ENABLED", "0") // the binary is built as it is shipped: static
	harness.Main(m)
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // does not fail
	return b
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FIPS 197, appendices A.1 to A.3 and C.1.
func TestAESRoundKeysAreThoseOfTheStandard(t *testing.T) {
	for _, c := range []struct {
		key     string
		at      int
		want    string
		inverse bool
	}{
		{"2b7e151628aed2a6abf7158809cf4f3c", 160, "d014f9a8c9ee2589e13f0cc8b6630ca6", false},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", 192, "e98ba06f448c773c8ecc720401002202", false},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", 224, "fe4890d1e6188d0b046df344706c631e", false},
		{"000102030405060708090a0b0c0d0e0f", 160, "13111d7fe3944a17f307a78b4d2b30c5", true},
		{"000102030405060708090a0b0c0d0e0f", 144, "13aa29be9c8faff6f770f58000f7bf03", true},
	} {
		w := aesSchedule(unhex(t, c.key))
		if c.inverse {
			w = aesInverse(w)
		}
		if got := w[c.at:][:16]; !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("key %s, inverse %v: byte %d on: %x, want %s", c.key, c.inverse, c.at, got, c.want)
		}
	}
}

// Each form of a secret, and any eight bytes of it that begin at a multiple of eight,
// is found at every alignment and across the seams of what is read at once.
func TestScanFindsEveryForm(t *testing.T) {
	key := random(64)
	var s Set
	s.AddKey("key", key)
	words := slices.Clone(key)
	for i := 0; i < 64; i += 4 {
		binary.LittleEndian.PutUint32(words[i:], binary.BigEndian.Uint32(key[i:]))
	}
	quads := slices.Clone(key)
	for i := 0; i < 64; i += 8 {
		binary.LittleEndian.PutUint64(quads[i:], binary.BigEndian.Uint64(key[i:]))
	}
	for _, c := range []struct {
		form string
		what []byte
		hits int
	}{
		{"", key, 8}, {"", key[:32], 4}, {"", key[24:41], 2},
		{"words of 4 bytes reversed", words, 8}, {"words of 8 bytes reversed", quads, 8},
		{"hex", []byte(hex.EncodeToString(key)), 15}, {"hex", fmt.Appendf(nil, "%X", key), 15},
		{"base64", []byte(base64.StdEncoding.EncodeToString(key)), 9},
	} {
		for _, at := range []int{0, 1, 7, 100, window - 30, window + overlap - 60, window + overlap - 5, 2*window + overlap - 9} {
			mem := make([]byte, 3*window)
			copy(mem[at:], c.what)
			rep := &Report{}
			n, err := rep.stream(bytes.NewReader(mem), 0x1000, Region{}, &s)
			if err != nil || n != int64(len(mem)) || rep.Bytes != n {
				t.Fatalf("%d of %d bytes, %v", n, len(mem), err)
			}
			got := 0
			for _, h := range rep.Hits {
				if h.Form == c.form {
					got++
				}
			}
			if got != c.hits || len(rep.Hits) != c.hits {
				t.Errorf("%q, %d bytes at %d: %d hits of %d, want %d", c.form, len(c.what), at, got, len(rep.Hits), c.hits)
			}
			if len(rep.Hits) > 0 && rep.Hits[0].Addr < 0x1000+uint64(at) {
				t.Errorf("%q at %d: found at %#x", c.form, at, rep.Hits[0].Addr)
			}
		}
	}
}

func TestScanIsNotMistaken(t *testing.T) {
	var s Set
	for i := range 2000 {
		s.AddKey(fmt.Sprint("key ", i), random(64))
	}
	s.Add("zeroes", make([]byte, 64))
	s.Add("marks", bytes.Repeat([]byte{0xc5, 0, 0, 1}, 16))
	mem := append(random(window), make([]byte, window)...)
	mem = append(mem, []byte(strings.Repeat(hex.EncodeToString(random(32)), 1000))...)
	rep := &Report{}
	if _, err := rep.stream(bytes.NewReader(mem), 0, Region{}, &s); err != nil || len(rep.Hits) > 0 {
		t.Errorf("found in what is random or empty, %v:\n%s", err, Describe(rep.Hits))
	}
}

func BenchmarkScan(b *testing.B) {
	var s Set
	for range 5000 {
		s.Add("key", random(64))
	}
	mem := random(window)
	b.SetBytes(window)
	for b.Loop() {
		s.scan(mem, func(int, *needle) {})
	}
}

// held is what the process of hold has, made of a number so that the test knows it.
func held(i int64) []byte {
	n := new(big.Int).Exp(big.NewInt(0x10001+2*i), big.NewInt(31), nil)
	return n.FillBytes(make([]byte, 80))[80-48:]
}

// hold is another process with secrets in all kinds of memory.
func hold() {
	ordinary := held(1)
	protect := func(i int64, lock, nodump bool) {
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			panic(err)
		}
		if lock && unix.Mlock(m) != nil || nodump && unix.Madvise(m, unix.MADV_DONTDUMP) != nil {
			panic("no such memory")
		}
		b := held(i)
		copy(m[100:], b)
		clear(b)
		if i == 5 {
			unix.Mprotect(m, unix.PROT_NONE)
		}
	}
	protect(2, true, true)
	protect(3, true, false)
	protect(4, false, true)
	protect(5, true, true)
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	fmt.Fprint(os.Stderr, ordinary[0])
	os.Exit(0)
}

// needRoot skips, or fails in CI, where the memory of others is not ours to read.
func needRoot(t *testing.T) {
	t.Helper()
	if raceEnabled || os.Getenv("KEYWAY_RACE") == "1" {
		t.Skip("looks into a binary of its own, and the race detector copies what it sees into memory of its own")
	}
	if os.Geteuid() == 0 {
		return
	}
	if harness.CI() {
		t.Fatal("only root may read the memory of a daemon, and here that is a failure")
	}
	t.Skip("only root may read the memory of a daemon: run as root")
}

// The scanner finds keys in a process of which all is known, and tells rightly
// whether they are in memory for keys, also behind a mapping that nobody may read,
// by /proc and in core files.
func TestScannerSeesAllKindsOfMemory(t *testing.T) {
	needRoot(t)
	harness.Need(t, "gcore")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MEMORY_TEST_HOLD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	harness.Spawn(t, cmd)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	var s Set
	for i := range int64(5) {
		s.AddBytes(fmt.Sprint(i+1), held(i+1))
	}
	kept := map[string]bool{"2": true, "5": true}
	check := func(where string, rep *Report, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(where, ": ", err)
		}
		for i := range 5 {
			name := fmt.Sprint(i + 1)
			n := 0
			for _, h := range rep.Hits {
				if h.Secret == name && h.Region.Name != registers {
					n++
				}
			}
			if n > 0 != slices.Contains(want, name) {
				t.Errorf("%s: secret %s found %d times", where, name, n)
			}
		}
		for _, h := range rep.Hits {
			// It has just copied them, by vector registers.
			if h.Region.Name != registers && h.Region.Kept() != kept[h.Secret] {
				t.Errorf("%s: secret %s is in %v", where, h.Secret, h.Region)
			}
		}
	}
	if err := Stopped(cmd.Process.Pid, func() {
		rep, err := Process(cmd.Process.Pid, &s)
		check("/proc", rep, err, "1", "2", "3", "4", "5")
	}); err != nil {
		t.Fatal(err)
	}
	rep := gcore(t, cmd.Process.Pid, true, &s)
	check("gcore -a", rep, nil, "1", "2", "3", "4", "5")
	rep = gcore(t, cmd.Process.Pid, false, &s)
	check("gcore", rep, nil, "1", "3")
}

// gcore scans a core file of a process.
func gcore(t *testing.T, pid int, all bool, s *Set) *Report {
	t.Helper()
	regions, err := Regions(pid)
	if err != nil {
		t.Fatal(err)
	}
	path, err := Gcore(pid, harness.Dir(t)+"/core", all)
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	rep, err := Core(path, regions, s)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// interrupt sends each thread of a Go program the signal by which it preempts, and waits
// until they have come. What an earlier one has left of registers on the signal stacks is
// overwritten.
func interrupt(t *testing.T, pid int) {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		tid, err := strconv.Atoi(th.Name())
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Tgkill(pid, tid, unix.SIGURG) // it may have ended
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		waits := slices.ContainsFunc(threads, func(th os.DirEntry) bool { return pending(t, pid, th.Name(), unix.SIGURG) })
		if !waits {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a thread does not take the signal")
		}
	}
}

// pending reports whether a signal waits for a thread: the kernel has not written its
// frame yet. One that has ended has none.
func pending(t *testing.T, pid int, tid string, signal unix.Signal) bool {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, tid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "SigPnd:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return set&(1<<(signal-1)) != 0
		}
	}
	return false
}
