package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

func fsImage(t *testing.T, kind, name string) *fsimages.FileSystem {
	t.Helper()
	for _, f := range fsimages.All(t, kind) {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no image %s", name)
	return nil
}

// fsFiles writes the disks of a fixture to dir, and for each directory its master key as
// DIRECTORY.key.
func fsFiles(t *testing.T, dir, kind, name string) *fsimages.FileSystem {
	t.Helper()
	f := fsImage(t, kind, name)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for disk := range f.Disks {
		write(name+"."+disk+".img", f.Disk(t, disk))
	}
	for _, d := range f.Directories {
		write(d.Path+".key", fixtures.Hex(d.MasterKey))
	}
	return f
}

// cmdFsImage is "fsimage KIND NAME"; $DESCRIPTOR is that of the directories of v1.
func cmdFsImage(t *testing.T, ts *testscript.TestScript, args []string) {
	f := fsFiles(t, ts.MkAbs("."), args[0], args[1])
	for _, d := range f.Directories {
		if d.Path == "v1-xts" {
			ts.Setenv("DESCRIPTOR", d.Descriptor)
		}
	}
	for _, file := range f.Files {
		if file.Path == "xts/p50000" {
			ts.Setenv("NOKEY", file.NoKeyName)
			ts.Check(os.WriteFile(ts.MkAbs("p50000.want"), plainOf(file), 0o600))
		}
	}
}

func plainOf(f fsimages.File) []byte {
	b := make([]byte, f.Size)
	for _, p := range f.Pieces {
		copy(b[p.Offset:], p.Plain())
	}
	return b
}

// Every directory of every fixture that is one disk, from an image, behind engines that
// serve it and that do not.
func TestFscryptCatReadsWhatLinuxWrote(t *testing.T) {
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, name, engine string }{{"ext4", "ext4-4k", "ufs?slots=2"}, {"ext4", "ext4-1k", "none"}, {"f2fs", "f2fs", "cpu"}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			f := fsFiles(t, dir, c.kind, c.name)
			args := []string{"fscrypt", "cat", c.name + ".a.img", "--engine", c.engine}
			seen := map[string]bool{}
			for _, d := range f.Directories {
				key := "./" + d.Path + ".key"
				if d.PolicyVersion == 1 {
					key = d.Descriptor + "=" + key
				}
				if !seen[d.MasterKey+d.Descriptor] {
					seen[d.MasterKey+d.Descriptor] = true
					args = append(args, "--key", key)
				}
			}
			var want []byte
			for _, file := range f.Files {
				if file.Size < 1<<20 { // others are sparse
					args, want = append(args, file.Path), append(want, plainOf(file)...)
				}
			}
			cmd := exec.Command(bin, args...)
			cmd.Dir = dir
			var errs bytes.Buffer
			cmd.Stderr = &errs
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v, %d bytes, want %d\n%s", err, len(got), len(want), errs.String())
			}
		})
	}
}

// Whoever reads no more ends cat and export as it ends others: by SIGPIPE.
func TestFscryptEndsWithItsReader(t *testing.T) {
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fsFiles(t, dir, "ext4", "ext4-1k")
	for _, args := range [][]string{{"cat", "ext4-1k.a.img", "xts/far"}, {"export", "ext4-1k.a.img", "xts"}} {
		cmd := exec.Command(bin, append(append([]string{"fscrypt"}, args...), "--key", "./xts.key")...)
		cmd.Dir = dir
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		out.Close()
		err = cmd.Wait()
		st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !ok || !st.Signaled() || st.Signal() != syscall.SIGPIPE || errs.Len() > 0 {
			t.Errorf("%v: %v, %q; want SIGPIPE and nothing printed", args, err, errs.String())
		}
	}
}

// An export that is interrupted leaves no half of a file.
func TestFscryptExportInterrupted(t *testing.T) {
	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	fsFiles(t, dir, "ext4", "ext4-1k")
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"-C", "-o"} {
		where := map[string]string{"-C": "out", "-o": "out/files.tar"}[to]
		cmd := exec.Command(bin, "fscrypt", "export", "ext4-1k.a.img", "xts/far", "--key", "./xts.key", to, where) // 5 GiB, most of it holes
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun := false
		for end := time.Now().Add(time.Minute); !begun && time.Now().Before(end); time.Sleep(time.Millisecond) {
			all, err := filepath.Glob(filepath.Join(out, ".keyway-*"))
			begun = err != nil || len(all) > 0
		}
		cmd.Process.Signal(syscall.SIGINT)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); !begun || code != 1 {
			t.Errorf("%s: begun %v, status %d, want 1", to, begun, code)
		}
		if all, err := os.ReadDir(out); err != nil || len(all) > 0 {
			t.Errorf("%s: left are %v, %v", to, all, err)
		}
	}
}

func TestFscryptPrintsNoControlCharacters(t *testing.T) {
	for name, want := range map[string]string{
		"a b": "a b", "ключ-é-鍵": "ключ-é-鍵", "a\nb": `a\nb`, "\x1b[2J": `\x1b[2J`, "x\xff": `x\xff`, `a\n`: `a\\n`, "\u202e": `\u202e`,
	} {
		if got := printable(name); got != want {
			t.Errorf("%q is printed as %s, want %s", name, got, want)
		}
	}
}

func TestPermissionsAreWrittenAsByLs(t *testing.T) {
	for mode, want := range map[uint32]string{0o644: "rw-r--r--", 0o4755: "rwsr-xr-x", 0o2604: "rw---Sr--", 0o1777: "rwxrwxrwt", 0o1000: "--------T"} {
		if got := permissions(mode); got != want {
			t.Errorf("%o: %s, want %s", mode, got, want)
		}
	}
}

func TestMasterKeysAreNamedStrictly(t *testing.T) {
	keys, err := parseMasterKeys([]string{"0123456789ABCDEF=./a.key", "wrapped=file:b", "./c=d", "-"})
	if err != nil {
		t.Fatal(err)
	}
	if keys[0].Descriptor != "0123456789abcdef" || !keys[1].Wrapped || keys[2].Descriptor != "" || !strings.HasSuffix(keys[2].Source, "c=d") {
		t.Errorf("%+v %+v %+v", keys[0], keys[1], keys[2])
	}
	pasted := strings.Repeat("0f", 64)
	for word, want := range map[string]string{
		"0123=./a.key": "has 16 hex digits, and 4 are there", pasted: "known scheme", pasted + "=": "128 are there", "user.key": "known scheme", "": "is empty",
		"wrapped=": "is empty",
	} {
		_, err := parseMasterKeys([]string{word})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), pasted[:20]) {
			t.Errorf("%q: %v, want %q", word, err, want)
		}
	}
}
