package memory

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/internal/cipher"
	"keyway/internal/secret"
	"keyway/test/harness"
	"keyway/test/spawn"
)

// A volume is an encrypted device of the test daemon, with its key.
type volume struct {
	name   string
	key    []byte
	mode   string // of the key store; "": the volume is opened with its key
	unit   int    // of the key store, in bytes
	engine string // of the leaf device
	table  string // with %s for the key reference and %s for the device beneath
	add    func(s *Set, name string, key []byte)
	give   func(t *testing.T, d *harness.Daemon, v *volume)
	parts  []string // of the key, which a daemon that uses it has in memory
}

const sectors = 4096 // of each volume

// volumes are keys of every mode, by every source that brings bytes.
func volumes() []*volume {
	adiantum := func(s *Set, name string, key []byte) { s.AddAdiantum(name, key, 12) }
	xts := []string{"", ", data half, round keys", ", data half, inverse round keys", ", tweak half, round keys"}
	return []*volume{
		{name: "xts", key: random(64), mode: "AES-256-XTS", unit: 4096, engine: "cpu?slots=2",
			table: "default-key aes-xts-plain64 %s 0 %s 0 2 sector_size:4096 iv_large_sectors",
			add:   (*Set).AddXTS, give: byFile, parts: xts},
		{name: "controller", key: random(64), mode: "AES-256-XTS", unit: 512, engine: "cqhci?slots=2",
			table: "crypt aes-xts-plain64 %s 0 %s 0", add: (*Set).AddXTS, give: byPipe, parts: xts},
		{name: "essiv", key: random(16), mode: "AES-128-CBC-ESSIV", unit: 512, engine: "cpu",
			table: "crypt aes-cbc-essiv:sha256 %s 0 %s 0", add: (*Set).AddESSIV, give: byDescriptor,
			parts: []string{"", ", round keys", ", inverse round keys", ", digest, round keys"}},
		{name: "adiantum", key: random(32), mode: "Adiantum", unit: 4096, engine: "cpu",
			table: "crypt xchacha12,aes-adiantum-plain64 %s 0 %s 0 2 sector_size:4096 iv_large_sectors", add: adiantum, give: byInput,
			parts: []string{"", ", block key, round keys", ", block key, inverse round keys", ", message hash key, clamped", ", NH key"}},
		{name: "sm4", key: random(32), mode: "SM4-XTS", unit: 512, engine: "cpu",
			table: "crypt sm4-xts-plain64 %s 0 %s 0", add: (*Set).AddSM4, give: byConfig, parts: []string{""}},
		{name: "serpent", key: random(64), mode: "dm-crypt", unit: 512,
			table: "crypt serpent-xts-plain64 %s 0 %s 0", add: (*Set).AddSerpent, give: byInput,
			parts: []string{"", ", data half, round keys", ", tweak half, round keys"}},
		{name: "twofish", key: random(64), mode: "dm-crypt", unit: 512,
			table: "crypt twofish-xts-plain64 %s 0 %s 0", add: (*Set).AddTwofish, give: byFile,
			parts: []string{"", ", data half, round keys", ", data half, S-boxes", ", tweak half, round keys"}},
		{name: "intable", key: random(64),
			table: "crypt aes-xts-plain64 %s 0 %s 0", add: (*Set).AddXTS, give: byTable, parts: xts},
	}
}

// command is a keyway command against the daemon.
func command(t *testing.T, d *harness.Daemon, args ...string) *exec.Cmd {
	cmd := exec.Command(harness.Binary(t), args...)
	cmd.Env = append(os.Environ(), "KEYWAY_SOCKET="+d.Socket)
	cmd.Dir = d.Dir
	return cmd
}

