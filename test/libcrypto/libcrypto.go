// Package libcrypto asks OpenSSL's libcrypto what it makes of data units: the
// foreign opinion on our ciphers, and their peer in measurements. A small C program
// (opinion/opinion.c) does the work; gcc compiles it when a test starts it. Cgo
// would do without the second process, but then every test binary would need a C
// compiler.
package libcrypto

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/internal/dataunit"
	"keyway/test/harness"
)

//go:embed opinion/opinion.c
var source []byte

// Op is what to do with each data unit.
type Op uint32

const (
	version     Op = iota
	AESECB         // no initialisation vectors
	AESCBC         // one of 16 bytes for each data unit, without padding
	AESXTS         // one of 16 bytes; keys of 32 and 64 bytes; may steal ciphertext
	AESXTSByECB    // the same for every key size, put together from ECB
	SM4ECB
	SM4XTS // put together from ECB
)

// A Call is one request.
type Call struct {
	Op   Op
	Key  []byte
	Unit int    // bytes in a data unit
	IVs  []byte // for all data units in a row
	Data []byte // whole data units
	// Decrypt is the other direction.
	Decrypt bool
	// Repeat, if above 1, does the same so many times, for Time.
	Repeat int
}

// An Opinion is a running program, for one goroutine at a time. Its methods fail
// the test that started it.
type Opinion struct {
	t testing.TB
	w *bufio.Writer
	r *bufio.Reader
}

// Start compiles the program and starts it until the test ends. Without gcc or
// libcrypto's headers it skips the test, in CI it fails it.
func Start(t testing.TB) *Opinion {
	t.Helper()
	harness.Need(t, "gcc")
	dir := t.TempDir()
	file, program := filepath.Join(dir, "opinion.c"), filepath.Join(dir, "opinion")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, file, "-lcrypto").CombinedOutput(); err != nil {
		missing := strings.Contains(string(out), "openssl/err.h: No such file") || strings.Contains(string(out), "cannot find -lcrypto")
		if missing && !harness.CI() {
			t.Skip("libcrypto's headers are not installed (Debian: libssl-dev): scripts/install-tools installs what these tests need")
		}
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close() // its end of file: the program exits
		if err := cmd.Wait(); err != nil {
			t.Errorf("opinion: %v", err)
		}
	})
	o := &Opinion{t: t, w: bufio.NewWriterSize(in, 1<<16), r: bufio.NewReaderSize(out, 1<<16)}
	v, _, _ := o.send(Call{Op: version})
	t.Logf("foreign opinion: %s", v)
	return o
}

const (
	done    = 0
	lacking = 1
)

// send does one round trip. ok is false if this libcrypto lacks the cipher.
func (o *Opinion) send(c Call) (data []byte, took time.Duration, ok bool) {
	o.t.Helper()
	units, ivLen := 0, 0
	if c.Unit > 0 {
		units = len(c.Data) / c.Unit
	}
	if units*c.Unit != len(c.Data) {
		o.t.Fatalf("libcrypto: %d bytes are no whole data units of %d", len(c.Data), c.Unit)
	}
	if units > 0 {
		ivLen = len(c.IVs) / units
	}
	var head []byte
	for _, x := range []uint32{
		uint32(c.Op), boolean(c.Decrypt), uint32(len(c.Key)), uint32(c.Unit),
		uint32(units), uint32(ivLen), uint32(max(c.Repeat, 1)), 0,
	} {
		head = binary.LittleEndian.AppendUint32(head, x)
	}
	for _, b := range [][]byte{head, c.Key, c.IVs[:ivLen*units], c.Data} {
		if _, err := o.w.Write(b); err != nil {
			o.t.Fatalf("opinion: %v", err)
		}
	}
	if err := o.w.Flush(); err != nil {
		o.t.Fatalf("opinion: %v", err)
	}
	var reply [16]byte
	if _, err := io.ReadFull(o.r, reply[:]); err != nil {
		o.t.Fatalf("opinion: no answer: %v", err)
	}
	data = make([]byte, binary.LittleEndian.Uint32(reply[4:]))
	if _, err := io.ReadFull(o.r, data); err != nil {
		o.t.Fatalf("opinion: answer ends early: %v", err)
	}
	switch binary.LittleEndian.Uint32(reply[:]) {
	case done:
		return data, time.Duration(binary.LittleEndian.Uint64(reply[8:])), true
	case lacking:
		return nil, 0, false
	}
	o.t.Fatalf("libcrypto: %s", data)
	return nil, 0, false
}

