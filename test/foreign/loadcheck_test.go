package foreign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/harness"
	"keyway/test/naive"
)

// wantEnginesUsed checks that every engine and the fallback had work.
func (w *world) wantEnginesUsed() {
	w.do("crypto", func(ctx context.Context) error {
		for _, e := range loadEngines[:3] { // fmp has no slots to program
			x, err := w.c.Crypto(ctx, e.leaf)
			if err != nil {
				return err
			}
			for _, k := range x.Engines {
				if k.Programs < 4 || k.Failures > 0 || k.Quarantined > 0 {
					return fmt.Errorf("%s (fallback if %q is not a leaf): %+v", e.leaf, k.Device, k)
				}
			}
		}
		return nil
	})
}

// wantCiphertext compares the leaves with the independent XTS of what the volumes
// read.
func (w *world) wantCiphertext(sock string, g *guest) {
	for _, v := range []struct {
		name string
		sock string
		size int
		key  []byte
		at   func(unit int) (leaf string, off int64)
	}{
		{"vol", sock, volume, testKey(21), func(u int) (string, int64) { return w.now.leaf[u*4096/areaSize], int64(u) * 4096 }},
		{"guest", g.sock, guestSize, g.key, func(u int) (string, int64) {
			return loadEngines[u*4096/guestArea].leaf, volume + int64(u)*4096
		}},
	} {
		c := dial(w.t, v.sock, v.name)
		flush(w.t, c)
		want := read(w.t, c, 0, v.size)
		if v.name == "guest" && !bytes.Equal(want, g.want) {
			w.t.Errorf("the second volume differs from what was written at byte %d", firstDifference(want, g.want))
		}
		files := map[string]*os.File{}
		for leaf, path := range w.files {
			f, err := os.Open(path)
			if err != nil {
				w.t.Fatal(err)
			}
			defer f.Close()
			files[leaf] = f
		}
		got := make([]byte, 4096)
		for u := range v.size / 4096 {
			naive.Encrypt(v.key, uint64(u), want[u*4096:(u+1)*4096])
			leaf, off := v.at(u)
			if _, err := files[leaf].ReadAt(got, off); err != nil {
				w.t.Fatal(err)
			}
			if !bytes.Equal(got, want[u*4096:(u+1)*4096]) {
				w.t.Fatalf("%s: data unit %d on leaf %q differs from the independent ciphertext", v.name, u, leaf)
			}
		}
	}
}

// fioCounts is what fio did.
type fioCounts struct{ rounds, writes, reads int64 }

func (c *fioCounts) add(o fioCounts) {
	c.rounds, c.writes, c.reads = c.rounds+o.rounds, c.writes+o.writes, c.reads+o.reads
}

// fioJobs runs jobs of random writes, each on an area of half of the volume and a
// connection of its own, which are read back and verified, some at once and the rest
// at the end.
func fioJobs(t *testing.T, uri string, half, round int) (c fioCounts) {
	blocks := [][]string{{"--bs=4k"}, {"--bsrange=4096-65536", "--blockalign=4096"}, {"--bs=16k"}}[round%3]
	out := filepath.Join(harness.Dir(t), "fio.json")
	r := harness.ToolFor(t, 3*time.Minute, nil, "fio", append([]string{
		"--name=load", "--ioengine=nbd", "--uri=" + uri, "--thread", "--numjobs=2", "--group_reporting",
		fmt.Sprint("--size=", areaSize), fmt.Sprint("--offset=", half*volume/2), fmt.Sprint("--offset_increment=", areaSize), "--rw=randwrite", "--loops=48", "--iodepth=16",
		"--verify=" + []string{"crc32c", "md5"}[round%2], "--verify_backlog=128", "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1",
		fmt.Sprint("--randseed=", 2*round+half), "--output-format=json", "--output=" + out,
	}, blocks...)...)
	text, err := os.ReadFile(out)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit status %d", r.Code)
	}
	var x struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				IOs     int64 `json:"total_ios"`
				Short   int64 `json:"short_ios"`
				Dropped int64 `json:"drop_ios"`
			}
		}
	}
	if i := bytes.IndexByte(text, '{'); err == nil { // after what the engines of fio say
		err = json.Unmarshal(text[max(i, 0):], &x)
	}
	if err == nil && len(x.Jobs) == 0 {
		err = errors.New("no job is reported")
	}
	for _, j := range x.Jobs {
		if j.Error != 0 || j.Read.Short+j.Write.Short+j.Read.Dropped+j.Write.Dropped != 0 {
			err = fmt.Errorf("%+v", j)
		}
		c.writes += j.Write.IOs
		c.reads += j.Read.IOs
	}
	// fio reports some failed verifications with status 0, on standard error.
	if said := r.Stdout + r.Stderr; err != nil || strings.Contains(said, "verify") || strings.Contains(said, "error") {
		t.Errorf("fio, half %d, round %d: %v\n%s%s%s", half, round, err, r.Stdout, r.Stderr, text)
	}
	c.rounds = 1
	return c
}
