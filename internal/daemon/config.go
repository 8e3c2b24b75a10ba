package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"keyway/backend"
	"keyway/control"
	"keyway/dm"
	"keyway/internal/nearest"
	"keyway/internal/secret"
	"keyway/internal/size"
)

// A Config declares what must exist. Relative paths in the file count from its
// directory; here they are absolute.
type Config struct {
	State    string   // directory; "" if the file does not say
	Socket   string   // control socket; ""
	AllowUID []uint32 // users that may control the daemon, beside root and its own

	Connections int           // for each listener; 0: the server's default
	Memory      int64         // bytes of requests in flight, for each listener; 0: default
	Drain       time.Duration // how long clients may take to end; 0: 10 s
	KeyMemory   string        // best, locked or insecure; "" if the file does not say

	Devices []DeviceConfig
	Keys    []KeyConfig
	Exports []control.Export
}

// A DeviceConfig declares a device.
type DeviceConfig struct {
	control.Create
}

// configFile is the file as written. The tags are the valid names.
type configFile struct {
	Daemon struct {
		State     string `toml:"state"`
		Drain     string `toml:"drain-timeout"`
		KeyMemory string `toml:"key-memory"`
	} `toml:"daemon"`
	Control struct {
		Socket   string   `toml:"socket"`
		AllowUID []uint32 `toml:"allow-uid"`
	} `toml:"control"`
	Limits struct {
		Connections int `toml:"connections"`
		Memory      any `toml:"memory"`
	} `toml:"limits"`
	Device map[string]deviceTable `toml:"device"`
	Key    map[string]keyTable    `toml:"key"`
	Export map[string]exportTable `toml:"export"`
}

type deviceTable struct {
	Backend   string `toml:"backend"`
	Size      any    `toml:"size"`
	Engine    string `toml:"engine"`
	Table     string `toml:"table"`
	ReadOnly  bool   `toml:"read-only"`
	UUID      string `toml:"uuid"`
	Immutable bool   `toml:"immutable"`
}

type exportTable struct {
	Device     string `toml:"device"`
	NBD        string `toml:"nbd"`
	Name       string `toml:"name"`
	ReadOnly   bool   `toml:"read-only"`
	Cert       string `toml:"tls-cert"`
	Key        string `toml:"tls-key"`
	CA         string `toml:"tls-ca"`
	ClientAuth bool   `toml:"tls-client-auth"`
}

// ReadConfig reads the file at path.
func ReadConfig(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return ParseConfig(data, path, filepath.Dir(abs))
}

// ParseConfig reads a configuration. name is that of the file, for errors: each
// says file, line and column. Relative paths count from dir. All errors are
// reported, in order of place.
func ParseConfig(data []byte, name, dir string) (*Config, error) {
	var f configFile
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, configError(err, name)
	}
	b := &builder{name: name, dir: dir, at: positions(data)}
	c := b.build(&f)
	if len(b.errs) > 0 {
		slices.SortFunc(b.errs, func(x, y placed) int { return slices.Compare(x.at[:], y.at[:]) })
		var errs []error
		for _, e := range b.errs {
			errs = append(errs, e)
		}
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// configError gives the decoder's errors the form of ours.
func configError(err error, name string) error {
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var errs []error
		for _, e := range missing.Errors {
			row, col := e.Position()
			key, valid := unknown(e.Key())
			errs = append(errs, fmt.Errorf("%s:%d:%d: unknown key %q%s", name, row, col, key, didYouMean(key, valid)))
		}
		return errors.Join(errs...)
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := e.Position()
		what := strings.TrimPrefix(e.Error(), "toml: ")
		if got, want, ok := strings.Cut(what, " into struct field "); ok { // ours are nobody's business
			_, want, _ = strings.Cut(want, " of type ")
			what = fmt.Sprintf("%s: %s where a %s belongs", strings.Join(e.Key(), "."), strings.TrimPrefix(got, "cannot decode "), want)
		}
		return fmt.Errorf("%s:%d:%d: %s", name, row, col, what)
	}
	return fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
}

