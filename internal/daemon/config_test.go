package daemon

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/control"
)

const goodConfig = `
[daemon]
state = "state"
drain-timeout = "3s"
[control]
socket = "run/c.sock"
allow-uid = [1000]
[limits]
connections = 16
memory = "64M"

[device.disk0]
backend = "file:disk0.img?direct=1"
size    = "1G"
engine  = "cpu?slots=4"
[device.plain]
backend = "mem:1M"
size = 1048576
read-only = true
[device.vol]
uuid  = "u"
table = """
# a comment
0 2048 linear disk0 0
2048 8 linear ./sub/x.img 0
"""
[key.disk0]
mode = "AES-256-XTS"
file = "disk0.key"
generate = true
[export.vol]
device = "vol"
nbd = "unix:vol.sock"
[export.far]
device = "vol"
nbd = "nbd://localhost/name"
tls-cert = "c.pem"
tls-key = "/k.pem"
`

func TestConfigPathsCountFromItsDirectory(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig), "kw.toml", "/etc/key way")
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string][2]any{
		"state":    {c.State, "/etc/key way/state"},
		"socket":   {c.Socket, "/etc/key way/run/c.sock"},
		"drain":    {c.Drain, 3 * time.Second},
		"memory":   {c.Memory, int64(64 << 20)},
		"conns":    {c.Connections, 16},
		"uid":      {c.AllowUID[0], uint32(1000)},
		"disk0":    {c.Devices[0].Create, control.Create{Name: "disk0", Backend: "file:/etc/key%20way/disk0.img?direct=1", Size: 1 << 30, Engine: "cpu?slots=4"}},
		"plain":    {c.Devices[1].Create, control.Create{Name: "plain", Backend: "mem:1M", Size: 1 << 20, ReadOnly: true}},
		"vol":      {c.Devices[2].Table, "# a comment\n0 2048 linear disk0 0\n2048 8 linear /etc/key%20way/sub/x.img 0\n"},
		"uuid":     {c.Devices[2].UUID, "u"},
		"key":      {c.Keys[0], KeyConfig{Name: "disk0", File: "/etc/key way/disk0.key", Generate: true, Config: blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}}},
		"export":   {c.Exports[1], control.Export{Name: "vol", Device: "vol", NBD: "unix:/etc/key way/vol.sock"}},
		"far":      {c.Exports[0].NBD, "tcp:localhost:10809"},
		"far name": {c.Exports[0].Name, "name"},
		"tls":      {*c.Exports[0].TLS, control.TLS{Cert: "/etc/key way/c.pem", Key: "/k.pem"}},
		"exports":  {len(c.Exports), 2},
	} {
		if !reflect.DeepEqual(x[0], x[1]) {
			t.Errorf("%s: %+v, want %+v", what, x[0], x[1])
		}
	}
}

