package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unsafe"

	"keyway/internal/secret/secrettest"
)

func mustNew(t *testing.T, n int) *Buffer {
	t.Helper()
	b, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Wipe)
	return b
}

// withSlots and withPages run f with secrets in slots of slabs, and with pages of
// their own, each in hidden and in locked memory; each runs it all four ways.
func withSlots(t *testing.T, f func(t *testing.T)) { with(t, "slots", false, f) }
func withPages(t *testing.T, f func(t *testing.T)) { with(t, "pages", true, f) }
func each(t *testing.T, f func(t *testing.T))      { withSlots(t, f); withPages(t, f) }

func with(t *testing.T, name string, own bool, f func(t *testing.T)) {
	t.Helper()
	for _, p := range []Policy{MlockOnly, Best} {
		t.Run(name+", "+p.String(), func(t *testing.T) {
			if p == Best {
				needsHidden(t)
			}
			restore := using(p)
			t.Cleanup(restore)
			old := fenced
			t.Cleanup(func() { fenced = old })
			fenced = own
			f(t)
		})
	}
}

// using sets the policy, and takes from all classes the slab that they keep, which
// may be of another kind; so does what it returns, which sets the old policy.
func using(p Policy) (restore func()) {
	old := Policy(policy.Load())
	set := func(p Policy) {
		SetPolicy(p)
		for _, c := range classes {
			c.mu.Lock()
			if c.empty != nil {
				c.bytes -= len(inner(c.empty.mapping))
				unmap(c.empty.mapping, c.empty.kind)
				c.empty = nil
			}
			c.mu.Unlock()
		}
	}
	set(p)
	return func() { set(old) }
}

func kindOf(b *Buffer) Kind {
	if b.slab != nil {
		return b.slab.kind
	}
	return b.kind
}

// needsHidden skips where the kernel has no memfd_secret; in CI, whose kernels have
// it, that is a failure.
func needsHidden(t *testing.T) {
	t.Helper()
	switch {
	case hidden():
	case os.Getenv("KEYWAY_CI") == "1" || os.Getenv("CI") == "true":
		t.Fatal("memfd_secret does not work here: it needs Linux 5.14, secretmem.enable=1 before 6.5, and no seccomp filter against it")
	default:
		t.Skip("memfd_secret does not work here")
	}
}

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(&p[0])) }

func TestNewIsZeroAlignedAndWritable(t *testing.T) {
	each(t, func(t *testing.T) {
		page := os.Getpagesize()
		sizes := []int{maxSlot - canary, maxSlot - canary + 1, maxSlot, page - 1, page, page + 1, 3 * page}
		for n := 1; n < 1500; n += 1 + n/100 {
			sizes = append(sizes, n)
		}
		for _, n := range sizes {
			b := mustNew(t, n)
			p := b.Bytes()
			if len(p) != n || b.Len() != n {
				t.Fatalf("New(%d): Bytes has %d, Len is %d", n, len(p), b.Len())
			}
			if cap(p) != n {
				t.Errorf("New(%d): capacity %d lets an append run on", n, cap(p))
			}
			if address(p)%align != 0 {
				t.Errorf("New(%d): starts at %#x, not on 64 bytes", n, address(p))
			}
			if gap := -(address(p) + uintptr(n)) % uintptr(page); gap >= align && b.slab == nil {
				t.Errorf("New(%d): ends %d bytes before the guard page, want fewer than 64", n, gap)
			}
			if !bytes.Equal(p, make([]byte, n)) {
				t.Errorf("New(%d): not zero", n)
			}
			for i := range p {
				p[i] = 0xa5
			}
			b.Wipe()
		}
		for _, n := range []int{0, -1} {
			if _, err := New(n); err == nil {
				t.Errorf("New(%d) succeeded", n)
			}
		}
	})
}

// faults reports whether reading the byte at addr is a memory fault.
func faults(addr uintptr) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	// Not Go memory, so hidden from vet's and checkptr's rules on purpose.
	sink = **(**byte)(unsafe.Pointer(&addr))
	return false
}

var sink byte

func TestGuardPagesFaultOnBothSides(t *testing.T) {
	check := func(t *testing.T, first, end uintptr) {
		t.Helper()
		if faults(first) || faults(end-1) {
			t.Fatal("the memory itself faults")
		}
		if !faults(end) {
			t.Error("the page behind the memory is readable")
		}
		if !faults(first - 1) {
			t.Error("the page before the memory is readable")
		}
	}
	page := uintptr(os.Getpagesize())
	withPages(t, func(t *testing.T) {
		start := address(mustNew(t, 100).Bytes())
		check(t, start&^(page-1), (start+page)&^(page-1))
	})
	withSlots(t, func(t *testing.T) {
		s := mustNew(t, 100).slab
		check(t, address(s.slot(0))&^(page-1), address(s.slot(0))+uintptr(len(inner(s.mapping))))
	})
}

