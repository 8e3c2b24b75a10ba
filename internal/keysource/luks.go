package keysource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"keyway/internal/secret"
	"keyway/luks"
)

func init() {
	Register(Scheme{
		Name: "luks", Place: "PATH", Path: true, Heavy: true, Summary: "the volume key of a LUKS1 or LUKS2 header, at the start of an image or in a file of its own",
		Options: append(passphraseOptions(),
			Option{Name: "key-slot", Kind: Number, Max: 31, Value: "N", Summary: "try this keyslot alone"},
			Option{Name: "header-policy", Kind: OneOf, Words: []string{"strict", "permissive"}, Value: "strict|permissive", Summary: "what the header may ask for"},
		),
		Check:    func(s *Source) error { return s.only("key-file", "credential") },
		Fleeting: func(s *Source) string { return s.unattended("key-file", "credential") },
		Read:     readLUKS,
	})
}

func readLUKS(ctx context.Context, s *Source, e *Env) (*secret.Buffer, error) {
	var policy luks.Policy
	if name := s.get("header-policy"); name != "" {
		var err error
		if policy, err = luks.ParsePolicy(name); err != nil {
			return nil, err
		}
	}
	f, n, err := openHeader(s.Place)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := luks.Read(f, n, luks.Options{Policy: policy, Data: -1}) // the data may be elsewhere
	if err == nil {
		err = h.Writable() // during a reencryption there are two keys
	}
	if err != nil {
		return nil, err
	}
	for i, c := range h.Copies {
		if c.Err != nil {
			e.warnf("%s: copy %d of the LUKS header is damaged, and the other is used: %v", s.Place, i+1, c.Err)
		}
	}
	pass, err := s.passphrase(ctx, e, maxLUKSKeyFile)
	if err != nil {
		return nil, err
	}
	defer pass.Wipe()
	v, err := h.Open(ctx, f, pass.Bytes(), s.number("key-slot", luks.AnySlot))
	if errors.Is(err, luks.ErrPassphrase) {
		err = withWay(err, "a key file is taken byte by byte, with the newline at its end if it has one, as cryptsetup does")
	}
	if err != nil {
		return nil, err
	}
	if h.Unbound(v.Slot) {
		v.Key.Wipe()
		return nil, fmt.Errorf("keyslot %d %w", v.Slot, luks.ErrUnbound)
	}
	return v.Key, nil
}

// openHeader opens a file or a block device and tells its size in bytes.
func openHeader(path string) (*os.File, int64, error) {
	f, st, err := open(path)
	if err != nil {
		return nil, 0, err
	}
	if t := st.Mode().Type(); t != 0 && t != fs.ModeDevice {
		f.Close()
		return nil, 0, errors.New("is neither a file nor a block device")
	}
	n, err := f.Seek(0, io.SeekEnd)
	if err == nil && n == 0 {
		err = errEmpty
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%w", err)
	}
	return f, n, nil
}
