package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"keyway/blkcrypto"
	"keyway/control"
	"keyway/fscrypt"
	"keyway/internal/daemon"
	"keyway/internal/keysource"
	"keyway/internal/secret"
)

// A masterKey is one that --key names.
type masterKey struct {
	control.FscryptKey
	source *keysource.Source
	bytes  *secret.Buffer
}

// parseMasterKeys reads the words of --key. Errors repeat nothing of what may be a key.
func parseMasterKeys(words []string) (keys []*masterKey, err error) {
	if len(words) > control.MaxFscryptKeys {
		return nil, misusef("--key: %d keys, more than %d", len(words), control.MaxFscryptKeys)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for i, word := range words {
		k := &masterKey{}
		source := word
		if before, after, found := strings.Cut(word, "="); found {
			switch isHex := before != "" && strings.Trim(before, "0123456789abcdefABCDEF") == ""; {
			case before == "wrapped":
				k.Wrapped, source = true, after
			case isHex && len(before) != 2*fscrypt.DescriptorSize:
				return nil, misusef("--key %d: a descriptor has %d hex digits, and %d are there", i+1, 2*fscrypt.DescriptorSize, len(before))
			case isHex:
				k.Descriptor, source = strings.ToLower(before), after
			}
		}
		s, err := keysource.Parse(source)
		if err != nil {
			err = fmt.Errorf("--key %d: %w", i+1, err)
			return nil, misuse{error: err, way: daemon.Hint(err)}
		}
		k.source = s.Abs(dir)
		k.Source = s.Name()
		keys = append(keys, k)
	}
	return keys, nil
}

// readMasterKeys reads the keys, one after the other, since each may ask somebody. If
// one cannot be read, none is kept.
func readMasterKeys(ctx context.Context, keys []*masterKey) (err error) {
	defer func() {
		if err != nil {
			wipeMasterKeys(keys)
		}
	}()
	for i, k := range keys {
		env := sourceEnv()
		if ask := env.Ask; len(keys) > 1 {
			env.Ask = func(ctx context.Context, what string) (*secret.Buffer, error) {
				return ask(ctx, fmt.Sprintf("--key %d, %s", i+1, what))
			}
		}
		if k.bytes, err = k.source.Read(ctx, env); err != nil {
			return fmt.Errorf("--key %d: %w", i+1, err)
		}
		k.Size = k.bytes.Len()
		least, most, way := fscrypt.MinKeySize, fscrypt.MaxKeySize, "a master key is binary; \"?encoding=hex\" or \"base64\" behind a source decodes text"
		if k.Wrapped {
			least, most, way = 1, blkcrypto.MaxWrapped, ""
		}
		if k.Size < least || k.Size > most {
			return &control.Error{
				Message: fmt.Sprintf("--key %d: %s: %d bytes, and a master key has %d to %d", i+1, k.Source, k.Size, least, most), Hint: way,
			}
		}
	}
	return nil
}

func wipeMasterKeys(keys []*masterKey) {
	for _, k := range keys {
		if k.bytes != nil {
			k.bytes.Wipe()
			k.bytes = nil
		}
	}
}
