package keysource

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script writes an executable shell script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := write(t, "helper", []byte("#!/bin/sh\n"+text+"\n"))
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProgramsGiveKeys(t *testing.T) {
	key := write(t, "k", theKey)
	gives(t, &Env{}, theKey, "exec:"+script(t, "cat "+key))
	gives(t, &Env{}, theKey, "exec:/bin/cat", key)
	gives(t, &Env{}, theKey, "exec:/bin/cat?arg="+key)
	// Arguments as they are.
	gives(t, &Env{}, []byte("$HOME;|a b|*|"), "exec:"+script(t, `printf '%s|' "$@"`), "$HOME;", "a b", "*")
	gives(t, &Env{}, theKey, "exec:"+script(t, "echo "+hex.EncodeToString(theKey))+"?encoding=hex")
	gives(t, &Env{}, []byte("done"), "exec:"+script(t, "cat; printf done")) // nothing to read
	// What is left behind of its group does not hold the key up.
	gives(t, &Env{}, []byte("done"), "exec:"+script(t, "sleep 1000 & printf done"))
}

func TestProgramsThatFail(t *testing.T) {
	exit := func(text string) string { return "exec:" + script(t, text) }
	refuses(t, &Env{}, `exit status 3: "no such token"`, "", exit("echo no such token >&2; exit 3"))
	refuses(t, &Env{}, "exit status 1", "", exit("exit 1"))
	refuses(t, &Env{}, "signal: killed", "", exit("kill -9 $$"))
	refuses(t, &Env{}, `it printed nothing: "locked"`, "", exit("echo locked >&2"))
	refuses(t, &Env{}, "has more than 16384 bytes", "", exit("yes"))
	refuses(t, &Env{}, "has more than 4096 bytes", "", exit("head -c 5000 /dev/zero"))
	// A key that came is none if the program failed.
	key := write(t, "k", theKey)
	refuses(t, &Env{}, "exit status 1", "", exit("cat "+key+"; exit 1"))
	refuses(t, &Env{}, "(withheld: it repeats what was printed)", "", exit("cat "+key+"; cat "+key+" >&2; exit 1"))
	for _, digits := range []string{"%02x", "%02X"} {
		said := "echo '" + fmt.Sprintf(digits, theKey) + "' >&2; exit 1"
		refuses(t, &Env{}, "(withheld", "", exit("cat "+key+"; "+said))
	}
	// The end of what it says is told, printable and on one line.
	s := parse(t, exit(`i=0; while [ $i -lt 400 ]; do echo "line $i" >&2; i=$((i+1)); done; printf '\033[31mend\n' >&2; exit 1`))
	_, err := s.Read(t.Context(), &Env{})
	if err == nil || len(err.Error()) > 1300 || !strings.HasSuffix(err.Error(), `line 399 [31mend"`) || strings.ContainsAny(err.Error(), "\n\x1b") {
		t.Errorf("%v", err)
	}

	refuses(t, &Env{}, "no such file", "", "exec:/nothere")
	refuses(t, &Env{}, "is a directory", "name the file", "exec:/tmp")
	refuses(t, &Env{}, "is not executable (mode 0600)", "chmod", "exec:"+write(t, "x", []byte("#!/bin/sh\n")))
	open := script(t, "cat "+key)
	os.Chmod(open, 0o722)
	refuses(t, &Env{}, "every user may change it (mode 0722)", "chmod", "exec:"+open)
	bad := write(t, "x", []byte("nothing that runs"))
	os.Chmod(bad, 0o700)
	refuses(t, &Env{}, "cannot run it: exec format error", "", "exec:"+bad)
}

// alive reports whether a process is there and has not ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// With its time over, and with its context, a program ends and all that it has
// started with it; what of it ignores signals as well.
func TestProgramsAreKilledWithTheirChildren(t *testing.T) {
	pids := fifo(t)
	text := `trap '' TERM INT HUP; sh -c 'trap "" TERM; while :; do sleep 1000; done' & echo $$ $! >` + pids + `; wait`
	s := parse(t, "exec:"+script(t, text))
	why := errors.New("enough of it")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Read(ctx, &Env{})
		done <- err
	}()
	b, err := os.ReadFile(pids) // waits until both run
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(word)
		if !alive(pid) {
			t.Fatalf("process %d of %q does not run: the test is blind", pid, b)
		}
	}
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	for _, word := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(word)
		for end := time.Now().Add(time.Minute); alive(pid); { // killed it is; gone a moment later
			if time.Now().After(end) {
				t.Fatalf("process %d lives on", pid)
			}
		}
	}
}

func TestProgramsHaveATimeLimit(t *testing.T) {
	c := command{path: script(t, "echo waiting >&2; sleep 1000"), max: 10}
	for c.limit = 50 * time.Millisecond; ; c.limit *= 2 { // a busy machine takes long to begin with the script
		_, err := c.run(t.Context())
		if err != nil && strings.HasSuffix(err.Error(), fmt.Sprintf(`it is killed: not done within %v: "waiting"`, c.limit)) {
			break
		}
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint("not done within ", c.limit)) || c.limit > time.Minute {
			t.Fatalf("%v", err)
		}
	}
	c.limit = 100 * time.Millisecond
	// One that has closed its output, and one whose child has left the group with it.
	c.path = script(t, "exec >&-; sleep 1000")
	if _, err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "not done within 100ms") {
		t.Errorf("%v", err)
	}
}

func TestProgramsInheritNothing(t *testing.T) {
	f, err := os.Open(write(t, "k", theKey))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd())) // without FD_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Setenv("NOTIFY_SOCKET", "/x")
	t.Setenv("VAULT_ADDR", "http://localhost")
	list := script(t, "cd /proc/self/fd; echo * | tr -d '\\n'; echo \" $NOTIFY_SOCKET$VAULT_ADDR\"")
	b, err := parse(t, "exec:"+list).Read(t.Context(), &Env{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Wipe()
	// The shell's own is the directory, or the script.
	got := strings.Fields(string(b.Bytes()))
	for _, n := range got[:len(got)-1] {
		if i, err := strconv.Atoi(n); err != nil || i == fd {
			t.Errorf("descriptors %q: %d has been inherited", got, fd)
		}
	}
	if got[len(got)-1] != "http://localhost" {
		t.Errorf("environment: %q", got)
	}
	link, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if err != nil || !strings.HasSuffix(link, "/k") {
		t.Errorf("the descriptor is not open here: the test is blind (%v)", err)
	}
}