func boolean(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// Has tells whether this libcrypto can do op with a key of n bytes. XTS keys with
// equal halves it refuses, ours to avoid.
func (o *Opinion) Has(op Op, n int) bool {
	o.t.Helper()
	key := make([]byte, n)
	key[0] = 1
	_, _, ok := o.send(Call{Op: op, Key: key})
	return ok
}

// Do returns what libcrypto makes of the data.
func (o *Opinion) Do(c Call) []byte {
	o.t.Helper()
	data, _, ok := o.send(c)
	if !ok {
		o.t.Fatalf("libcrypto: op %d with a key of %d bytes is not supported here", c.Op, len(c.Key))
	}
	return data
}

// Time returns how long one repetition takes, from memory to memory in its own
// process, key set-up not counted.
func (o *Opinion) Time(c Call) time.Duration {
	o.t.Helper()
	_, took, ok := o.send(c)
	if !ok {
		o.t.Fatalf("libcrypto: op %d with a key of %d bytes is not supported here", c.Op, len(c.Key))
	}
	return took / time.Duration(max(c.Repeat, 1))
}

// Numbers returns the numbers dun, dun+1, ... of n data units, 16 bytes each,
// little endian.
func Numbers(dun [2]uint64, n int) []byte {
	var b []byte
	for k := range n {
		d := dataunit.Add128(dun, k)
		b = binary.LittleEndian.AppendUint64(b, d[0])
		b = binary.LittleEndian.AppendUint64(b, d[1])
	}
	return b
}

// AESXTS is AES-XTS of consecutive data units.
func (o *Opinion) AESXTS(key, src []byte, unit int, dun [2]uint64, decrypt bool) []byte {
	o.t.Helper()
	op := AESXTS
	if len(key) == 48 { // libcrypto has none
		op = AESXTSByECB
	}
	return o.Do(Call{Op: op, Key: key, Unit: unit, IVs: Numbers(dun, len(src)/unit), Data: src, Decrypt: decrypt})
}

// SM4XTS is SM4-XTS of consecutive data units, in the multiplication order of IEEE
// 1619, as the kernel's xts(sm4).
func (o *Opinion) SM4XTS(key, src []byte, unit int, dun [2]uint64, decrypt bool) []byte {
	o.t.Helper()
	return o.Do(Call{Op: SM4XTS, Key: key, Unit: unit, IVs: Numbers(dun, len(src)/unit), Data: src, Decrypt: decrypt})
}

// ESSIV is AES-CBC of consecutive data units whose initialisation vectors are
// their numbers, encrypted under the SHA-256 of the key.
func (o *Opinion) ESSIV(key, src []byte, unit int, dun [2]uint64, decrypt bool) []byte {
	o.t.Helper()
	return o.Do(Call{Op: AESCBC, Key: key, Unit: unit, IVs: o.ESSIVs(key, dun, len(src)/unit), Data: src, Decrypt: decrypt})
}

// ESSIVs are the initialisation vectors of ESSIV for n data units.
func (o *Opinion) ESSIVs(key []byte, dun [2]uint64, n int) []byte {
	o.t.Helper()
	salt := sha256.Sum256(key)
	return o.Do(Call{Op: AESECB, Key: salt[:], Unit: 16, Data: Numbers(dun, n)})
}
