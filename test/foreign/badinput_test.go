package foreign

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyway/test/harness"
)

// form is what every error looks like: our name, lower case, no trace.
var form = regexp.MustCompile(`\Akeyway: error: [^A-Z\s][^\n]*[^.\n]\n(keyway: (hint|warning): [^\n]+\n)*\z`)

func checkError(t *testing.T, what string, r harness.Result, codes []int, words ...string) {
	t.Helper()
	ok := false
	for _, c := range codes {
		ok = ok || r.Code == c
	}
	if !ok {
		t.Errorf("%s: exit status %d, want one of %v\n%s%s", what, r.Code, codes, r.Stdout, r.Stderr)
	}
	// Warnings may come first; the error must be there in its form.
	errs := r.Stderr
	for strings.HasPrefix(errs, "keyway: warning: ") {
		_, errs, _ = strings.Cut(errs, "\n")
	}
	if !form.MatchString(errs) {
		t.Errorf("%s: the message has not the form of errors:\n%s", what, r.Stderr)
	}
	if r.Stdout != "" {
		t.Errorf("%s: printed on standard output: %s", what, r.Stdout)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			t.Errorf("%s: the message does not name %s:\n%s", what, w, r.Stderr)
		}
	}
}

// snapshot is all that a refused command must leave as it was.
func snapshot(d *harness.Daemon) string {
	var b strings.Builder
	for _, args := range [][]string{{"ls", "--tree"}, {"table"}, {"table", "--inactive"}, {"info"}, {"key", "list"}, {"export", "list"}} {
		b.WriteString(strings.Join(args, " ") + "\n" + d.OK(args...))
	}
	return b.String()
}

