package keysource

import (
	"os"
	"path/filepath"
	"testing"
)

// volume formats an image with cryptsetup and returns it, and its volume key.
func volume(t *testing.T, typ string, pass []byte) (string, []byte) {
	t.Helper()
	cryptsetup := tool(t, "cryptsetup")
	dir := t.TempDir()
	image, pf, kf := filepath.Join(dir, "v.img"), write(t, "pass", pass), filepath.Join(dir, "vk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 40<<20); err != nil {
		t.Fatal(err)
	}
	run(t, cryptsetup, "luksFormat", "-q", "--type", typ, "--key-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", pf, image)
	run(t, cryptsetup, "luksDump", "-q", "--dump-master-key", "--master-key-file", kf, "--key-file", pf, image)
	key, err := os.ReadFile(kf)
	if err != nil || len(key) != 64 {
		t.Fatalf("volume key of %d bytes, %v", len(key), err)
	}
	return image, key
}

func TestVolumeKeysOfLUKS(t *testing.T) {
	for _, typ := range []string{"luks1", "luks2"} {
		pass := []byte("open sesame\n")
		image, key := volume(t, typ, pass)
		pf := write(t, "pass", pass)
		gives(t, &Env{}, key, "luks:"+image+"?key-file="+pf)
		gives(t, answers(string(pass)), key, "luks:"+image+"?key-slot=0&header-policy=permissive")
		gives(t, &Env{Credentials: filepath.Dir(pf)}, key, "luks:"+image+"?credential=pass")

		const wrong = "no keyslot opens with this passphrase"
		refuses(t, answers("open sesame"), wrong, "newline", "luks:"+image)
		refuses(t, &Env{}, "nobody can be asked", "?key-file=FILE", "luks:"+image)
		refuses(t, &Env{}, "key-file /nothere: no such file", "", "luks:"+image+"?key-file=/nothere")
		refuses(t, &Env{}, "key-file "+image+": has 41943040 bytes, more than 8388608", "", "luks:"+image+"?key-file="+image)
		refuses(t, &Env{}, "credential pass: $CREDENTIALS_DIRECTORY is not set", "LoadCredential", "luks:"+image+"?credential=pass")

		if typ == "luks2" {
			// One that is being encrypted anew has two keys.
			run(t, tool(t, "cryptsetup"), "reencrypt", "--init-only", "-q", "--key-file", pf, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", image)
			refuses(t, answers(string(pass)), "reencrypt", "", "luks:"+image)
		}

		// A damaged header.
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt(make([]byte, 1<<20), 0)
		f.Close()
		refuses(t, answers(string(pass)), "LUKS header", "", "luks:"+image)
	}
	refuses(t, answers("x"), "is empty", "", "luks:"+write(t, "v", nil))
	refuses(t, answers("x"), "is a directory", "name", "luks:/tmp")
	refuses(t, answers("x"), "neither a file nor a block device", "", "luks:"+fifo(t))
}
