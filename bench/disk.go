package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyway/internal/measure"
	"keyway/test/spawn"
)

// Ways to serve the data of one LUKS2 image. The first is what the others are
// measured by: the table that a user of dm-crypt would write, without a header. The
// second is the same once more, by which one sees what the measurement is worth.
var diskWays = []string{"crypt table", "the same again", "luks open", "serve IMAGE"}

// diskOffset is where the data of a LUKS2 image begins, in bytes.
const diskOffset = 16 << 20

// A diskSample is one run.
type diskSample struct {
	Sector int // bytes
	Way    string
	Load   string
	Round  int
	sample
}

// A diskReport compares LUKS2 disks with crypt tables.
type diskReport struct {
	Machine string
	Started time.Time
	Size    int64 // bytes of each disk
	Rounds  int
	Seconds float64 // of one run
	Env     string  // of the second way
	Noise   float64 `json:"processors_used_by_others"`
	Sectors []int
	Loads   []string
	Samples []diskSample
	Aims    []measure.Aim
}

// runDisks measures LUKS2 disks beside tables.
func runDisks(o options, loads []workload) error {
	r := diskReport{Machine: measure.Machine(), Started: time.Now().UTC(), Size: o.size, Rounds: o.rounds, Seconds: o.time.Seconds(), Env: o.env, Sectors: []int{512, 4096}}
	for _, w := range loads {
		r.Loads = append(r.Loads, w.name)
	}
	var noise []float64
	for _, sector := range r.Sectors {
		servers, err := startDisks(o, sector)
		if err == nil {
			err = r.measure(o, sector, servers, loads)
		}
		for _, s := range servers {
			s.stop()
		}
		if err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(o.dir, fmt.Sprint("luks", sector))); err != nil {
			return err
		}
	}
	for _, s := range r.Samples {
		noise = append(noise, s.Foreign)
	}
	r.Noise = measure.Median(noise)
	r.aims()
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		return e.Encode(r)
	}
	r.markdown(os.Stdout)
	return nil
}

func (r *diskReport) measure(o options, sector int, servers []*server, loads []workload) error {
	for _, w := range loads {
		for round := range o.rounds {
			for _, i := range mathrand.Perm(len(servers)) {
				s := servers[i]
				if o.progress {
					fmt.Fprintf(os.Stderr, "\r%d-byte sectors, %-16s round %d/%d  %-16s", sector, w.name, round+1, o.rounds, s.name)
				}
				m, err := runOnce(w, s)
				if err != nil {
					return errors.Join(fmt.Errorf("%s on %s: %w", w.name, s.name, err), s.diagnosis())
				}
				r.Samples = append(r.Samples, diskSample{sector, s.name, w.name, round, m})
			}
		}
	}
	if o.progress {
		fmt.Fprintf(os.Stderr, "\r%80s\r", "")
	}
	return nil
}

// startDisks serves copies of one image in every way, and sees that all have the same
// data. The servers that run are returned also with an error.
func startDisks(o options, sector int) (servers []*server, err error) {
	dir := filepath.Join(o.dir, fmt.Sprint("luks", sector))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d := disks{o, dir, filepath.Join(dir, "image"), filepath.Join(dir, "passphrase"), filepath.Join(dir, "key"), sector}
	if err := d.make(); err != nil {
		return nil, err
	}
	var sum []byte
	var table string
	for i, way := range diskWays {
		s := &server{name: way, export: "disk", sock: filepath.Join(dir, fmt.Sprint(i, ".sock"))}
		row, err := d.serve(s, i)
		if err != nil {
			return servers, fmt.Errorf("%s: %w", way, err)
		}
		servers = append(servers, s)
		// What is measured is what lies around it.
		if table == "" {
			table = row
		} else if row != table {
			return servers, fmt.Errorf("%s has the table %q, and %s %q", way, row, diskWays[0], table)
		}
		got, err := sumOf(s)
		if err != nil {
			return servers, err
		}
		if sum == nil {
			sum = got
		} else if !bytes.Equal(sum, got) {
			return servers, fmt.Errorf("%s has other data than %s", way, diskWays[0])
		}
	}
	return servers, os.Remove(d.image)
}

// disks is what is needed to serve an image.
type disks struct {
	o                     options
	dir, image, pass, key string
	sector                int
}

