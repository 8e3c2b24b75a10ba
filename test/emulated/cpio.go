package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An archive is an initramfs: cpio in the "newc" format, as Linux's
// Documentation/driver-api/early-userspace/buffer-format.rst has it.
type archive struct {
	buf  bytes.Buffer
	dirs []string
	ino  int
}

func (a *archive) entry(name string, mode uint32, content []byte) {
	a.ino++
	name += "\x00"
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s",
		a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0, name)
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

// dir adds a directory and those above it. name has no leading slash.
func (a *archive) dir(name string) {
	if name == "." || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(filepath.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, 0o040755, nil)
}

// file adds content as name.
func (a *archive) file(name string, mode fs.FileMode, content []byte) {
	a.dir(filepath.Dir(name))
	a.entry(name, 0o100000|uint32(mode.Perm()), content)
}

// copy adds the file at path as name.
func (a *archive) copy(name, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	a.file(name, st.Mode(), content)
	return nil
}

// sources adds what tests of a package read in their working directory: its
// files and testdata, as name. Other directories are other packages.
func (a *archive) sources(name, dir string) error {
	a.dir(name)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		top, _, _ := strings.Cut(rel, "/")
		switch {
		case d.IsDir() && top != "testdata":
			return fs.SkipDir
		case d.Type().IsRegular():
			return a.copy(name+"/"+rel, path)
		}
		return nil
	})
}

// end returns the whole.
func (a *archive) end() []byte {
	a.entry("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
