package argon2

import (
	"bytes"
	"context"
	"testing"
)

func FuzzEqualsXCrypto(f *testing.F) {
	f.Add(false, uint8(1), uint16(0), uint8(1), []byte("passphrase"), []byte("somesalt"), uint16(32))
	f.Add(true, uint8(2), uint16(1000), uint8(3), []byte{}, []byte{}, uint16(65))
	f.Fuzz(func(t *testing.T, id bool, time uint8, memory uint16, lanes uint8, pass, salt []byte, n uint16) {
		p := Params{Argon2i, 1 + int(time%3), 0, 1 + int(lanes%6)}
		if id {
			p.Variant = Argon2id
		}
		p.Memory = 8*p.Lanes + int(memory%2048)
		got := make([]byte, 4+int(n%600))
		if err := Key(context.Background(), got, pass, salt, p); err != nil {
			t.Fatal(err)
		}
		if want := theirs(p.Variant, pass, salt, p, len(got)); !bytes.Equal(got, want) {
			t.Errorf("%+v: %x, want %x", p, got, want)
		}
	})
}
