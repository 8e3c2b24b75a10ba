package dm_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/test/naive"
)

// The commands that send requests and look at the disks.

// scriptText returns n bytes that a word stands for, from sector skip on.
func scriptText(word string, n int64) ([]byte, error) {
	name, from, found := strings.Cut(word, "+")
	skip := int64(0)
	if found {
		var err error
		if skip, err = strconv.ParseInt(from, 10, 32); err != nil {
			return nil, err
		}
	}
	b := make([]byte, skip<<9+n)
	if name != "zeroes" {
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(b) // it never fails
	}
	return b[skip<<9:], nil
}

// scriptDUN reads a number of up to 256 bits.
func scriptDUN(a *scriptArgs, text string) blkcrypto.DUN {
	n, ok := new(big.Int).SetString(text, 0)
	if !ok || n.Sign() < 0 || n.BitLen() > 256 {
		a.ts.Fatalf("%q is not the number of a data unit", text)
	}
	var d blkcrypto.DUN
	for i := range d {
		d[i] = new(big.Int).And(new(big.Int).Rsh(n, uint(64*i)), new(big.Int).SetUint64(1<<64-1)).Uint64()
	}
	return d
}

// request reads "SECTOR COUNT [TEXT]" and the options of a request.
func (w *scriptWorld) request(a *scriptArgs, op block.Op) (r block.Request, text string) {
	r.Op, r.Off, r.Len = op, a.number("a sector")<<9, a.number("a count")<<9
	for name, flag := range map[string]block.Flags{"fua": block.FUA, "nowait": block.NoWait, "marked": block.SkipDefaultKey} {
		if a.flag(name) {
			r.Flags |= flag
		}
	}
	if name, ok := a.option("key"); ok {
		k := w.key(a, name)
		r.Crypt = blkcrypto.Context{Key: k.key, DUN: k.key.Config().DUN(blkcrypto.DUN{}, r.Off)}
		if n, ok := a.option("dun"); ok {
			r.Crypt.DUN = scriptDUN(a, n)
		}
	}
	if op.HasData() {
		text = a.next("a text")
	}
	return r, text
}

func cmdWrite(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	r, text := w.request(a, block.OpWrite)
	data, err := scriptText(text, r.Len)
	if err != nil {
		a.ts.Fatalf("%v", err)
	}
	if r.Crypt.Active() {
		w.hide(text, data)
	}
	return func(ctx context.Context) (string, error) {
		r.Data = block.Bytes(bytes.Clone(data))
		if err := m.Do(ctx, r); err != nil {
			return "", err
		}
		if got := make([]byte, r.Len); r.Flags&block.Scratch == 0 {
			r.Data.CopyTo(got)
			if !bytes.Equal(got, data) {
				return "", errors.New("the write changed its source")
			}
		}
		return "", nil
	}
}

func cmdRead(w *scriptWorld, a *scriptArgs) scriptDo {
	m := w.device(a)
	r, text := w.request(a, block.OpRead)
	want, err := scriptText(text, r.Len)
	if err != nil {
		a.ts.Fatalf("%v", err)
	}
	return func(ctx context.Context) (string, error) {
		got := make([]byte, r.Len)
		r.Data = block.Bytes(got)
		if err := m.Do(ctx, r); err != nil {
			return "", err
		}
		return "", sameBytes(got, want, "read")
	}
}

func sameBytes(got, want []byte, what string) error {
	for off := 0; off < len(want); off += 512 {
		if g, w := got[off:off+512], want[off:off+512]; !bytes.Equal(g, w) {
			return fmt.Errorf("%s: other bytes from sector %d on: got %x..., want %x...", what, off>>9, g[:8], w[:8])
		}
	}
	return nil
}

func (w *scriptWorld) simple(a *scriptArgs, m *dm.Mapped, op block.Op) scriptDo {
	var r block.Request
	if r.Op = op; op != block.OpFlush {
		r, _ = w.request(a, op)
	}
	return func(ctx context.Context) (string, error) { return "", m.Do(ctx, r) }
}

