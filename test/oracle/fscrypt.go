package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keyway/fscrypt"
)

// A Key is a master key of fscrypt.
type Key struct {
	Raw        []byte
	Descriptor []byte // of policies v1; nil for those of v2
}

func keyLines(keys []Key) string {
	var s strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&s, "%x", k.Raw)
		if k.Descriptor != nil {
			fmt.Fprintf(&s, " %x", k.Descriptor)
		}
		s.WriteByte('\n')
	}
	return s.String()
}

// A Mount is a file system that the guest shall read.
type Mount struct {
	Kind   string   // ext4 or f2fs
	Disks  []string // files
	Table  string   // in which {a} is the first disk, {b} the second; "": the first disk itself
	Keys   []Key
	List   []string // directories whose names are wanted, with all that is below them
	Ranges []Range
}

// A Range is Len bytes from Off on of the file at Path, which has them.
type Range struct {
	Path     string
	Off, Len int64
}

// Seen is what the guest saw of a Mount.
type Seen struct {
	Names []Name   // what Mount.List asks for, each directory included
	Data  [][]byte // of each range
}

// A Name is one name, and what it is of.
type Name struct {
	Type  byte // as find prints it: f, d, l
	Inode uint64
	Size  int64
	Path  string
}

// Read boots the guest, which mounts all of it, read-only, one after the other. The
// stock kernel of Debian 12 has no HCTR2, no SM4, and no data units smaller than a
// block: files of such policies must not be among what it shall read, and directories
// not among those that it shall list, since it asks for a module for each of them.
func Read(tb testing.TB, mounts []Mount) []Seen {
	tb.Helper()
	job := map[string]string{}
	var disks []string
	for i, m := range mounts {
		place := func(name, text string) { job[fmt.Sprintf("%03d/%s", i, name)] = text }
		table, first := m.Table, ""
		for n, d := range m.Disks {
			at := fmt.Sprintf("/dev/vd%c", 'a'+len(disks))
			disks = append(disks, d)
			table = strings.ReplaceAll(table, fmt.Sprintf("{%c}", 'a'+n), at)
			if n == 0 {
				first = at
			}
		}
		place("mount", m.Kind+" "+first+"\n")
		if table != "" {
			table += "\n"
		}
		place("table", table)
		place("keys", keyLines(m.Keys))
		var list strings.Builder
		for _, dir := range m.List {
			list.WriteString(dir + "\x00")
		}
		place("list", list.String())
		var s strings.Builder
		for _, r := range m.Ranges {
			fmt.Fprintf(&s, "%s\t%d\t%d\n", r.Path, r.Off, r.Len)
		}
		place("ranges", s.String())
	}
	out := boot(tb, "fscrypt-read.sh", job, disks)
	seen := make([]Seen, len(mounts))
	for i, m := range mounts {
		file := func(name string) []byte {
			b, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%03d.%s", i, name)))
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		data := file("data")
		for _, r := range m.Ranges {
			seen[i].Data = append(seen[i].Data, data[:r.Len:r.Len])
			data = data[r.Len:]
		}
		for l := range strings.SplitSeq(string(file("names")), "\x00") {
			f := strings.SplitN(l, "\t", 4)
			if len(f) < 4 {
				continue
			}
			n := Name{Type: f[0][0], Path: f[3]}
			n.Inode, _ = strconv.ParseUint(f[1], 10, 64)
			n.Size, _ = strconv.ParseInt(f[2], 10, 64)
			seen[i].Names = append(seen[i].Names, n)
		}
	}
	return seen
}

// A Layout is an ext4 that the guest shall make.
type Layout struct {
	Mkfs        string // options of mke2fs beside "-O encrypt,stable_inodes"
	Keys        []Key
	Directories []Directory // in this order: those above others first
	Files       []File
	Commands    []string // of the guest's shell, run in the root directory after all that
}

// A Directory is one with a policy of its own, or with that of the one above.
type Directory struct {
	Path   string
	Policy *fscrypt.Policy
}

// A File has Len bytes of the pattern "mix" at Off, and holes around it.
type File struct {
	Path     string
	Off, Len int64
	Seed     uint64
	Size     int64 // of the file, if it goes on behind that
}

// Make boots the guest, which makes l on image, a file that is as large as the
// file system shall be, and unmounts it.
func Make(tb testing.TB, image string, l Layout) {
	tb.Helper()
	var dirs, files, sizes strings.Builder
	for _, d := range l.Directories {
		policy := ""
		if d.Policy != nil {
			policy = fmt.Sprintf("%x", d.Policy.Bytes())
		}
		fmt.Fprintf(&dirs, "%s\t%s\n", d.Path, policy)
	}
	for _, f := range l.Files {
		fmt.Fprintf(&files, "write\t%s\t%d\t%d\t%d\tmix\n", f.Path, f.Off, f.Len, f.Seed)
		if f.Size > f.Off+f.Len {
			fmt.Fprintf(&sizes, "%s\t%d\n", f.Path, f.Size)
		}
	}
	commands := strings.Join(l.Commands, "\n")
	if commands != "" {
		commands += "\n"
	}
	boot(tb, "fscrypt-make.sh", map[string]string{
		"options": fmt.Sprintf("MKFS=%q\n", l.Mkfs), "keys": keyLines(l.Keys), "directories": dirs.String(),
		"files": files.String(), "sizes": sizes.String(), "commands": commands,
	}, []string{image})
}