func ok(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("keyway %s: %v\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
}

func (v *volume) keyAdd(t *testing.T, d *harness.Daemon, source ...string) *exec.Cmd {
	return command(t, d, append([]string{"key", "add", v.name, "--mode", v.mode, "--data-unit", fmt.Sprint(v.unit)}, source...)...)
}

func byFile(t *testing.T, d *harness.Daemon, v *volume) {
	ok(t, v.keyAdd(t, d, "--file", writeFile(t, v.name+".key", v.key)))
}

func byDescriptor(t *testing.T, d *harness.Daemon, v *volume) {
	f, err := os.Open(writeFile(t, v.name+".key", v.key))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := v.keyAdd(t, d, "--fd", "3")
	cmd.ExtraFiles = []*os.File{f}
	ok(t, cmd)
}

// pipe returns one that holds b.
func pipe(t *testing.T, b []byte) *os.File {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if _, err := in.Write(b); err != nil {
		t.Fatal(err)
	}
	in.Close()
	return out
}

func byPipe(t *testing.T, d *harness.Daemon, v *volume) {
	cmd := v.keyAdd(t, d, "--fd", "3")
	cmd.ExtraFiles = []*os.File{pipe(t, v.key)}
	ok(t, cmd)
}

func byInput(t *testing.T, d *harness.Daemon, v *volume) {
	cmd := v.keyAdd(t, d, "-")
	cmd.Stdin = pipe(t, v.key)
	ok(t, cmd)
}

// byConfig: the daemon has read it when it started.
func byConfig(*testing.T, *harness.Daemon, *volume) {}

// byTable: the key is in the text of the table.
func byTable(*testing.T, *harness.Daemon, *volume) {}

func (v *volume) tableOn(dev string) string {
	key := fmt.Sprintf(":%d:logon:%s", len(v.key), v.name)
	if v.mode == "" {
		key = fmt.Sprintf("%x", v.key)
	}
	return fmt.Sprintf("0 %d "+v.table+"\n", sectors, key, dev)
}

// A scene is a daemon with volumes, and what must not be seen of them.
type scene struct {
	t *testing.T
	*harness.Daemon
	client  *control.Client
	volumes []*volume
	luks    []string // devices that were opened by a passphrase
	set     Set
}

// open starts a daemon with the volumes and serves them, by NBD, with I/O.
func open(t *testing.T, keyMemory string, volumes []*volume) *scene {
	t.Helper()
	needRoot(t)
	sc := &scene{t: t, Daemon: harness.New(t), volumes: volumes}
	config := fmt.Sprintf("[daemon]\nkey-memory = %q\n", keyMemory)
	for _, v := range volumes {
		v.add(&sc.set, v.name, v.key)
		config += fmt.Sprintf("[device.%s-leaf]\nbackend = \"mem:%dK\"\n", v.name, sectors/2)
		if v.engine != "" {
			config += fmt.Sprintf("engine = %q\n", v.engine)
		}
		config += fmt.Sprintf("[device.%s-bare]\nbackend = \"mem:%dK\"\n", v.name, sectors/2)
		if v.name == "sm4" {
			config += fmt.Sprintf("[key.%s]\nmode = %q\ndata-unit = %d\nfile = %q\n", v.name, v.mode, v.unit, writeFile(t, "key", v.key))
		}
	}
	sc.WriteConfig(config)
	sc.Begin()
	sc.client = &control.Client{Socket: sc.Socket}
	for _, v := range volumes {
		v.give(t, sc.Daemon, v)
		cmd := command(t, sc.Daemon, "create", v.name, "--table", "-")
		cmd.Stdin = pipe(t, []byte(v.tableOn(v.name+"-leaf")))
		ok(t, cmd)
		sc.export(v.name)
	}
	return sc
}

// openLUKS opens volumes by passphrase, of which the daemon gets the volume key.
func (sc *scene) openLUKS(name string, im image) {
	sc.t.Helper()
	im.addKeys(sc.t, &sc.set, name)
	cmd := command(sc.t, sc.Daemon, "luks", "open", im.path, name)
	cmd.Stdin = pipe(sc.t, append(bytes.Clone(im.passphrase), '\n'))
	ok(sc.t, cmd)
	sc.export(name)
	sc.luks = append(sc.luks, name)
}

// export serves a device, and uses it through a connection that stays.
func (sc *scene) export(device string) {
	sc.t.Helper()
	sock := filepath.Join(sc.Dir, device+".sock")
	if _, err := sc.client.AddExport(context.Background(), control.Export{Device: device, Name: device, NBD: "unix:" + sock}); err != nil {
		sc.t.Fatal(err)
	}
	use(sc.t, nbd(sc.t, sock, device))
}

func (sc *scene) must(err error) {
	sc.t.Helper()
	if err != nil {
		sc.t.Fatal(err)
	}
}

// away and back: each device goes to another without an engine, where software has
// the key, and comes back; those with an engine lose all keys in it once.
func (sc *scene) move() {
	ctx := context.Background()
	for _, v := range sc.volumes {
		text, err := sc.client.Table(ctx, v.name, false)
		sc.must(err)
		for _, dev := range []string{"bare", "leaf"} {
			_, err = sc.client.Reload(ctx, v.name, control.Load{Table: strings.ReplaceAll(text, v.name+"-leaf", v.name+"-"+dev)})
			sc.must(err)
			use(sc.t, nbd(sc.t, filepath.Join(sc.Dir, v.name+".sock"), v.name))
			if dev == "leaf" && v.engine != "" {
				_, err = sc.client.Message(ctx, v.name+"-leaf", control.Message{Words: []string{"reset"}})
				sc.must(err)
			}
		}
		use(sc.t, nbd(sc.t, filepath.Join(sc.Dir, v.name+".sock"), v.name))
	}
}

// vectors are the volumes whose ciphers have keys in vector registers.
func (sc *scene) vectors() []*volume { return sc.volumes[:4] }

// signals interrupts the threads while they encrypt, until the registers of one are seen
// in ordinary memory: the kernel writes them to its signal stack. It reports whether
// they were.
func (sc *scene) signals() bool {
	sc.t.Helper()
	done := make(chan struct{})
	var io sync.WaitGroup
	defer io.Wait()
	defer close(done)
	for _, v := range sc.vectors() {
		c := nbd(sc.t, filepath.Join(sc.Dir, v.name+".sock"), v.name)
		io.Go(func() {
			buf := random(1 << 20)
			for cmd := uint16(harness.NBDWrite); ; cmd ^= harness.NBDWrite ^ harness.NBDRead {
				select {
				case <-done:
					return
				default:
				}
				if e, err := c.Do(cmd, 0, 4096, 0, buf); e != 0 || err != nil {
					sc.t.Errorf("I/O of %s under signals: NBD error %d, %v", v.name, e, err)
					return
				}
			}
		})
	}
	for range 8 {
		for range 20 {
			interrupt(sc.t, sc.Pid())
		}
		if rep := sc.look(); len(rep.Outside()) > 0 {
			sc.t.Logf("a signal has left registers:\n%s", Describe(rep.Outside()))
			return true
		}
	}
	return false
}

// evict evicts all keys.
func (sc *scene) evict() {
	sc.t.Helper()
	keys, err := sc.client.Keys(context.Background())
	sc.must(err)
	if n := len(sc.volumes) + len(sc.luks); len(keys) != n {
		sc.t.Errorf("%d keys of %d volumes", len(keys), n)
	}
	for _, k := range keys {
		e, err := sc.client.EvictKey(context.Background(), k.Name, control.EvictKey{})
		sc.must(err)
		if e.Error != "" {
			sc.t.Fatal(e.Error)
		}
	}
}

// close takes exports and devices away.
func (sc *scene) close() {
	sc.t.Helper()
	ctx := context.Background()
	exports, err := sc.client.Exports(ctx)
	sc.must(err)
	for _, e := range exports {
		_, err := sc.client.RemoveExport(ctx, control.RemoveExport{NBD: e.NBD, Name: e.Name})
		sc.must(err)
	}
	devices := sc.luks
	for _, v := range sc.volumes {
		devices = append(devices, v.name)
	}
	for _, d := range devices {
		_, err := sc.client.Remove(ctx, d, control.Remove{})
		sc.must(err)
	}
}

// look scans the daemon by /proc.
func (sc *scene) look() *Report {
	sc.t.Helper()
	var rep *Report
	var err error
	sc.must(Stopped(sc.Pid(), func() { rep, err = Process(sc.Pid(), &sc.set) }))
	sc.must(err)
	sc.t.Logf("%d MB, %d needles, %d hits, %d outside of key memory", rep.Bytes>>20, sc.set.Len(), len(rep.Hits), len(rep.Outside()))
	return rep
}

// spares are the contents of ciphers that the daemon makes of a key that is no secret,
// so that there is memory when there is no more.
func spares(t *testing.T) *Set {
	t.Helper()
	defer secret.SetPolicy(secret.Current())
	secret.SetPolicy(secret.MlockOnly)
	var s Set
	for _, m := range blkcrypto.Modes() {
		key := make([]byte, m.KeySize())
		for i := range key {
			key[i] = byte(i)
		}
		u, err := cipher.NewUnits(blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: blkcrypto.MinDataUnit, DUNBytes: 1}, key)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Wipe()
	}
	if err := s.AddKept(os.Getpid(), "spare", nil); err != nil {
		t.Fatal(err)
	}
	return &s
}