func cmdFlush(w *scriptWorld, a *scriptArgs) scriptDo {
	return w.simple(a, w.device(a), block.OpFlush)
}

func cmdDiscard(w *scriptWorld, a *scriptArgs) scriptDo {
	return w.simple(a, w.device(a), block.OpDiscard)
}

func cmdZero(w *scriptWorld, a *scriptArgs) scriptDo {
	return w.simple(a, w.device(a), block.OpWriteZeroes)
}

// reference is what the naive cipher makes of data, in place.
func (k *scriptKey) reference(data []byte, dun blkcrypto.DUN, unit int) {
	for off := 0; off < len(data); off += unit {
		d, _ := dun.Add(uint64(off / unit))
		var iv [aes.BlockSize]byte
		d.PutIV(iv[:])
		part := data[off : off+unit]
		switch k.mode {
		case blkcrypto.AES256XTS:
			naive.EncryptIV(k.inline, iv, part)
		case blkcrypto.AES128CBCESSIV:
			naive.ESSIV(part, bytes.Clone(part), k.inline, unit, [2]uint64{d[0], d[1]}, false)
		case blkcrypto.SM4XTS:
			naive.SM4XTS(part, bytes.Clone(part), k.inline, unit, d, false)
		default:
			panic("a mode that the reference does not have")
		}
	}
}

func cmdMedium(w *scriptWorld, a *scriptArgs) scriptDo {
	l := w.leaf(a)
	off, n := a.number("a sector")<<9, a.number("a count")<<9
	keyName, keyed := a.option("key")
	number, numbered := a.option("dun")
	size, sized := a.option("unit")
	want, err := scriptText(a.next("a text"), n)
	if err != nil {
		a.ts.Fatalf("%v", err)
	}
	if keyed {
		k := w.key(a, keyName)
		unit := k.unit
		if sized {
			unit = int(a.parse("a data unit", size))
		}
		if unit == 0 || n%int64(unit) != 0 {
			a.ts.Fatalf("that is not whole data units of %d bytes", unit)
		}
		dun := blkcrypto.DUN64(uint64(off) / uint64(unit))
		if numbered {
			dun = scriptDUN(a, number)
		}
		k.reference(want, dun, unit)
	}
	return func(context.Context) (string, error) {
		return "", sameBytes(l.ram.Bytes()[off:off+n], want, "medium")
	}
}

// cmdFresh makes many new keys, as a file system does that lives on after an
// old key is gone, and wants each data unit on the disk under its own key.
func cmdFresh(w *scriptWorld, a *scriptArgs) scriptDo {
	m, l, n := w.device(a), w.leaf(a), a.number("how many")
	return func(ctx context.Context) (string, error) {
		const unit = 4096
		for i := range n {
			k := w.newKey(fmt.Sprintf("fresh %d of %s", len(w.keys), m.Name()), blkcrypto.Config{
				Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: unit, DUNBytes: 8,
			})
			text := fmt.Sprint("written with ", k.key.Name())
			data, _ := scriptText(text, unit)
			w.hide(text, data)
			dun := blkcrypto.DUN64(uint64(i))
			r := block.Request{Op: block.OpWrite, Off: i * unit % m.Info().Size, Len: unit, Data: block.Bytes(bytes.Clone(data)),
				Crypt: blkcrypto.Context{Key: k.key, DUN: dun}}
			if err := m.Do(ctx, r); err != nil {
				return "", err
			}
			k.reference(data, dun, unit)
			if err := sameBytes(l.ram.Bytes()[r.Off:r.Off+unit], data, text); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("%d keys, each with its own bytes\n", n), nil
	}
}

func cmdCounts(w *scriptWorld, a *scriptArgs) scriptDo {
	l := w.leaf(a)
	return func(context.Context) (string, error) {
		var out strings.Builder
		for op := block.OpRead; op <= block.OpWriteZeroes; op++ {
			fmt.Fprintf(&out, "%v %d\n", op, l.ram.Count(op))
		}
		return out.String(), nil
	}
}
