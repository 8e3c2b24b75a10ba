package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"keyway/internal/invariant"
)

// clientDir holds the keyway that tests call as a client. Under the race detector,
// which needs most of a second to start a process, it is one without: the daemon is
// what races.
var clientDir = sync.OnceValues(func() (string, error) {
	if !invariant.Enabled {
		bin, err := exec.LookPath("keyway")
		return filepath.Dir(bin), err
	}
	dir, err := os.MkdirTemp("", "kwclient")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "keyway"), ".").CombinedOutput()
	os.Stderr.Write(out)
	return dir, err
})

// clientPath is a PATH on which keyway is the client.
func clientPath(tb testing.TB) string {
	tb.Helper()
	dir, err := clientDir()
	if err != nil {
		tb.Fatal(err)
	}
	return dir + string(os.PathListSeparator) + os.Getenv("PATH")
}

// removeClient is called when all tests have ended.
func removeClient() {
	if !invariant.Enabled {
		return
	}
	if dir, err := clientDir(); err == nil {
		os.RemoveAll(dir)
	}
}
