package memory

import (
	"debug/elf"
	"fmt"
	"io"
	"os/exec"
	"slices"
)

// registers is the name of where those of all threads are in a core file: its notes.
const registers = "registers of the threads"

// Core scans a core file of a process whose mappings are given, with its notes, in
// which the registers of all threads are.
func Core(path string, regions []Region, s *Set) (*Report, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rep := &Report{}
	for _, p := range f.Progs {
		in := Region{From: p.Vaddr, To: p.Vaddr + p.Filesz, Perm: "----", Name: registers}
		if p.Type == elf.PT_LOAD {
			in.Name = "not a mapping"
			if i := slices.IndexFunc(regions, func(r Region) bool { return r.From <= p.Vaddr && p.Vaddr < r.To }); i >= 0 {
				in = regions[i]
			}
		}
		if _, err := rep.stream(io.NewSectionReader(p, 0, int64(p.Filesz)), p.Vaddr, in, s); err != nil {
			return nil, fmt.Errorf("%s: segment of %v: %w", path, in, err)
		}
	}
	return rep, nil
}

// Gcore writes a core file of a process by the debugger's gcore, which leaves out what
// a kernel's would, unless all is set. It returns the file's path.
func Gcore(pid int, prefix string, all bool) (string, error) {
	args := []string{"-o", prefix, fmt.Sprint(pid)}
	if all {
		args = append([]string{"-a"}, args...)
	}
	if out, err := exec.Command("gcore", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcore %d: %w\n%s", pid, err, out)
	}
	return fmt.Sprintf("%s.%d", prefix, pid), nil
}