// make makes the image, with random bytes as its data.
func (d *disks) make() error {
	key := make([]byte, 64)
	rand.Read(key)
	if err := errors.Join(os.WriteFile(d.key, key, 0o600), os.WriteFile(d.pass, []byte("a passphrase of a benchmark"), 0o600)); err != nil {
		return err
	}
	if err := fillRandom(d.image, diskOffset+d.o.size); err != nil {
		return err
	}
	return command(d.o.keyway, "luks", "format", d.image, "--yes", "--sector-size", fmt.Sprint(d.sector), "--offset", fmt.Sprint(diskOffset/512),
		"--key-file", d.pass, "--volume-key-file", d.key, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
}

// serve starts a daemon of its own on a copy of the image of its own. It returns the
// table that serves the data, without the names of key and file.
func (d *disks) serve(s *server, n int) (table string, err error) {
	dir := filepath.Join(d.dir, fmt.Sprint("d", n))
	image, control := filepath.Join(dir, "disk.img"), filepath.Join(dir, "control.sock")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := command("cp", "--sparse=never", d.image, image); err != nil {
		return "", err
	}
	ready, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		return "", err
	}
	args := []string{d.o.keyway, "serve", "--socket", control}
	if s.name == "serve IMAGE" { // the export has the image's name
		args = append(args, image, "--key-file", d.pass, "--nbd", "unix:"+s.sock)
	} else {
		config := filepath.Join(dir, "keyway.toml")
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			return "", err
		}
		args = append(args, "--config", config, "--state", filepath.Join(dir, "state"))
	}
	env := []string{ready.Env()}
	if s.name == diskWays[1] && d.o.env != "" {
		env = append(env, d.o.env)
	}
	if err := s.launch(env, ready, args...); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	cli := func(args ...string) error { return command(d.o.keyway, append(args, "--socket", control)...) }
	switch s.name {
	case "serve IMAGE":
	case "luks open":
		err = cli("luks", "open", image, "disk", "--key-file", d.pass)
	default:
		file := filepath.Join(dir, "table")
		if err := os.WriteFile(file, []byte(d.table(image)), 0o600); err != nil {
			return "", err
		}
		if err = cli("key", "add", "k", "--mode", "AES-256-XTS", "--data-unit", fmt.Sprint(d.sector), "--file", d.key); err == nil {
			err = cli("create", "disk", "--table", file)
		}
	}
	if err == nil && s.name != "serve IMAGE" {
		err = cli("export", "add", "disk", "--nbd", "unix:"+s.sock, "--name", "disk")
	}
	if err != nil {
		return "", err
	}
	out, err := output(d.o.keyway, "table", "disk", "--socket", control)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("luks-disk", "KEY", ":k ", ":KEY ", dir, "DIR").Replace(string(out)), nil
}

// table is what one writes by hand for the data of the image.
func (d *disks) table(image string) string {
	options := ""
	if d.sector != 512 {
		options = fmt.Sprintf(" 1 sector_size:%d", d.sector)
	}
	return fmt.Sprintf("0 %d crypt aes-xts-plain64 :64:logon:k 0 %s %d%s\n", d.o.size/512, image, diskOffset/512, options)
}

// sumOf is a digest of all that a server serves.
func sumOf(s *server) ([]byte, error) {
	path := s.sock + ".copy"
	defer os.Remove(path)
	if err := command("nbdcopy", s.uri(), path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// rounds are the figures of one way under one load, in order.
func (r *diskReport) rounds(sector int, way, load string, f func(sample) float64) (v []float64) {
	for _, s := range r.Samples {
		if s.Sector == sector && s.Way == way && s.Load == load {
			v = append(v, f(s.sample))
		}
	}
	return v
}

// ratios are those of the rounds to the table's.
func (r *diskReport) ratios(sector int, way, load string, f func(sample) float64) []float64 {
	x, y := r.rounds(sector, way, load, f), r.rounds(sector, diskWays[0], load, f)
	for i := range x {
		x[i] /= y[i]
	}
	return x
}

// cost is the processor time for a GiB, over all rounds: that of one is a few ticks.
func (r *diskReport) cost(sector int, way, load string) float64 {
	seconds, gib := 0.0, 0.0
	for _, s := range r.Samples {
		if s.Sector == sector && s.Way == way && s.Load == load {
			gib += s.bytes / (1 << 30)
			seconds += s.CPU * s.bytes / (1 << 30)
		}
	}
	return seconds / gib
}

// aims are that a LUKS2 disk is as fast as the table, within what such a measurement
// can tell, and costs no more: over all rounds of all workloads.
func (r *diskReport) aims() {
	for _, sector := range r.Sectors {
		where := fmt.Sprintf("%d-byte sectors", sector)
		for _, way := range diskWays[1:] {
			var all, costs []float64
			for _, l := range r.Loads {
				f, _ := speed(l)
				all = append(all, r.ratios(sector, way, l, f)...)
				costs = append(costs, r.cost(sector, way, l)/r.cost(sector, diskWays[0], l))
			}
			r.Aims = append(r.Aims,
				measure.AtLeast(way+": throughput, times the table's", where, measure.Median(all), 0.97),
				measure.Below(way+": processor time, times the table's", where, measure.Median(costs), 1.03))
		}
	}
}

func (r *diskReport) markdown(w io.Writer) {
	p := func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	p("# A LUKS2 disk beside a crypt table\n\n%s.\n", r.Machine)
	p("Unix socket, aes-xts-plain64, copies of one image with %d MiB of data in memory, %d rounds of %.2g s by turns; medians, and medians of the rounds' ratios to the table. "+
		"Processor time is that of all rounds. Other processes used %.0f %% of a processor (median).", r.Size>>20, r.Rounds, r.Seconds, 100*r.Noise)
	if r.Noise > 0.25 {
		p(" **The machine was busy: look at the ratios and the processor time alone.**")
	}
	if r.Env != "" {
		p(" The second has %s in its environment.", r.Env)
	}
	p("\n\n| sector | workload |")
	for _, way := range diskWays {
		p(" %s |", way)
	}
	p(" processor seconds for a GiB | 99th percentile, µs |\n|---:|---|%s---|---|\n", strings.Repeat("---|", len(diskWays)))
	for _, sector := range r.Sectors {
		for _, l := range r.Loads {
			f, unit := speed(l)
			p("| %d | %s, %s |", sector, l, unit)
			var costs, late []string
			for i, way := range diskWays {
				p(" %s", measure.Figure(measure.Median(r.rounds(sector, way, l, f))))
				if i > 0 {
					p(" (%.3f)", measure.Median(r.ratios(sector, way, l, f)))
				}
				p(" |")
				costs = append(costs, measure.Figure(r.cost(sector, way, l)))
				late = append(late, measure.Figure(measure.Median(r.rounds(sector, way, l, p99))))
			}
			p(" %s | %s |\n", strings.Join(costs, " · "), strings.Join(late, " · "))
		}
	}
	measure.WriteAims(w, r.Aims)
}