// unknown returns the first element of path that is no valid name, and what may
// stand in its place.
func unknown(path []string) (key string, valid []string) {
	t := reflect.TypeFor[configFile]()
	for _, key = range path {
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		if t.Kind() != reflect.Struct {
			break
		}
		valid = nil
		at := -1
		for i, f := range reflect.VisibleFields(t) {
			name := f.Tag.Get("toml")
			valid = append(valid, name)
			if name == key {
				at = i
			}
		}
		if at < 0 {
			break
		}
		t = t.Field(at).Type
	}
	return key, valid
}

func didYouMean(got string, names []string) string {
	if near := nearest.Of(got, names); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	slices.Sort(names)
	return fmt.Sprintf(" (known: %s)", strings.Join(names, ", "))
}

// positions returns line and column of every key, by its dotted path.
func positions(data []byte) map[string][2]int {
	at := map[string][2]int{}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		var path []string
		if e.Kind == unstable.KeyValue {
			path = slices.Clone(table)
		}
		var where [2]int
		for it := e.Key(); it.Next(); {
			n := it.Node()
			path = append(path, string(n.Data))
			start := p.Shape(n.Raw).Start
			where = [2]int{start.Line, start.Column}
		}
		if e.Kind != unstable.KeyValue {
			table = path
		}
		if k := strings.Join(path, "\x00"); at[k] == [2]int{} {
			at[k] = where
		}
	}
	return at
}

// placed is an error with its place.
type placed struct {
	at  [2]int
	err error
}

func (p placed) Error() string { return p.err.Error() }
func (p placed) Unwrap() error { return p.err }

// builder makes a Config of a decoded file.
type builder struct {
	name, dir string
	at        map[string][2]int
	errs      []placed
}

// fail records an error at the key with the given path, or at what is above
// it if the key is not in the file.
func (b *builder) fail(path []string, format string, args ...any) {
	var at [2]int
	for n := len(path); n > 0 && at == [2]int{}; n-- {
		at = b.at[strings.Join(path[:n], "\x00")]
	}
	err := fmt.Errorf("%s:%d:%d: %s: %w", b.name, at[0], at[1], strings.Join(path, "."), fmt.Errorf(format, args...))
	b.errs = append(b.errs, placed{at, err})
}

func (b *builder) size(v any, path ...string) int64 {
	switch v := v.(type) {
	case nil:
		return 0
	case int64:
		if v > 0 {
			return v
		}
		b.fail(path, "a size of %d bytes", v)
	case string:
		n, err := size.Parse(v)
		if err == nil && n > 0 {
			return n
		}
		if err == nil {
			err = errors.New("a size of 0 bytes")
		}
		b.fail(path, "%w", err)
	default:
		b.fail(path, "is not a size such as \"1G\"")
	}
	return 0
}

func (b *builder) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(b.dir, p)
}

func (b *builder) build(f *configFile) *Config {
	c := &Config{
		State: b.path(f.Daemon.State), Socket: b.path(f.Control.Socket), AllowUID: f.Control.AllowUID,
		Connections: f.Limits.Connections, Memory: b.size(f.Limits.Memory, "limits", "memory"),
	}
	if c.Connections < 0 || c.Connections > 8192 {
		b.fail([]string{"limits", "connections"}, "%d is not from 1 to 8192", c.Connections)
	}
	if s := f.Daemon.Drain; s != "" {
		var err error
		if c.Drain, err = time.ParseDuration(s); err != nil || c.Drain <= 0 {
			b.fail([]string{"daemon", "drain-timeout"}, "%q is not a duration such as \"10s\"", s)
		}
	}
	if c.KeyMemory = f.Daemon.KeyMemory; c.KeyMemory != "" {
		if _, err := secret.ParsePolicy(c.KeyMemory); err != nil {
			b.fail([]string{"daemon", "key-memory"}, "%q is not best, locked or insecure", c.KeyMemory)
		}
	}
	for _, name := range sortedKeys(f.Key) {
		b.key(c, name, f.Key[name])
	}
	for _, name := range sortedKeys(f.Device) {
		b.device(c, name, f.Device[name])
	}
	for _, name := range sortedKeys(f.Export) {
		b.export(c, name, f.Export[name])
	}
	return c
}

