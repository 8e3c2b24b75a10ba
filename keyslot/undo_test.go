package keyslot_test

import (
	"context"
	"errors"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/keyslot"
	"keyway/keyslot/enginetest"
)

// busy is a device that asks for every write again.
type busy struct {
	block.Device
	before func()
}

func (busy) Info() block.Info { return block.Info{Size: 1 << 20, LogicalBlock: 512, NeverBlocks: true} }

func (b busy) Do(context.Context, block.Request) error {
	b.before()
	return block.ErrWouldBlock
}

// dm-fscrypt.md invariant 48: whoever is told ErrProgram has the data as it was and
// may give it to software. Where a write has been encrypted in place, and the engine
// does not take the key again to undo that, it is not: that is another error.
func TestDataThatCannotBeDecryptedAgainIsNoErrProgram(t *testing.T) {
	m, e := newManager(t, 1)
	k := newKey(t, "k")
	use(t, m, k)
	dev := keyslot.Over(busy{before: func() {
		if err := m.Evict(ctx, k.Key); err != nil {
			t.Error(err)
		}
		e.Fault = fault(enginetest.Program, always)
	}}, m)
	data := make([]byte, 512)
	err := dev.Do(ctx, block.Request{
		Op: block.OpWrite, Flags: block.Scratch | block.NoWait, Len: 512, Data: block.Bytes(data),
		Crypt: blkcrypto.Context{Key: k.Key},
	})
	if err == nil || errors.Is(err, block.ErrWouldBlock) || errors.Is(err, keyslot.ErrProgram) {
		t.Errorf("%v: the data is ciphertext, and the error says that it is as it was", err)
	}
}
