package luks

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"testing"

	"keyway/internal/dataunit/dataunittest"
	"keyway/internal/secret"
)

// What comes of the stripes on the way to the key is the key to who has the last one
// too, and that one is on the disk.
func TestStackForgetsWhatWasMerged(t *testing.T) {
	const n, stripes = 64, 5
	src := make([]byte, n*stripes)
	for i := range src {
		src[i] = byte(i*i>>3 ^ i*7)
	}
	for name, std := range map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New} {
		var secrets [][]byte
		for have := n; have <= len(src); have += n {
			merged := naiveMerge(src[:have], n, std)
			diffused := naiveDiffuse(merged, std)
			words := bytes.Clone(diffused[:16]) // as the state has them
			for i := 0; i < len(words); i += 4 {
				binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
			}
			if std().BlockSize() == 128 {
				for i := 0; i < len(words); i += 8 {
					binary.NativeEndian.PutUint64(words[i:], binary.BigEndian.Uint64(diffused[i:]))
				}
			}
			secrets = append(secrets, merged[:16], merged[48:], diffused[:16], words)
		}
		h, err := newHash(name)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Wipe()
		key, err := secret.New(n)
		if err != nil {
			t.Fatal(err)
		}
		defer key.Wipe()
		stripes, err := secret.New(len(src))
		if err != nil {
			t.Fatal(err)
		}
		defer stripes.Wipe()
		copy(stripes.Bytes(), src)
		dataunittest.Forgets(t, func() { afMerge(key.Bytes(), stripes.Bytes(), h) }, secrets[:len(secrets)-2]...)
		dataunittest.Forgets(t, func() {
			if err := afSplit(stripes.Bytes(), key.Bytes(), h); err != nil {
				t.Error(err)
			}
		}, key.Bytes()[:16], key.Bytes()[48:])
		again, err := secret.New(n)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Wipe()
		afMerge(again.Bytes(), stripes.Bytes(), h)
		if !again.Equal(key.Bytes()) {
			t.Errorf("%s: what was split is not merged to the same key", name)
		}
	}
}
