package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"keyway/control"
)

// stateVersion is of the state file's format: a newer one is refused, an older
// one would be converted.
const stateVersion = 1

const stateFile = "state.json"

// state is what survives the daemon, beside what its configuration declares.
// It has no key bytes: keys are read again from their files.
type state struct {
	Version int              `json:"version"`
	Devices []deviceSpec     `json:"devices"`
	Keys    []keySpec        `json:"keys"`
	Exports []control.Export `json:"exports"`
}

// A deviceSpec is what makes a device.
type deviceSpec struct {
	Name      string     `json:"name"`
	UUID      string     `json:"uuid,omitempty"`
	Backend   string     `json:"backend,omitempty"` // of a leaf
	Size      int64      `json:"size,omitempty"`
	Engine    string     `json:"engine,omitempty"`
	ReadOnly  bool       `json:"read_only,omitempty"` // of a leaf
	Immutable bool       `json:"immutable,omitempty"`
	Live      *tableSpec `json:"live,omitempty"`
	Inactive  *tableSpec `json:"inactive,omitempty"`
	Suspended bool       `json:"suspended,omitempty"`
	Deferred  bool       `json:"deferred_remove,omitempty"`
}

type tableSpec struct {
	Text     string `json:"text"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

type keySpec struct {
	Name     string `json:"name"`
	Mode     string `json:"mode"`
	Type     string `json:"type,omitempty"` // "": raw
	DataUnit int    `json:"data_unit"`
	DUNBytes int    `json:"dun_bytes"`
	Source   string `json:"source"`
	File     string `json:"file,omitempty"`
	Auto     bool   `json:"auto,omitempty"`
	Weak     bool   `json:"weak,omitempty"`
	From     string `json:"from,omitempty"` // what a file does not say: another source
}

// A stateDir is a state directory that this process has locked.
type stateDir struct {
	path string
	lock *os.File
	last []byte // what the file holds

	// step is called before each system call of a save, with its name; tests
	// make it fail.
	step func(name string) error
}

// openState creates the directory if it is absent and locks it against a
// second daemon.
func openState(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, hint(fmt.Errorf("state directory %s is in use by another daemon", path),
				"end that daemon, or give this one a directory of its own with --state")
		}
		return nil, fmt.Errorf("state directory %s: lock: %w", path, err)
	}
	return &stateDir{path: path, lock: f, step: func(string) error { return nil }}, nil
}

// Abandoned reports whether dir is the state directory of a daemon that ended without
// giving it up: it has a lock, which nobody holds.
func Abandoned(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (d *stateDir) close() error { return d.lock.Close() }

func (d *stateDir) file() string { return filepath.Join(d.path, stateFile) }

// load returns what was saved last; an empty state if nothing ever was.
func (d *stateDir) load() (state, error) {
	data, err := os.ReadFile(d.file())
	if errors.Is(err, fs.ErrNotExist) {
		return state{Version: stateVersion}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("state: %w", err)
	}
	s, err := parseState(data)
	if err != nil {
		err = fmt.Errorf("state file %s: %w", d.file(), err)
		way := "put a good copy in its place, or move it away to begin without devices"
		if _, bad := os.Stat(d.file() + ".bak"); bad == nil {
			way = fmt.Sprintf("the state before the last change is in %s.bak: copy it over to go back to that", d.file())
		}
		return state{}, hint(err, way)
	}
	d.last = data
	return s, nil
}

func parseState(data []byte) (state, error) {
	var v struct{ Version int }
	if err := json.Unmarshal(data, &v); err != nil {
		return state{}, fmt.Errorf("is damaged: %w", err)
	}
	if v.Version > stateVersion {
		return state{}, fmt.Errorf("has version %d, and this program knows up to %d: it was written by a newer keyway", v.Version, stateVersion)
	}
	var s state
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return state{}, fmt.Errorf("is damaged: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return state{}, errors.New("is damaged: there is more after its end")
	}
	if s.Version < 1 {
		return state{}, fmt.Errorf("is damaged: version %d", s.Version)
	}
	return s, nil
}

// save makes s what a later load returns, whenever the power fails: the whole
// of s or the whole of what was there before. The generation before stays
// beside it as .bak.
func (d *stateDir) save(s state) (err error) {
	s.Version = stateVersion
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	data = append(data, '\n')
	if bytes.Equal(data, d.last) {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("state is not saved in %s: %w", d.path, err)
		}
	}()
	tmp := d.file() + ".new"
	if err := d.write(tmp, data); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := d.keep(); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := d.step("rename"); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, d.file()); err != nil {
		os.Remove(tmp)
		return err
	}
	d.last = data
	if err := d.step("sync directory"); err != nil {
		return err
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d *stateDir) write(path string, data []byte) error {
	if err := d.step("create"); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.step("write"); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := d.step("sync"); err != nil {
		return err
	}
	return f.Sync()
}

// keep links the present generation as .bak.
func (d *stateDir) keep() error {
	if err := d.step("keep"); err != nil {
		return err
	}
	bak := d.file() + ".bak"
	if err := os.Remove(bak); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(d.file(), bak); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
