package dm_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyway/blkcrypto"
	"keyway/internal/secret"
	"keyway/keyslot"
	"keyway/keyslot/emul"
)

// The commands about keys.

// A scriptKey is a key and what the reference needs to know of it.
type scriptKey struct {
	key    *blkcrypto.Key // nil: tables name it
	inline []byte         // what encrypts, of a wrapped key too
	mode   blkcrypto.Mode
	unit   int // bytes
	stop   map[string]func()
}

// keyBytes are what a key of this name consists of.
func keyBytes(name string) []byte {
	b := sha512.Sum512([]byte("key " + name))
	return b[:]
}

func cmdKey(w *scriptWorld, a *scriptArgs) scriptDo {
	name := a.next("a name")
	c := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}
	if v, ok := a.option("unit"); ok {
		c.DataUnitSize = int(a.parse("unit", v))
	}
	if v, ok := a.option("dun"); ok {
		c.DUNBytes = int(a.parse("dun", v))
	}
	if v, ok := a.option("mode"); ok {
		m, err := blkcrypto.ParseMode(v)
		if err != nil {
			a.ts.Fatalf("%v", err)
		}
		c.Mode = m
	}
	like, ok := a.option("bytes")
	if !ok {
		like = name
	}
	hardware, _ := a.option("hardware")
	wrapped, table := a.flag("wrapped"), a.flag("table")
	if old := w.keys[name]; old != nil {
		a.ts.Fatalf("there is a key %q", name)
	}
	return func(context.Context) (string, error) {
		switch {
		case wrapped:
			return "", w.newWrapped(name, like, hardware, c, table)
		case table:
			w.AddKey(name, keyBytes(like))
			w.putKey(name, &scriptKey{inline: keyBytes(like), mode: c.Mode, unit: 512})
			return "", nil
		}
		w.putKey(name, w.newKeyOf(name, keyBytes(like)[:c.Mode.KeySize()], c))
		return "", nil
	}
}

func (w *scriptWorld) newKey(name string, c blkcrypto.Config) *scriptKey {
	k := w.newKeyOf(name, keyBytes(name), c)
	w.putKey(name, k)
	return k
}

func (w *scriptWorld) putKey(name string, k *scriptKey) {
	w.keyMu.Lock()
	defer w.keyMu.Unlock()
	w.keys[name] = k
}

func (w *scriptWorld) newKeyOf(name string, raw []byte, c blkcrypto.Config) *scriptKey {
	b, err := secret.Copy(bytes.Clone(raw))
	if err != nil {
		w.tb.Fatal(err)
	}
	k, err := blkcrypto.NewKey(name, c, b)
	if err != nil {
		w.tb.Fatal(err)
	}
	return &scriptKey{key: k, inline: raw, mode: c.Mode, unit: c.DataUnitSize, stop: map[string]func(){}}
}

// newWrapped makes a key that software has in wrapped form only. What engines
// make of it the reference knows, as the key derivation is public.
func (w *scriptWorld) newWrapped(name, like, hardware string, c blkcrypto.Config, table bool) error {
	h := w.wrapping(hardware)
	raw := keyBytes(like)[:emul.RawSize]
	long, err := h.Import(raw)
	if err != nil {
		return err
	}
	defer long.Wipe()
	eph, err := h.Prepare(long.Bytes())
	if err != nil {
		return err
	}
	inline := wrappedReference(raw)
	if table {
		w.AddKey(name, bytes.Clone(eph.Bytes()))
		eph.Wipe()
		w.putKey(name, &scriptKey{inline: inline, mode: c.Mode, unit: 512})
		return nil
	}
	c.KeyType = blkcrypto.HWWrapped
	k, err := blkcrypto.NewKey(name, c, eph)
	if err != nil {
		return err
	}
	w.putKey(name, &scriptKey{key: k, inline: inline, mode: c.Mode, unit: c.DataUnitSize, stop: map[string]func(){}})
	return nil
}

// wrappedReference is the inline key of a wrapped one: blkcrypto.md, section
// 10.4, with CMAC of AES-256 after RFC 4493.
func wrappedReference(raw []byte) (inline []byte) {
	context := append([]byte("inline encryption key"), 0, 0, 0, 0, 0, 0, 2, 0x43, 0, 0x82, 0x50, 0, 0, 0, 0)
	label := []byte{0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x20}
	for i := uint32(1); len(inline) < 64; i++ {
		msg := binary.BigEndian.AppendUint32(nil, i)
		msg = append(append(append(msg, label...), 0), context...)
		inline = append(inline, cmacReference(raw, binary.BigEndian.AppendUint32(msg, 64*8))...)
	}
	return inline
}

