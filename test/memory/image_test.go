package memory

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"keyway/test/harness"
)

// An image is a LUKS volume that cryptsetup has made for a test.
type image struct {
	path       string
	passphrase []byte
	key        []byte // of the volume
	number     int    // of the keyslot
}

// passphrase is text, but no text that is anywhere else.
func passphrase() []byte { return []byte(base64.RawStdEncoding.EncodeToString(random(30))) }

// format makes a volume of AES-256-XTS with cheap key derivation.
func format(t *testing.T, kind string, args ...string) image {
	t.Helper()
	harness.Need(t, "cryptsetup")
	dir := harness.Dir(t)
	im := image{filepath.Join(dir, "image"), passphrase(), random(64), 0}
	keyFile := filepath.Join(dir, "volume.key")
	if err := os.WriteFile(keyFile, im.key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(im.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(im.path, 20<<20); err != nil {
		t.Fatal(err)
	}
	all := append([]string{"luksFormat", "--batch-mode", "--type", kind, "--cipher", "aes-xts-plain64", "--key-size", "512", "--volume-key-file", keyFile}, args...)
	cmd := exec.Command("cryptsetup", append(all, im.path, "-")...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	cmd.Stdin = bytes.NewReader(im.passphrase)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup luksFormat: %v\n%s", err, out)
	}
	return im
}

// addTo adds all that must not be seen of the volume, by name.
func (im image) addTo(t *testing.T, s *Set, name string) {
	t.Helper()
	area, derived, hash := im.addKeys(t, s, name)
	f, err := os.Open(im.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stripes := make([]byte, 4000*64)
	if _, err := f.ReadAt(stripes, area); err != nil {
		t.Fatal(err)
	}
	// The proof that all of that is what really happens.
	if got := s.AddStripes(name, stripes, derived, 64, hashes[hash]); !bytes.Equal(got, im.key) {
		t.Fatalf("%s: the keyslot does not hold the volume key", im.path)
	}
}

// addKeys is addTo without the stripes of the key material, which are many. It returns
// where they are, with what key and what hash.
func (im image) addKeys(t *testing.T, s *Set, name string) (area int64, derived []byte, hash string) {
	t.Helper()
	f, err := os.Open(im.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 32<<10)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	s.AddBytes(name+" passphrase", im.passphrase)
	s.AddText(name+" passphrase", im.passphrase)
	s.AddXTS(name+" volume key", im.key)
	kdf, digest, area, hash := im.slot(t, head)
	s.addHMAC(name+" volume key in the digest, PBKDF2", hashes[digest], im.key)
	return area, s.AddKDF(name+" passphrase", kdf, im.passphrase, 64), hash
}

// slot reads what the keyslot says, from LUKS1 (on-disk format 1.2.3, figure 3)
// or the JSON of LUKS2.
func (im image) slot(t *testing.T, head []byte) (kdf KDF, digest string, area int64, afHash string) {
	t.Helper()
	if head[7] == 1 {
		be := binary.BigEndian
		hash := string(bytes.TrimRight(head[72:104], "\x00"))
		slot := head[208+48*im.number:]
		return KDF{Type: "pbkdf2", Hash: hash, Salt: slot[8:40], Iterations: int(be.Uint32(slot[4:]))},
			hash, int64(be.Uint32(slot[40:])) * 512, hash
	}
	var meta struct {
		Keyslots map[string]struct {
			AF   struct{ Hash string }
			Area struct{ Offset string }
			KDF  KDF
		}
		Digests map[string]struct{ Hash string }
	}
	text, _, _ := bytes.Cut(head[4096:16384], []byte{0})
	if err := json.Unmarshal(text, &meta); err != nil {
		t.Fatal(err)
	}
	s := meta.Keyslots[strconv.Itoa(im.number)]
	area, err := strconv.ParseInt(s.Area.Offset, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return s.KDF, meta.Digests["0"].Hash, area, s.AF.Hash
}

// small are options of cryptsetup for a key derivation of a few milliseconds.
func small(kdf string) []string {
	if kdf == "pbkdf2" {
		return []string{"--pbkdf", kdf, "--pbkdf-force-iterations", "1000"}
	}
	return []string{"--pbkdf", kdf, "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1024", "--pbkdf-parallel", "2"}
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(harness.Dir(t), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func nbd(t *testing.T, sock, export string) *harness.NBD {
	t.Helper()
	c, err := harness.DialNBD("unix", sock, export)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// use writes and reads through a client: long and short, whole data units and parts.
func use(t *testing.T, c *harness.NBD) {
	t.Helper()
	for i, n := range []int{512, 4096, 5120, 64 << 10, 1 << 20} {
		if int64(n)+4096 > c.Size {
			break
		}
		off := int64(512 * (i % 5))
		want, got := random(n), make([]byte, n)
		if e, err := c.Do(harness.NBDWrite, 0, off, 0, want); e != 0 || err != nil {
			t.Fatalf("write of %d bytes at %d: NBD error %d, %v", n, off, e, err)
		}
		if e, err := c.Do(harness.NBDRead, 0, off, 0, got); e != 0 || err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read of %d bytes at %d: NBD error %d, %v, or not what was written", n, off, e, err)
		}
	}
	if e, err := c.Do(harness.NBDFlush, 0, 0, 0, nil); e != 0 || err != nil {
		t.Fatal(fmt.Sprint("flush: NBD error ", e), err)
	}
}