func TestConfigErrorsSayWhereAndWhatWasMeant(t *testing.T) {
	for _, x := range []struct{ toml, want string }{
		{"[device.a]\nbackend = \"mem:1M\"\nsise = 1\n", `kw.toml:3:1: unknown key "sise", did you mean "size"?`},
		{"[devise.a]\nbackend = \"mem:1M\"\n", `kw.toml:1:2: unknown key "devise", did you mean "device"?`},
		{"[limits]\nfrobs = 1\n", `kw.toml:2:1: unknown key "frobs" (known: connections, memory)`},
		{"[device.a]\nbackend = 1\n", `kw.toml:2:11: device.a.backend: TOML integer where a string belongs`},
		{"[device.a\n", `kw.toml:1:10: `},
		{"[device.a]\nbackend = \"mem:1M\"\nsize = -1\n", `kw.toml:3:1: device.a.size: a size of -1 bytes`},
		{"[device.a]\nbackend = \"mem:1M\"\nsize = [1]\n", `kw.toml:3:1: device.a.size: is not a size such as "1G"`},
		{"[device.a]\nbackend = \"mem:1M\"\ntable = \"0 8 zero\"\n", `kw.toml:3:1: device.a.table: goes without backend`},
		{"[device.a]\ntable = \"0 8 zeero\"\n", `kw.toml:2:1: device.a.table: table row 1: no target "zeero", did you mean "zero"?`},
		{"[device.\"a b\"]\ntable = \"0 8 zero\"\n", `device name "a b": a name has`},
		{"[key.k]\nmode = \"AES-256-XTS\"\n", `kw.toml:1:6: key.k.file: is not set`},
		{"[key.k]\nmode = \"AES-256-XTS\"\nfile = \"k\"\ndata-unit = 100\n", `kw.toml:4:1: key.k.data-unit: data unit size 100`},
		{"[key.k]\nmode = \"AES-256-XTS\"\nfile = \"k\"\ndun-bytes = 99\n", `kw.toml:4:1: key.k.dun-bytes: 99 DUN bytes`},
		{"[export.e]\nnbd = \"unix:x\"\n", `kw.toml:1:9: export.e.device: is not set`},
		{"[export.e]\ndevice = \"d\"\n", `export.e.nbd: is not set`},
		{"[export.e]\ndevice = \"d\"\nnbd = \"nbd://h/x\"\nname = \"y\"\n", `kw.toml:4:1: export.e.name: is "y", and the URI says "x"`},
		{"[export.e]\ndevice = \"d\"\nnbd = \"unix:x\"\ntls-ca = \"c\"\n", `TLS needs a certificate`},
		{"[export.e]\ndevice = \"d\"\nnbd = \"unix:x\"\nname = \"n\"\n[export.n]\ndevice = \"d\"\nnbd = \"unix:x\"\n", `there is an export "n" at unix:/dir/x already`},
		{"[daemon]\ndrain-timeout = \"soon\"\n", `kw.toml:2:1: daemon.drain-timeout: "soon" is not a duration`},
		{"[limits]\nconnections = 100000\n", `kw.toml:2:1: limits.connections: 100000 is not from 1 to 8192`},
	} {
		_, err := ParseConfig([]byte(x.toml), "kw.toml", "/dir")
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%q:\n got %v\nwant %s", x.toml, err, x.want)
		}
	}
}

// A key in a configuration is refused, and not repeated.
func TestConfigRefusesKeyBytes(t *testing.T) {
	hex := strings.Repeat("5a", 64)
	_, err := ParseConfig([]byte("[device.a]\ntable = \"0 8 crypt aes-xts-plain64 "+hex+" 0 x 0\"\n"), "kw.toml", "/")
	if err == nil || strings.Contains(err.Error(), "5a5a") {
		t.Errorf("%v; want a refusal without the key", err)
	}
}

// All errors are told at once, in order of place.
func TestConfigErrorsComeInOrder(t *testing.T) {
	_, err := ParseConfig([]byte("[export.e]\ndevice = \"d\"\nnbd = \"x\"\n[device.a]\n[key.k]\nmode = \"x\"\nfile = \"f\"\n"), "kw.toml", "/")
	if err == nil {
		t.Fatal("no error")
	}
	var places []string
	for line := range strings.Lines(err.Error()) {
		places = append(places, line[:len("kw.toml:1")])
	}
	if got := strings.Join(places, " "); got != "kw.toml:3 kw.toml:4 kw.toml:6" {
		t.Errorf("places %s", got)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte("[device.a]\ntable = '''\n0 8 crypt aes-xts-plain64 :64:logon:k 0 ./x 0 1 allow_discards\n'''\n"))
	f.Add([]byte("[export.e]\ndevice='d'\nnbd='nbd+unix:///n?socket=s'\ntls-client-auth=true\n"))
	f.Add([]byte("[limits]\nmemory = 1.5\n[device]\na = 1\n"))
	f.Add([]byte("device.a.size = '9999999T'\nkey.k = {mode='AES-256-XTS', file='', dun-bytes=-1}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data, "kw.toml", "/dir")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "kw.toml") {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		for _, d := range c.Devices {
			if checkName(d.Name) != nil || (d.Table == "") == (d.Backend == "") || d.Size < 0 {
				t.Fatalf("device %+v was taken", d)
			}
		}
		for _, k := range c.Keys {
			if k.Config.Check() != nil || k.File == "" {
				t.Fatalf("key %+v was taken", k)
			}
		}
		for _, e := range c.Exports {
			if again, err := normalExport(e); err != nil || again.NBD != e.NBD {
				t.Fatalf("export %+v: normal form %+v, %v", e, again, err)
			}
		}
	})
}