const contents = "other contents of key memory"

func TestDaemonKeepsKeysInKeyMemoryAndForgetsThem(t *testing.T) {
	harness.Need(t, "gcore")
	public := spares(t)
	sc := open(t, "locked", volumes())
	sc.openLUKS("luks1", format(t, "luks1", small("pbkdf2")...))
	sc.openLUKS("luks2", format(t, "luks2", small("argon2id")...))
	sc.move()

	// A signal that came while a cipher had keys in registers has left them on the
	// thread's signal stack. That is so as long as a key is in use (see signals), and
	// not what is looked for here: one that comes now leaves nothing of them.
	interrupt(t, sc.Pid())
	rep := sc.look()
	for _, v := range sc.volumes {
		for _, part := range v.parts {
			if rep.exactly(v.name+part) == 0 {
				t.Errorf("%s%s: is not found while it is in use: the test is blind", v.name, part)
			}
		}
	}
	for _, name := range []string{"luks1", "luks2"} {
		if rep.exactly(name+" volume key") == 0 {
			t.Errorf("%s: the volume key is not found while it is in use: the test is blind", name)
		}
		if n := rep.Of(name + " passphrase"); n > 0 {
			t.Errorf("%s: the daemon has the passphrase %d times", name, n)
		}
	}
	sc.must(Stopped(sc.Pid(), func() { sc.must(sc.set.AddKept(sc.Pid(), contents, public)) }))
	sc.nothingOutside("by /proc, in use", sc.look())
	sc.nothing("by gcore, in use", gcore(t, sc.Pid(), false, &sc.set))

	// What signals leave of registers is outside, as long as the key is in use.
	if !sc.signals() {
		t.Log("no signal has left registers this time")
	}
	sc.evict()
	sc.nothing("by /proc, evicted", sc.look())
	sc.close()
	sc.nothing("by /proc, closed", sc.look())
	sc.nothing("by gcore -a, closed", gcore(t, sc.Pid(), true, &sc.set))
}

