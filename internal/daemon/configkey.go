package daemon

import (
	"errors"
	"fmt"

	"keyway/blkcrypto"
	"keyway/internal/keysource"
	"keyway/keystore"
)

// A KeyConfig declares a key.
type KeyConfig struct {
	Name     string
	Config   blkcrypto.Config
	File     string            // absolute path; "": Source says where it is
	Source   *keysource.Source // nil: File does
	Generate bool              // make the file if it is absent
	Weak     bool              // take an XTS key with equal halves
}

type keyTable struct {
	Mode     string `toml:"mode"`
	Type     string `toml:"type"`
	DataUnit int    `toml:"data-unit"`
	DUNBytes int    `toml:"dun-bytes"`
	File     string `toml:"file"`
	Source   any    `toml:"source"` // a string, or an array of them
	Generate bool   `toml:"generate"`
	Weak     bool   `toml:"allow-weak"`
}

func (b *builder) key(c *Config, name string, k keyTable) {
	at := func(key string) []string { return []string{"key", name, key} }
	if err := keystore.CheckName(name); err != nil {
		b.fail([]string{"key", name}, "%w", err)
	}
	source, err := b.keySource(k)
	switch {
	case err != nil:
		b.fail(at("source"), "%w", err)
	case k.File != "" && source != nil:
		b.fail(at("source"), "does not go with file: either says where the key is")
	case source != nil && k.Generate:
		b.fail(at("generate"), "goes with file: nothing else is made here")
	case k.File == "" && source == nil:
		b.fail(at("file"), "is not set, and source is not: one of them says where the key is")
	}
	cfg, field, err := keyConfig(k.Mode, k.Type, k.DataUnit, k.DUNBytes)
	if err != nil {
		b.fail(at(field), "%w", err)
	}
	c.Keys = append(c.Keys, KeyConfig{Name: name, Config: cfg, File: b.path(k.File), Source: source, Generate: k.Generate, Weak: k.Weak})
}

// keySource reads the source of a key, nil if there is none: a string, or an array
// with the arguments of a program after it.
func (b *builder) keySource(k keyTable) (*keysource.Source, error) {
	var words []string
	switch v := k.Source.(type) {
	case nil:
		return nil, nil
	case string:
		words = []string{v}
	case []any:
		for _, w := range v {
			text, ok := w.(string)
			if !ok {
				return nil, errors.New("is an array of something else than strings")
			}
			words = append(words, text)
		}
	}
	if len(words) == 0 {
		return nil, errors.New("is neither a string nor an array of strings")
	}
	s, err := keysource.Parse(words[0], words[1:]...)
	if err == nil {
		err = lasting(s)
	}
	if err != nil {
		if way := Hint(err); way != "" {
			err = fmt.Errorf("%v; %s", err, way) // the errors of a configuration come together, and their ways with them
		}
		return nil, err
	}
	return s.Abs(b.dir), nil
}

// lasting refuses sources that the daemon cannot read by itself.
func lasting(s *keysource.Source) error {
	if why := s.Fleeting(); why != "" {
		return fmt.Errorf("the daemon cannot read it by itself: %s", why)
	}
	return nil
}

// keyConfig makes a config of what a user gave, with defaults for what is 0:
// data units of 4096 bytes, which is a page, and the 8 DUN bytes that block
// numbers have. After an error, field says which of them is wrong.
func keyConfig(mode, typ string, dataUnit, dunBytes int) (c blkcrypto.Config, field string, err error) {
	if mode == "" {
		return c, "mode", fmt.Errorf("the mode is not set (known: %v)", blkcrypto.Modes())
	}
	m, err := blkcrypto.ParseMode(mode)
	if err != nil {
		var names []string
		for _, m := range blkcrypto.Modes() {
			names = append(names, m.String())
		}
		return c, "mode", fmt.Errorf("unknown encryption mode %q%s", mode, didYouMean(mode, names))
	}
	keyType := blkcrypto.Raw
	if typ != "" {
		if keyType, err = blkcrypto.ParseKeyType(typ); err != nil {
			return c, "type", err
		}
	}
	if keyType == blkcrypto.HWWrapped && m != blkcrypto.AES256XTS {
		return c, "type", fmt.Errorf("wrapped keys are for %v, not for %v", blkcrypto.AES256XTS, m)
	}
	if dataUnit == 0 {
		dataUnit = 4096
	}
	if dunBytes == 0 {
		dunBytes = min(8, m.IVSize())
	}
	c = blkcrypto.Config{Mode: m, KeyType: keyType, DataUnitSize: dataUnit, DUNBytes: dunBytes}
	field = "data-unit"
	if dunBytes < 1 || dunBytes > m.IVSize() {
		field = "dun-bytes"
	}
	return c, field, c.Check()
}
