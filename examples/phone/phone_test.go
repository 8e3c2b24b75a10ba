// The example tells its story by commands that run, and checks every claim itself.
package phone_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyway/internal/invariant"
	"keyway/test/harness"
)

func TestMain(m *testing.M) {
	if invariant.Enabled {
		os.Exit(m.Run())
	}
	harness.Main(m)
}

// story runs the example as it stands in dir, whose parent's parent is the repository.
func story(t *testing.T, script string) (string, error) {
	t.Helper()
	tmp := harness.Dir(t)
	cmd := exec.Command(script)
	cmd.Env = append(os.Environ(), "KEYWAY="+harness.Binary(t), "TMPDIR="+tmp)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	harness.Spawn(t, cmd)
	err := cmd.Wait()
	if left, e := os.ReadDir(tmp); e != nil || len(left) > 0 {
		t.Errorf("it leaves %v behind (%v)", left, e)
	}
	return out.String(), err
}

func TestStoryIsTrue(t *testing.T) {
	if invariant.Enabled {
		t.Skip("runs a binary of its own, which is the same without the race detector")
	}
	out, err := story(t, filepath.Join(harness.Root(), "examples/phone/run"))
	if err != nil || !strings.HasSuffix(out, "\nAll of it is true.\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
