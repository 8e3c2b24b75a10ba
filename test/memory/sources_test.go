package memory

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"keyway/control"
	"keyway/test/harness"
)

// The daemon reads keys itself from the sources that its configuration names: a program,
// a file of age for an identity and one for a passphrase, and the header of a LUKS volume.
func TestDaemonReadsSourcesIntoKeyMemory(t *testing.T) {
	needRoot(t)
	sc := &scene{t: t, Daemon: harness.New(t)}
	key := map[string][]byte{"program": random(64), "identity": random(64), "passphrase": random(64), "credential": random(64)}

	id, err := age.GenerateX25519Identity()
	sc.must(err)
	pass := string(passphrase())
	scrypt, err := age.NewScryptRecipient(pass)
	sc.must(err)
	scrypt.SetWorkFactor(10)
	seal := func(name string, r age.Recipient) string {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, r)
		sc.must(err)
		_, err = w.Write(key[name])
		sc.must(err)
		sc.must(w.Close())
		return writeFile(t, name+".age", b.Bytes())
	}
	im := format(t, "luks2", small("argon2id")...)
	sources := map[string]string{
		"program":    "exec:/bin/cat?arg=" + writeFile(t, "key", key["program"]),
		"identity":   "age:" + seal("identity", id.Recipient()) + "?identity=" + writeFile(t, "id", []byte(id.String()+"\n")),
		"passphrase": "age:" + seal("passphrase", scrypt) + "?key-file=" + writeFile(t, "pass", []byte(pass)),
		"luks":       "luks:" + im.path + "?key-file=" + writeFile(t, "luks", im.passphrase),
		"credential": "systemd:credential",
	}
	sc.must(os.WriteFile(filepath.Join(sc.Dir, "credential"), key["credential"], 0o600))
	t.Setenv("CREDENTIALS_DIRECTORY", sc.Dir)
	sc.set.AddBytes("identity of age", []byte(strings.TrimPrefix(id.String(), "AGE-SECRET-KEY-1")))
	sc.set.AddBytes("passphrase of age", []byte(pass))
	im.addTo(t, &sc.set, "luks")
	config := "[daemon]\nkey-memory = \"locked\"\n"
	for name, source := range sources {
		if key[name] != nil {
			sc.set.AddXTS(name, key[name])
		}
		if name == "credential" { // in the environment of a command, not of this daemon
			continue
		}
		config += fmt.Sprintf("[key.%s]\nmode = \"AES-256-XTS\"\nsource = %q\n", name, source)
	}
	sc.WriteConfig(config)
	sc.Begin()
	sc.client = &control.Client{Socket: sc.Socket}
	ok(t, command(t, sc.Daemon, "key", "add", "credential", "--mode", "AES-256-XTS", "--from", sources["credential"]))

	interrupt(t, sc.Pid())
	rep := sc.look()
	sc.nothingOutside("in use", rep)
	for _, name := range []string{"program", "identity", "passphrase", "credential", "luks volume key"} {
		if rep.exactly(name) == 0 {
			t.Errorf("%s: the key is not found while it is there: the test is blind", name)
		}
	}
	for _, h := range rep.Hits {
		if _, isKey := key[h.Secret]; !isKey && h.Secret != "luks volume key" {
			t.Errorf("what opened a source is still there:\n%s", Describe([]Hit{h}))
		}
	}
	keys, err := sc.client.Keys(t.Context())
	sc.must(err)
	for _, k := range keys {
		_, err := sc.client.EvictKey(t.Context(), k.Name, control.EvictKey{})
		sc.must(err)
	}
	if len(keys) != len(sources) {
		t.Errorf("%d keys, want %d", len(keys), len(sources))
	}
	sc.nothing("evicted", sc.look())
}