// In memory that is hidden nobody sees keys in use, root included: not by the means of
// this scanner.
func TestDaemonHidesKeysInUse(t *testing.T) {
	if !secret.HasHidden() {
		t.Skip("the kernel has no memfd_secret")
	}
	sc := open(t, "best", volumes()[:4])
	sc.openLUKS("luks2", format(t, "luks2", small("argon2id")...))
	sc.move()
	interrupt(t, sc.Pid())
	rep := sc.look()
	sc.nothing("by /proc, in use", rep)
	if len(rep.Unreadable) == 0 {
		t.Error("no memory is hidden")
	}
	for _, r := range rep.Unreadable {
		if !strings.Contains(r.Name, "secretmem") && r.Name != "[vvar]" {
			t.Errorf("%v cannot be read, and is no hidden memory", r)
		}
	}
}

// serve IMAGE asks for the passphrase itself. It has no use for it behind the volume
// key.
func TestServedImageKeepsNoPassphrase(t *testing.T) {
	needRoot(t)
	for _, kdf := range []string{"argon2id", "pbkdf2"} {
		im := format(t, "luks2", small(kdf)...)
		sc := &scene{t: t}
		im.addTo(t, &sc.set, "image")
		dir := harness.Dir(t)
		notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(harness.Binary(t), "serve", im.path, "--key-memory", "locked", "--nbd", "unix:"+filepath.Join(dir, "nbd"), "--socket", filepath.Join(dir, "s"))
		cmd.Env = append(os.Environ(), notify.Env(), "XDG_RUNTIME_DIR="+dir)
		cmd.Stdin = pipe(t, append(bytes.Clone(im.passphrase), '\n'))
		harness.Spawn(t, cmd)
		if err := notify.Ready(nil, harness.StartTimeout); err != nil {
			t.Fatal(err)
		}
		use(t, nbd(t, filepath.Join(dir, "nbd"), ""))
		interrupt(t, cmd.Process.Pid)
		var rep *Report
		sc.must(Stopped(cmd.Process.Pid, func() { rep, err = Process(cmd.Process.Pid, &sc.set) }))
		sc.must(err)
		sc.nothingOutside(kdf+", in use", rep)
		if rep.exactly("image volume key") == 0 {
			t.Error("the volume key is not found while it is in use: the test is blind")
		}
		for _, h := range rep.Hits {
			if !strings.HasPrefix(h.Secret, "image volume key") || strings.Contains(h.Secret, "PBKDF2") {
				t.Errorf("%s: what opened the volume is still there:\n%s", kdf, Describe([]Hit{h}))
			}
		}
	}
}

// exactly counts the hits of one part of a secret.
func (rep *Report) exactly(secret string) (n int) {
	for _, h := range rep.Hits {
		if h.Secret == secret {
			n++
		}
	}
	return n
}

func (sc *scene) nothing(when string, rep *Report) {
	sc.t.Helper()
	if len(rep.Hits) > 0 {
		sc.t.Errorf("%s: keys are in memory:\n%s", when, Describe(rep.Hits))
	}
}

func (sc *scene) nothingOutside(when string, rep *Report) {
	sc.t.Helper()
	if out := rep.Outside(); len(out) > 0 {
		sc.t.Errorf("%s: keys are outside of key memory:\n%s", when, Describe(out))
	}
}
