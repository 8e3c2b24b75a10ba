package memory

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Region is a mapping of a process.
type Region struct {
	From, To uint64
	Perm     string // as rw-p
	Name     string // file, [stack], or "" for memory of nobody else
	Locked   bool   // never swapped
	NoDump   bool   // in no core file
}

// Kept reports whether keys may be there.
func (r Region) Kept() bool { return r.Locked && r.NoDump }

// String tells place, kind and protection.
func (r Region) String() string {
	name := r.Name
	if name == "" {
		name = "anonymous"
	}
	kind := "not locked"
	switch {
	case r.Kept():
		kind = "locked, in no dump"
	case r.Locked:
		kind = "locked, but dumped"
	case r.NoDump:
		kind = "in no dump, but not locked"
	}
	return fmt.Sprintf("%x-%x %s %s (%s)", r.From, r.To, r.Perm, name, kind)
}

// Regions returns the mappings of a process in order.
func Regions(pid int) ([]Region, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Region
	in := bufio.NewScanner(f)
	for in.Scan() {
		var r Region
		line := in.Text()
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &r.From, &r.To, &r.Perm); n == 3 {
			if words := strings.Fields(line); len(words) > 5 {
				r.Name = strings.Join(words[5:], " ")
			}
			all = append(all, r)
			continue
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && len(all) > 0 {
			for f := range strings.FieldsSeq(flags) {
				all[len(all)-1].Locked = all[len(all)-1].Locked || f == "lo"
				all[len(all)-1].NoDump = all[len(all)-1].NoDump || f == "dd"
			}
		}
	}
	return all, in.Err()
}

// Stopped calls f while a child process of ours, with all its threads, stands still.
func Stopped(pid int, f func()) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	defer unix.Kill(pid, unix.SIGCONT)
	for {
		// WNOWAIT is not said: the next stop must be another one.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait until process %d stands still: %w", pid, err)
		}
	}
	f()
	return nil
}

// Process scans all memory of a process that stands still. Pages that are not there
// are skipped: they read as zeroes, or as what is in their file.
func Process(pid int, s *Set) (*Report, error) {
	regions, err := Regions(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	defer pages.Close()
	rep := &Report{}
	for _, r := range regions {
		if r.Name == "[vsyscall]" {
			continue // the kernel's, and the same in every process
		}
		if err := rep.region(r, mem, pages, s); err != nil {
			return nil, err
		}
	}
	return rep, nil
}

// Bits of an entry of /proc/PID/pagemap.
const (
	pageFrame   = 1<<55 - 1
	pageSwapped = 1 << 62
	pagePresent = 1 << 63
)

// zeroPage is the entry of the kernel's page of zeroes, which stands for all that
// somebody, such as a debugger, has only read; 0 if the kernel does not tell.
var zeroPage = sync.OnceValue(func() uint64 {
	m, err := unix.Mmap(-1, 0, int(pageSize), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0
	}
	defer unix.Munmap(m)
	if m[0] != 0 { // which brings it in
		return 0
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0
	}
	defer f.Close()
	e := make([]byte, 8)
	if _, err := f.ReadAt(e, int64(uint64(uintptr(unsafe.Pointer(&m[0])))/pageSize*8)); err != nil {
		return 0
	}
	if v := binary.LittleEndian.Uint64(e); v&pageFrame != 0 {
		return v & (pagePresent | pageFrame)
	}
	return 0
})

var pageSize = uint64(os.Getpagesize())

// region scans the pages of r that are there, run by run.
func (rep *Report) region(r Region, mem, pages *os.File, s *Set) error {
	entries := make([]byte, (r.To-r.From)/pageSize*8)
	if n, err := pages.ReadAt(entries, int64(r.From/pageSize*8)); n < len(entries) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("pages of %v: %w", r, err)
	}
	there := func(i uint64) bool {
		e := binary.LittleEndian.Uint64(entries[i*8:])
		return e&(pagePresent|pageSwapped) != 0 && e&(pagePresent|pageFrame) != zeroPage()
	}
	for i, n := uint64(0), uint64(len(entries)/8); i < n; i++ {
		if !there(i) {
			continue
		}
		end := i + 1
		for end < n && there(end) {
			end++
		}
		from, to := r.From+i*pageSize, r.From+end*pageSize
		read, err := rep.stream(io.NewSectionReader(mem, int64(from), int64(to-from)), from, r, s)
		if err != nil {
			rep.Unreadable = append(rep.Unreadable, Region{from + uint64(read), to, r.Perm, r.Name, r.Locked, r.NoDump})
		}
		i = end
	}
	return nil
}

// AddKept adds all that lies in memory for keys of a process, whatever it is, except
// what is in public: nothing of it may be in other memory, and once the keys are gone,
// in any.
func (s *Set) AddKept(pid int, name string, public *Set) error {
	regions, err := Regions(pid)
	if err != nil {
		return err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return err
	}
	defer mem.Close()
	for _, r := range regions {
		if !r.Kept() {
			continue
		}
		b := make([]byte, r.To-r.From)
		if _, err := mem.ReadAt(b, int64(r.From)); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
		for c := range slices.Chunk(b, chunk) {
			if public == nil || !public.has(c) {
				s.AddBytes(name, c)
			}
		}
	}
	return nil
}