func TestBadInputIsExplainedAndChangesNothing(t *testing.T) {
	d := harness.Start(t)
	small := filepath.Join(d.Dir, "small.img")
	if err := os.WriteFile(small, make([]byte, miB), 0o600); err != nil {
		t.Fatal(err)
	}
	addKey(t, d, "k", 4096, testKey(71))
	weak := filepath.Join(d.Dir, "weak.key")
	if err := os.WriteFile(weak, make([]byte, 64), 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(d.Dir, "short.key")
	if err := os.WriteFile(short, make([]byte, 63), 0o600); err != nil {
		t.Fatal(err)
	}
	d.OK("create", "leaf", "--backend", "file:"+small)
	d.OK("create", "other", "--backend", "mem:1M")
	create(d, "vol", "0 2048 linear leaf 0")
	sock, _ := export(d, "vol")

	failed, either := []int{1}, []int{1, 2}
	misuse := []int{2}
	before := snapshot(d)
	for _, x := range []struct {
		what, stdin string
		args        []string
		codes       []int
		words       []string
	}{
		{"number in a row", "0 8 zero\n8 8 linear leaf 12x\n", []string{"create", "x", "--table", "-"}, either,
			[]string{`table row 2: linear: argument 2 (start, in sectors): "12x" is not a number`}},
		{"unknown target", "0 8 linaer leaf 0\n", []string{"create", "x", "--table", "-"}, either, []string{"row 1", "linaer", "linear"}},
		{"gap between rows", "0 8 zero\n16 8 zero\n", []string{"create", "x", "--table", "-"}, either, []string{"row 2"}},
		{"surplus argument", "0 8 linear leaf 0 0\n", []string{"create", "x", "--table", "-"}, either, []string{"row 1", "linear"}},
		{"empty table", "# nothing\n", []string{"create", "x", "--table", "-"}, either, nil},
		{"row beyond the device", "0 2049 linear leaf 0\n", []string{"create", "x", "--table", "-"}, either, []string{"row 1", "leaf"}},
		{"no such device", "0 8 linear nodevice 0\n", []string{"create", "x", "--table", "-"}, either, []string{"nodevice"}},
		{"missing key", "0 8 default-key aes-xts-plain64 :64:logon:nokey 0 leaf 0 2 sector_size:4096 iv_large_sectors\n", []string{"create", "x", "--table", "-"}, either, []string{"nokey"}},
		{"key size in a reference", "0 8 crypt aes-xts-plain64 :32:logon:k 0 leaf 0\n", []string{"create", "x", "--table", "-"}, either, []string{"k"}},
		{"name taken", "0 8 zero\n", []string{"create", "vol", "--table", "-"}, failed, []string{"vol"}},
		{"cycle", "0 2048 linear vol 0\n", []string{"load", "vol", "--table", "-"}, either, []string{"vol"}},
		{"reload refused, old table kept", "0 2048 linear nodevice 0\n", []string{"reload", "vol", "--table", "-"}, either, []string{"nodevice"}},
		{"device in use by a table", "", []string{"remove", "leaf"}, failed, []string{"leaf", "vol"}},
		{"device in use by an export", "", []string{"remove", "vol"}, failed, []string{"vol"}},
		{"file in use", "", []string{"create", "twice", "--backend", "file:" + small}, failed, []string{"small.img"}},
		{"file smaller than asked for", "", []string{"create", "twice", "--backend", "file:" + small, "--size", "2M"}, failed, []string{"small.img"}},
		{"no such directory", "", []string{"create", "x", "--backend", "file:" + filepath.Join(d.Dir, "no/such/disk"), "--size", "1M"}, failed, []string{"no/such/disk"}},
		{"no such scheme", "", []string{"create", "x", "--backend", "fiel:x"}, either, []string{"fiel"}},
		{"unknown option of a backend", "", []string{"create", "x", "--backend", "mem:1M?dircet=1"}, either, []string{"dircet"}},
		{"no such engine", "", []string{"create", "x", "--backend", "mem:1M", "--engine", "gpu"}, either, []string{"gpu"}},
		{"bad size", "", []string{"create", "x", "--backend", "file:" + filepath.Join(d.Dir, "new"), "--size", "12Q"}, either, []string{"12Q"}},
		{"key with equal halves", "", []string{"key", "add", "w", "--mode", "AES-256-XTS", "--data-unit", "4096", "--file", weak}, either, []string{"w"}},
		{"key too short", "", []string{"key", "add", "s", "--mode", "AES-256-XTS", "--data-unit", "4096", "--file", short}, either, []string{"64"}},
		{"no such mode", "", []string{"key", "add", "m", "--mode", "AES-257-XTS", "--data-unit", "4096", "--file", weak}, either, []string{"AES-257-XTS"}},
		{"bad data unit", "", []string{"key", "add", "m", "--mode", "AES-256-XTS", "--data-unit", "1000", "--file", weak}, either, []string{"1000"}},
		{"no key file", "", []string{"key", "add", "m", "--mode", "AES-256-XTS", "--data-unit", "4096", "--file", filepath.Join(d.Dir, "nofile")}, failed, []string{"nofile"}},
		{"evict an unknown key", "", []string{"key", "evict", "nokey"}, failed, []string{"nokey"}},
		{"export of an unknown device", "", []string{"export", "add", "nodevice", "--nbd", "unix:" + sock}, failed, []string{"nodevice"}},
		{"export name taken", "", []string{"export", "add", "other", "--nbd", "unix:" + sock, "--name", "vol"}, failed, []string{"vol"}},
		{"suspend an unknown device", "", []string{"suspend", "nodevice"}, failed, []string{"nodevice"}},
		{"unknown command", "", []string{"craete", "x"}, misuse, []string{"craete"}},
		{"unknown flag", "", []string{"create", "x", "--tabel", "-"}, misuse, []string{"tabel"}},
		{"argument missing", "", []string{"create"}, misuse, nil},
		{"neither table nor backend", "", []string{"create", "x"}, misuse, nil},
		{"surplus argument of a command", "", []string{"resume", "vol", "leaf"}, misuse, nil},
		{"bad duration", "", []string{"suspend", "vol", "--timeout", "soon"}, misuse, []string{"soon"}},
	} {
		t.Run(x.what, func(t *testing.T) {
			checkError(t, strings.Join(x.args, " "), d.RunInput(x.stdin, x.args...), x.codes, x.words...)
			if after := snapshot(d); after != before {
				t.Errorf("something changed:\n%s\nwas:\n%s", after, before)
			}
			if i, err := os.Stat(small); err != nil || i.Size() != miB {
				t.Errorf("the file changed: %v, %v", i, err)
			}
		})
	}
	for _, f := range []string{"new", "no"} {
		if _, err := os.Stat(filepath.Join(d.Dir, f)); err == nil {
			t.Errorf("%s was left behind by a refused command", f)
		}
	}
	c := dial(t, sock, "vol")
	write(t, c, 0, []byte("the daemon works on"))
	flush(t, c)
}

func TestNoDaemonIsSaidSo(t *testing.T) {
	d := harness.New(t)
	d.WriteConfig("")
	checkError(t, "ls", d.Run("ls"), []int{1}, d.Socket)
}

func TestASecondDaemonOnTheSameStateIsRefused(t *testing.T) {
	d := harness.Start(t)
	r := d.Run("serve", "--config", d.Config, "--state", d.State, "--socket", filepath.Join(d.Dir, "second.sock"))
	if r.Code != 1 || !strings.Contains(r.Stderr, d.State) {
		t.Errorf("exit status %d, want 1 and the directory named\n%s", r.Code, r.Stderr)
	}
	d.OK("ls")
}

func TestWrongConfigurationIsExplainedByLine(t *testing.T) {
	for _, x := range []struct {
		what, toml string
		words      []string
	}{
		{"unknown key", "[device.disk]\nbackend = \"mem:1M\"\nsise = \"1M\"\n", []string{"keyway.toml:3", "sise", "size"}},
		{"unknown section", "[devices.disk]\nbackend = \"mem:1M\"\n", []string{"keyway.toml:1", "devices", "device"}},
		{"not TOML", "[device.disk\nbackend = 1\n", []string{"keyway.toml:1"}},
		{"wrong type", "[device.disk]\nbackend = 12\n", []string{"keyway.toml:2", "backend"}},
		{"bad size", "[device.disk]\nbackend = \"file:x.img\"\nsize = \"12Q\"\n", []string{"keyway.toml", "12Q"}},
		{"bad table", "[device.vol]\ntable = \"0 8 linaer x 0\"\n", []string{"keyway.toml", "linaer"}},
		{"neither backend nor table", "[device.vol]\n", []string{"keyway.toml", "vol"}},
		{"export of nothing", "[export.e]\ndevice = \"nodevice\"\nnbd = \"unix:e.sock\"\n", []string{"nodevice"}},
	} {
		t.Run(x.what, func(t *testing.T) {
			d := harness.New(t)
			d.WriteConfig(x.toml)
			r := d.Run("serve", "--config", d.Config, "--state", d.State, "--socket", d.Socket)
			if r.Code != 1 && r.Code != 2 {
				t.Errorf("exit status %d, want 1 or 2", r.Code)
			}
			if !strings.Contains(r.Stderr, "keyway: error: ") || strings.Contains(r.Stderr, "goroutine ") {
				t.Errorf("not an error of ours:\n%s", r.Stderr)
			}
			for _, w := range x.words {
				if !strings.Contains(r.Stderr, w) {
					t.Errorf("the message does not name %s:\n%s", w, r.Stderr)
				}
			}
			if _, err := os.Stat(filepath.Join(d.Dir, "x.img")); err == nil {
				t.Error("a disk was created before the configuration was found wrong")
			}
		})
	}
}

// A daemon whose key cannot be read serves everything else, and takes the key up
// when it can be.
func TestMissingKeyFileIsMended(t *testing.T) {
	d := harness.New(t)
	file := filepath.Join(d.Dir, "late.key")
	key := make([]byte, 64)
	rand.Read(key)
	d.WriteConfig(fmt.Sprintf(`[device.disk]
backend = "mem:2M"
[key.k]
mode = "AES-256-XTS"
data-unit = 4096
file = %q
[device.vol]
table = "0 4096 inlinecrypt aes-xts-plain64 :64:logon:k 0 disk 0 2 sector_size:4096 iv_large_sectors"
`, file))
	d.Begin()
	if list := d.OK("key", "list"); !strings.Contains(list, "missing") {
		t.Errorf("the list of keys does not tell that it is missing:\n%s", list)
	}
	for _, w := range []string{file, "key add k --again"} {
		if !strings.Contains(d.Log(), w) {
			t.Errorf("the log does not name %s:\n%s", w, d.Log())
		}
	}
	if r := d.Run("key", "add", "k", "--again"); r.Code != 1 || !strings.Contains(r.Stderr, file) {
		t.Errorf("exit status %d, want 1 and the file named\n%s", r.Code, r.Stderr)
	}
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	d.OK("key", "add", "k", "--again")
	if list := d.OK("key", "list"); strings.Contains(list, "missing") {
		t.Errorf("the key is still missing:\n%s", list)
	}
	if info := d.OK("table", "vol"); !strings.Contains(info, "inlinecrypt") {
		t.Errorf("the device has not come back:\n%s", info)
	}
}