func (b *builder) device(c *Config, name string, v deviceTable) {
	at := func(key string) []string { return []string{"device", name, key} }
	if err := checkName(name); err != nil {
		b.fail([]string{"device", name}, "%w", err)
	}
	d := DeviceConfig{control.Create{
		Name: name, UUID: v.UUID, ReadOnly: v.ReadOnly, Table: v.Table, Backend: v.Backend,
		Size: b.size(v.Size, at("size")...), Engine: v.Engine, Immutable: v.Immutable,
	}}
	switch {
	case v.Table == "" && v.Backend == "":
		b.fail([]string{"device", name}, "has neither a table nor a backend")
	case v.Table != "" && (v.Backend != "" || v.Size != nil || v.Engine != ""):
		b.fail(at("table"), "goes without backend, size and engine: those make a leaf device")
	case v.Backend != "" && v.Immutable:
		b.fail(at("immutable"), "goes with a table: a leaf device has none that could change")
	case v.Table != "":
		_, err := dm.TakeKeys([]byte(v.Table), func(string, string, []byte) (dm.KeyRef, error) {
			return dm.KeyRef{}, errors.New("key bytes do not belong into a configuration: put them into a file, declare it as [key.NAME], and write :<size>:logon:NAME here")
		})
		if err == nil {
			err = NoKeys(v.Table)
		}
		if err == nil {
			err = checkTargets(v.Table)
		}
		if err != nil {
			b.fail(at("table"), "%w", err)
		}
		d.Table = AbsTable(v.Table, b.dir)
	default:
		d.Backend = AbsURI(v.Backend, b.dir)
		if _, err := backend.Parse(d.Backend); err != nil {
			b.fail(at("backend"), "%w", err)
		}
		if _, err := parseEngine(v.Engine); err != nil {
			b.fail(at("engine"), "%w", err)
		}
	}
	c.Devices = append(c.Devices, d)
}

// checkTargets finds misspelt targets; the rest of a table can only be judged
// by what it stands on.
func checkTargets(text string) error {
	var names []string
	for _, t := range dm.Types() {
		names = append(names, t.Name)
	}
	row := 0
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		row++
		switch {
		case len(words) < 3:
			return fmt.Errorf("table row %d: needs a start sector, a number of sectors and a target", row)
		case !slices.Contains(names, words[2]):
			return fmt.Errorf("table row %d: no target %q%s", row, words[2], didYouMean(words[2], names))
		}
	}
	return nil
}

func (b *builder) export(c *Config, name string, v exportTable) {
	at := func(key string) []string { return []string{"export", name, key} }
	e := control.Export{Name: v.Name, Device: v.Device, NBD: v.NBD, ReadOnly: v.ReadOnly}
	if v.Cert != "" || v.Key != "" || v.CA != "" || v.ClientAuth {
		e.TLS = &control.TLS{Cert: b.path(v.Cert), Key: b.path(v.Key), CA: b.path(v.CA), ClientAuth: v.ClientAuth}
	}
	if v.Device == "" {
		b.fail(at("device"), "is not set")
	}
	if v.NBD == "" {
		b.fail(at("nbd"), "is not set: it says where to listen, such as \"unix:%s.sock\"", name)
		return
	}
	addr, inURI, err := parseNBD(v.NBD)
	if err != nil {
		b.fail(at("nbd"), "%w", err)
		return
	}
	if addr.network == "unix" {
		addr.addr = b.path(addr.addr)
	}
	e.NBD = addr.String()
	switch {
	case e.Name == "" && inURI != "":
		e.Name = inURI
	case e.Name == "":
		e.Name = name
	case inURI != "" && inURI != e.Name:
		b.fail(at("name"), "is %q, and the URI says %q", e.Name, inURI)
	}
	if err := checkTLS(e.TLS); err != nil {
		b.fail(at("tls-cert"), "%w", err)
	}
	if slices.ContainsFunc(c.Exports, func(o control.Export) bool { return o.Name == e.Name && o.NBD == e.NBD }) {
		b.fail([]string{"export", name}, "there is an export %q at %s already", e.Name, e.NBD)
	}
	c.Exports = append(c.Exports, e)
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
