package luks_test

import (
	"context"
	"testing"

	"keyway/luks"
	"keyway/test/harness"
)

// TestHashesAreCryptsetups: a hash function means the same to cryptsetup, in the
// derivation, the anti-forensic split and the digest. Of each family one, the others
// differ in constants, which package digest tests.
func TestHashesAreCryptsetups(t *testing.T) {
	harness.Need(t, "cryptsetup")
	const size = 17 << 20
	for _, name := range []string{"sha224", "sha3-384", "ripemd160", "blake2b-512", "blake2s-256", "whirlpool", "sm3"} {
		t.Run(name, func(t *testing.T) {
			ours := image(t, size)
			o := luks.FormatOptions{Hash: name, Key: luks.KeyOptions{KDF: luks.KDFOptions{Type: "pbkdf2", Hash: name, Iterations: 1000}}}
			_, v, err := luks.Format(context.Background(), ours, size, []byte("first"), o)
			if err != nil {
				t.Fatal(err)
			}
			v.Key.Wipe()
			if err := testPassphrase(t, ours, "first", 0); err != nil {
				t.Error(err)
			}
			if name != "whirlpool" {
				return // the way back is the same mathematics: one is enough
			}
			theirs := image(t, size)
			harness.ToolOK(t, "cryptsetup", "luksFormat", "-q", "--disable-locks", "--hash", name, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
				"--key-file", keyFile(t, "second"), theirs.Name())
			h, err := luks.Read(theirs, size, luks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if k := h.Keyslots[0]; k.KDF.Hash != name || k.AF.Hash != name || h.Digests[0].Hash != name {
				t.Errorf("cryptsetup uses %s, %s and %s", k.KDF.Hash, k.AF.Hash, h.Digests[0].Hash)
			}
			w, err := h.Open(context.Background(), theirs, []byte("second"), luks.AnySlot)
			if err != nil {
				t.Fatal(err)
			}
			w.Key.Wipe()
		})
	}
}
