package foreign

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyway/test/fixtures"
	"keyway/test/harness"
)

// qemuLUKS names a LUKS1 image for qemu-img and qemu-io, which take the passphrase
// from the bench's file.
func (b *luksBench) qemuLUKS(image string) []string {
	return []string{"--object", "secret,id=pass,file=" + b.pass, "--image-opts", "driver=luks,key-secret=pass,file.filename=" + image}
}

// qemuCreate formats an image, again if qemu could not measure its derivation: on a
// busy machine it gives up.
func (b *luksBench) qemuCreate(image, options string, size int64) {
	b.t.Helper()
	for try := 0; ; try++ {
		r := harness.Tool(b.t, "qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=pass,file="+b.pass,
			"-o", "key-secret=pass,iter-time=10,"+options, image, fmt.Sprint(size))
		switch {
		case r.Code == 0:
			return
		case try < 20 && strings.Contains(r.Stderr, "accurate CPU usage"):
		default:
			b.t.Fatalf("qemu-img create: status %d\n%s", r.Code, r.Stderr)
		}
	}
}

// qemuIO runs one command of qemu-io on an image of LUKS1.
func (b *luksBench) qemuIO(image, command string) {
	b.t.Helper()
	out := harness.ToolOK(b.t, "qemu-io", append([]string{"-c", command}, b.qemuLUKS(image)...)...)
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		b.t.Errorf("qemu-io %s: %s", command, out)
	}
}

// qemuReads compares the whole volume, as qemu decrypts it, with content.
func (b *luksBench) qemuReads(image string, content []byte) {
	b.t.Helper()
	raw := filepath.Join(b.Dir, "raw")
	defer os.Remove(raw)
	o := b.qemuLUKS(image)
	harness.ToolOK(b.t, "qemu-img", append(append([]string{"convert"}, o...), "-O", "raw", raw)...)
	got, err := os.ReadFile(raw)
	if err != nil {
		b.t.Fatal(err)
	}
	if i := firstDifference(got, content); i >= 0 {
		b.t.Errorf("%d bytes, as qemu reads them, differ at byte %d from %d", len(got), i, len(content))
	}
}

// QEMU formats and writes, we read; we write, it reads: each cipher and hash of its
// LUKS1 that keyway has.
func TestQEMUFormatsAndBothReadAndWrite(t *testing.T) {
	harness.Need(t, "qemu-img", "qemu-io")
	b := newLUKSBench(t)
	for i, x := range []struct{ options, no string }{
		// Few: formatting one takes QEMU seconds. More ciphers are in the test below.
		{"cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256", ""},
		{"cipher-alg=serpent-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha1", ""},
		{"cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha256", "cast5"},
	} {
		t.Run(x.options, func(t *testing.T) {
			b := b.in(t)
			name := fmt.Sprint("q", i)
			image := filepath.Join(b.Dir, name+".img")
			b.qemuCreate(image, x.options, dataLUKS)
			if x.no != "" {
				b.refused(image, x.no)
				return
			}
			b.qemuIO(image, "write -P 0xa5 4096 12288")
			c := b.open(image, name)
			if c.Size != dataLUKS {
				t.Errorf("size %d, want %d", c.Size, dataLUKS)
			}
			for at, v := range read(t, c, 4096, 12288) {
				if v != 0xa5 {
					t.Fatalf("byte %d, written by qemu-io, reads as %#x", 4096+at, v)
				}
			}
			content := fixtures.Pattern("mix", uint64(i), dataLUKS)
			write(t, c, 0, content)
			flush(t, c)
			b.shut(c, name)
			b.qemuReads(image, content)
		})
	}
}

// A LUKS1 volume of cryptsetup's, written by us, is one that qemu reads, and the
// other way round.
func TestCryptsetupFormatsWeWriteQEMUReads(t *testing.T) {
	harness.Need(t, "cryptsetup", "qemu-img", "qemu-io")
	b := newLUKSBench(t)
	image := b.blank("one.img", 3*miB)
	b.cryptsetup(append([]string{"luksFormat", "--type", "luks1", "--key-file", b.pass, image}, cheap["pbkdf2"]...)...)
	const size = miB // behind a header of 2 MiB
	content := fixtures.Pattern("mix", 77, size)
	c := b.open(image, "one")
	if c.Size != size {
		t.Errorf("size %d, want %d", c.Size, size)
	}
	write(t, c, 0, content)
	flush(t, c)
	b.shut(c, "one")
	b.qemuReads(image, content)
	b.qemuIO(image, "write -P 0x5a 524288 8192")
	for i := range 8192 {
		content[524288+i] = 0x5a
	}
	c = b.open(image, "again")
	if i := firstDifference(read(t, c, 0, size), content); i >= 0 {
		t.Errorf("after qemu-io has written: differs at byte %d", i)
	}
	b.shut(c, "again")
}

// QEMU reads what we write to LUKS1 volumes that we formatted, and we what it writes:
// each cipher and hash that both have. Keys of 192 bits are not among them, since QEMU
// 7.2 crashes on key material that is not whole sectors, nor is ECB, for which it wants
// an IV mode in the header.
func TestWeFormatLUKS1AndQEMUReadsAndWrites(t *testing.T) {
	harness.Need(t, "qemu-img", "qemu-io")
	b := newLUKSBench(t)
	for i, x := range []struct {
		cipher string
		bits   int
		hash   string
	}{
		{"aes-xts-plain64", 512, "sha256"}, {"aes-xts-plain", 256, "sha1"}, {"aes-cbc-essiv:sha256", 256, "sha512"},
		{"aes-cbc-plain64", 128, "ripemd160"}, {"aes-cbc-plain", 256, "sha224"},
		{"serpent-xts-plain64", 512, "sha256"}, {"serpent-cbc-plain64", 128, "sha384"},
		{"twofish-xts-plain64", 512, "sha512"}, {"twofish-cbc-essiv:sha256", 256, "sha1"},
	} {
		t.Run(fmt.Sprintf("%s-%d/%s", x.cipher, x.bits, x.hash), func(t *testing.T) {
			b := b.in(t)
			name := fmt.Sprint("o", i)
			image := filepath.Join(b.Dir, name+".img")
			const size = dataLUKS
			b.OK("luks", "format", image, "--size", fmt.Sprint(3*miB+size), "--type", "luks1", "--cipher", x.cipher, "--key-size", fmt.Sprint(x.bits),
				"--hash", x.hash, "--offset", "6144", "--pbkdf-force-iterations", "1000", "--key-file", b.pass)
			content := fixtures.Pattern("mix", uint64(100+i), size)
			c := b.open(image, name)
			if c.Size != size {
				t.Errorf("size %d, want %d", c.Size, size)
			}
			write(t, c, 0, content)
			flush(t, c)
			b.shut(c, name)
			b.qemuReads(image, content)
			b.qemuIO(image, "write -P 0x3c 8192 4096")
			for i := range 4096 {
				content[8192+i] = 0x3c
			}
			c = b.open(image, name)
			if k := firstDifference(read(t, c, 0, size), content); k >= 0 {
				t.Errorf("after qemu-io has written: differs at byte %d", k)
			}
			b.shut(c, name)
			os.Remove(image)
		})
	}
}