func cmacReference(key, msg []byte) []byte {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	sub := make([]byte, aes.BlockSize)
	b.Encrypt(sub, sub)
	for n := 0; n == 0 || n == 1 && len(msg)%aes.BlockSize != 0; n++ {
		carry := sub[0] >> 7
		for i := range sub {
			sub[i] <<= 1
			if i+1 < len(sub) {
				sub[i] |= sub[i+1] >> 7
			}
		}
		sub[aes.BlockSize-1] ^= carry * 0x87
	}
	if len(msg)%aes.BlockSize != 0 {
		msg = append(msg, 0x80)
		msg = append(msg, make([]byte, (aes.BlockSize-len(msg)%aes.BlockSize)%aes.BlockSize)...)
	}
	last := msg[len(msg)-aes.BlockSize:]
	subtle.XORBytes(last, last, sub)
	cipher.NewCBCEncrypter(b, make([]byte, aes.BlockSize)).CryptBlocks(msg, msg)
	return last
}

func (w *scriptWorld) key(a *scriptArgs, name string) *scriptKey {
	k := w.keys[name]
	if k == nil {
		a.ts.Fatalf("there is no key %q", name)
	}
	return k
}

// live is the key itself: of a table, the one that a table took last.
func (w *scriptWorld) live(a *scriptArgs) *blkcrypto.Key {
	name := a.next("a key")
	if k := w.key(a, name); k.key != nil {
		return k.key
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tables[name] == nil {
		a.ts.Fatalf("no table has taken key %q", name)
	}
	return w.tables[name]
}

func cmdStart(w *scriptWorld, a *scriptArgs) scriptDo {
	by, ok := a.option("by")
	if !ok {
		by = "a file system"
	}
	k := w.key(a, a.next("a key"))
	m := w.device(a)
	return func(context.Context) (string, error) {
		stop, err := m.StartKey(k.key, by)
		if err == nil {
			k.stop[m.Name()] = stop
		}
		return "", err
	}
}

func cmdFinish(w *scriptWorld, a *scriptArgs) scriptDo {
	k := w.key(a, a.next("a key"))
	name := w.device(a).Name()
	if k.stop[name] == nil {
		a.ts.Fatalf("it was not started there")
	}
	return func(context.Context) (string, error) {
		k.stop[name]()
		delete(k.stop, name)
		return "", nil
	}
}

// cmdEvict prints the receipt, and after a success looks for the key's bytes in
// every engine that there ever was.
func cmdEvict(w *scriptWorld, a *scriptArgs) scriptDo {
	on, there := a.option("on")
	idle, force := a.flag("idle"), a.flag("force")
	within := scriptPatience
	if v, ok := a.option("within"); ok {
		var err error
		if within, err = time.ParseDuration(v); err != nil {
			a.ts.Fatalf("%v", err)
		}
	}
	name := a.words[0]
	k := w.live(a)
	evict := k.Evict
	if idle {
		evict = k.EvictIdle
	}
	if force {
		evict = k.Revoke
	}
	if there {
		m := w.device(&scriptArgs{a.ts, []string{on}})
		return func(ctx context.Context) (string, error) {
			p := m.Keyslots().EvictKey(ctx, k)
			return receipt([]blkcrypto.Place{p}), p.Err
		}
	}
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		r, err := evict(ctx)
		if err == nil {
			err = w.gone(name)
		}
		return receipt(r.Places), err
	}
}

func receipt(places []blkcrypto.Place) string {
	var out strings.Builder
	for _, p := range places {
		state := "gone"
		if p.Err != nil {
			state = p.Err.Error()
		}
		fmt.Fprintf(&out, "%s: %s: %s\n", p.Holder, p.Detail, state)
	}
	return out.String()
}

// gone looks for the bytes of a key in the registers of all engines, also those
// of devices that are gone. Another key of equal bytes may have them.
func (w *scriptWorld) gone(name string) error {
	w.keyMu.RLock()
	defer w.keyMu.RUnlock()
	for other, k := range w.keys {
		if other != name && bytes.Equal(k.inline, w.keys[name].inline) {
			return nil
		}
	}
	for _, e := range w.engines {
		for slot, names := range e.registersOf(w.keys) {
			if names == name {
				return fmt.Errorf("%s still encrypts with key %s in keyslot %d", e.name, name, slot)
			}
		}
	}
	return nil
}

// cmdDerive prints the software secret of a wrapped key that a device gives,
// in part: to compare.
func cmdDerive(w *scriptWorld, a *scriptArgs) scriptDo {
	name := a.next("a key")
	w.key(a, name)
	m := w.device(a)
	hardware, _ := a.option("hardware")
	return func(context.Context) (string, error) {
		wrapper := m.Keyslots().Wrapper()
		if wrapper == nil {
			return "", fmt.Errorf("device %q has no hardware for wrapped keys", m.Name())
		}
		long, err := w.wrapping(hardware).Import(keyBytes(name)[:emul.RawSize])
		if err != nil {
			return "", err
		}
		defer long.Wipe()
		eph, err := wrapper.Prepare(long.Bytes())
		if err != nil {
			return "", err
		}
		defer eph.Wipe()
		sec, err := wrapper.DeriveSecret(eph.Bytes())
		if errors.Is(err, keyslot.ErrBadBlob) {
			return "", err
		}
		defer sec.Wipe()
		return fmt.Sprintf("a secret of %d bytes that begins %x\n", sec.Len(), sec.Bytes()[:4]), err
	}
}