func TestWipeLeavesNothing(t *testing.T) {
	check := func(t *testing.T, gone func(p []byte) bool) {
		t.Helper()
		b := mustNew(t, 64)
		p := b.Bytes()
		copy(p, "0123456789abcdef")
		b.Wipe()
		if b.Bytes() != nil || !b.Wiped() {
			t.Error("Bytes is not nil after Wipe")
		}
		if b.Len() != 64 {
			t.Errorf("Len after Wipe: %d, want 64", b.Len())
		}
		if !gone(p) {
			t.Error("the bytes outlived Wipe")
		}
	}
	withPages(t, func(t *testing.T) {
		check(t, func(p []byte) bool { return faults(address(p)) })
	})
	withSlots(t, func(t *testing.T) {
		mustNew(t, 64) // keeps the slab
		check(t, func(p []byte) bool { return bytes.Equal(p, make([]byte, 64)) })
	})
	p := []byte("0123456789abcdef")
	if Wipe(p); !bytes.Equal(p, make([]byte, 16)) {
		t.Errorf("after Wipe(bytes): %x", p)
	}
}

// Memory is reused, so a new buffer must not begin with the last one's bytes, and
// no two buffers may get the same.
func TestReusedMemoryIsZeroAndNotShared(t *testing.T) {
	each(t, func(t *testing.T) {
		for range 3 {
			bufs := make([]*Buffer, 200)
			for i := range bufs {
				bufs[i] = mustNew(t, 33+i)
				p := bufs[i].Bytes()
				if !bytes.Equal(p, make([]byte, 33+i)) {
					t.Fatalf("buffer %d is not zero", i)
				}
				for j := range p {
					p[j] = byte(i + 1)
				}
			}
			for i, b := range bufs {
				if !bytes.Equal(b.Bytes(), bytes.Repeat([]byte{byte(i + 1)}, 33+i)) {
					t.Fatalf("buffer %d was overwritten", i)
				}
			}
			for _, b := range bufs {
				b.Wipe()
			}
		}
	})
}

func TestWipeIsIdempotentAndConcurrent(t *testing.T) {
	b := mustNew(t, 64)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(b.Wipe)
	}
	wg.Wait()
	b.Wipe()
	(*Buffer)(nil).Wipe()
}

func TestCopyWipesItsSource(t *testing.T) {
	src := []byte("a key that must not stay here")
	want := bytes.Clone(src)
	b, err := Copy(src)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	if !bytes.Equal(src, make([]byte, len(src))) {
		t.Errorf("source still holds %q", src)
	}
	if !b.Equal(want) || b.Equal(want[1:]) {
		t.Errorf("copy holds %q, want %q", b.Bytes(), want)
	}
}

func TestReadFromTakesUpToMax(t *testing.T) {
	for _, tc := range []struct {
		name    string
		r       io.Reader
		max     int
		want    string
		wantErr string
	}{
		{"short", strings.NewReader("abc"), 64, "abc", ""},
		{"exact", strings.NewReader("abcd"), 4, "abcd", ""},
		{"one byte at a time", iotest.OneByteReader(strings.NewReader("abcdef")), 8, "abcdef", ""},
		{"too long", strings.NewReader("abcde"), 4, "", "more than 4 bytes"},
		{"empty", strings.NewReader(""), 4, "", "nothing to read"},
		{"broken", iotest.ErrReader(errors.New("pipe burst")), 4, "", "pipe burst"},
		{"no room asked", strings.NewReader("a"), 0, "", "at least one byte"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := ReadFrom(tc.r, tc.max)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer b.Wipe()
			if string(b.Bytes()) != tc.want {
				t.Errorf("read %q, want %q", b.Bytes(), tc.want)
			}
		})
	}
}

func TestNoPrintedFormShowsBytes(t *testing.T) {
	const plain = "hunter2!"
	b, err := Copy([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "k", b)
	js, err := json.Marshal(map[string]any{"k": b})
	if err != nil {
		t.Fatal(err)
	}
	type holder struct{ K *Buffer }
	for what, s := range map[string]string{
		"%v": fmt.Sprintf("%v", b), "%+v": fmt.Sprintf("%+v", b), "%#v": fmt.Sprintf("%#v", b),
		"%s": fmt.Sprintf("%s", b), "%q": fmt.Sprintf("%q", b), "%x": fmt.Sprintf("%x", b), "%d": fmt.Sprintf("%d", b),
		"field": fmt.Sprintf("%+v", holder{b}), "String": b.String(), "json": string(js), "slog": log.String(),
	} {
		if !strings.Contains(s, "secret(8 bytes)") {
			t.Errorf("%s prints %q, want secret(8 bytes)", what, s)
		}
		for _, leak := range []string{plain, "68756e74", "68 75 6e", "104 117"} {
			if strings.Contains(s, leak) {
				t.Errorf("%s shows the secret: %q", what, s)
			}
		}
	}
}

// smaps returns what the kernel tells about the mapping that holds addr.
func smaps(t *testing.T, addr uintptr) map[string]string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no smaps: ", err)
	}
	fields := map[string]string{}
	in := false
	for line := range strings.Lines(string(text)) {
		var lo, hi uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &lo, &hi); n == 2 {
			in = lo <= addr && addr < hi
		} else if name, val, ok := strings.Cut(line, ":"); ok && in {
			fields[name] = strings.TrimSpace(val)
		}
	}
	return fields
}

// dm-fscrypt.md, invariant 64.
func TestMemoryIsLockedAndOutOfDumpsAndForks(t *testing.T) {
	each(t, func(t *testing.T) {
		t.Run("fresh", func(t *testing.T) { isProtected(t, mustNew(t, 3*os.Getpagesize())) })
		t.Run("reused", func(t *testing.T) {
			mustNew(t, 64).Wipe()
			isProtected(t, mustNew(t, 64))
		})
		t.Run("many", func(t *testing.T) {
			for range 9 { // the second slab is larger, and so is its mapping
				isProtected(t, mustNew(t, 3000))
			}
		})
	})
}

func isProtected(t *testing.T, b *Buffer) {
	t.Helper()
	f := smaps(t, uintptr(unsafe.Pointer(&b.Bytes()[0])))
	// lo: locked, dd: do not dump, wf: wipe on fork, dc: do not copy on fork
	// (proc_pid_smaps(5)).
	flags := strings.Fields(f["VmFlags"])
	last := "wf"
	if kindOf(b) == Hidden {
		last = "dc"
	}
	for _, want := range []string{"lo", "dd", last} {
		found := false
		for _, have := range flags {
			found = found || have == want
		}
		if !found {
			t.Errorf("VmFlags %v lack %q", flags, want)
		}
	}
	if f["Locked"] == "0 kB" {
		t.Error("nothing is locked")
	}
}

// inChild runs f in a child process that may lock limit bytes, without fences.
func inChild(t *testing.T, limit uint64, f func()) string {
	t.Helper()
	return secrettest.WithLimit(t, limit, func() {
		fenced = false
		f()
	})
}

// With no right to lock memory, New must say what to raise.
func TestLockFailureNamesTheLimitAndTheWayOut(t *testing.T) {
	out := inChild(t, 0, func() {
		_, err := New(64)
		fmt.Println("result:", err)
	})
	for _, want := range []string{"RLIMIT_MEMLOCK is 0 bytes", "0 are locked", "ulimit -l", "LimitMEMLOCK=", "CAP_IPC_LOCK"} {
		if !strings.Contains(out, want) {
			t.Errorf("error does not name %q:\n%s", want, out)
		}
	}
}

// Older kernels let a process lock 64 KiB. Slabs grow with what there is,
// so the last pages must not be out of reach because a large slab is: here the
// fifth one would be of 16 pages, and 4 are left.
func TestSmallLimitIsUsedToItsLastPage(t *testing.T) {
	page := os.Getpagesize()
	const pages = 20
	out := inChild(t, uint64(pages*page), func() {
		var all []*Buffer
		var err error
		for b := (*Buffer)(nil); err == nil; {
			if b, err = New(64); err == nil {
				all = append(all, b)
			}
		}
		_, large := New(2000)
		n := len(all)
		for _, b := range all {
			b.Wipe()
		}
		_, again := New(2000)
		fmt.Println("result:", n, err != nil, large != nil, again)
	})
	if want := fmt.Sprintf("result: %d true true <nil>", pages*page/128); !strings.Contains(out, want) {
		t.Errorf("child printed\n%s, want %s", out, want)
	}
}

func BenchmarkNewWipe(b *testing.B) {
	for _, n := range []int{64, 720, 2000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := New(n)
				if err != nil {
					b.Fatal(err)
				}
				s.Wipe()
			}
		})
	}
}
