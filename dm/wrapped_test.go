package dm_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/keyslot"
	"keyway/keyslot/emul"
)

// A phone has disks whose UFS controllers share their hardware, and one disk
// without an engine.
type phone struct {
	*dmtest.World
	hardware *emul.Hardware
	disks    map[string]*dmtest.RAM
}

const phoneSize = 1 << 20

func newPhone(t *testing.T) *phone {
	t.Helper()
	h, err := emul.NewHardware(make([]byte, emul.FuseSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	p := &phone{dmtest.New(t), h, map[string]*dmtest.RAM{}}
	for name, text := range map[string]string{"ufs0": "ufs", "ufs1": "ufs?slots=2", "raw": "ufs?keys=raw", "plain": ""} {
		d := dmtest.NewRAM(phoneSize)
		var m *keyslot.Manager
		if text != "" {
			s, err := emul.ParseSpec(text)
			if err != nil {
				t.Fatal(err)
			}
			s.Options.Hardware = h
			m = keyslot.New(emul.New(name, s.Options))
		}
		p.Leaf(name, d, m)
		p.disks[name] = d
	}
	return p
}

// wrapped makes a prepared key.
func (p *phone) wrapped(t *testing.T, unit int) *blkcrypto.Key {
	t.Helper()
	long, err := p.hardware.Generate()
	if err != nil {
		t.Fatal(err)
	}
	defer long.Wipe()
	eph, err := p.hardware.Prepare(long.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	k, err := blkcrypto.NewKey("u7", blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.HWWrapped, DataUnitSize: unit, DUNBytes: 8}, eph)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func over(leaf string) string { return "0 2048 linear " + leaf + " 0" }

// reload replaces the live table of a device.
func (p *phone) reload(t *testing.T, name, leaf string, o dm.SuspendOptions) error {
	t.Helper()
	return p.Device(name).Reload(t.Context(), p.Table(over(leaf)), o)
}

func withKey(op block.Op, k *blkcrypto.Key, b []byte) block.Request {
	return block.Request{Op: op, Len: int64(len(b)), Data: block.Bytes(b), Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(5<<32 | 7)}}
}

// dm-fscrypt.md, invariants 38 and 43: the key in use is on the device two levels
// above the one that is reloaded.
func TestShrinkUnderAWrappedKeyIsRefusedAndChangesNothing(t *testing.T) {
	p := newPhone(t)
	p.Map("mid", over("ufs0"))
	top := p.Map("userdata", over("mid"))
	k := p.wrapped(t, 4096)
	stop, err := top.StartKey(k, "a file system")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("wrapped "), 1024)
	if err := top.Do(t.Context(), withKey(block.OpWrite, k, data)); err != nil {
		t.Fatal(err)
	}
	before, event := p.disks["ufs0"].Bytes(), top.Event()
	for _, leaf := range []string{"plain", "raw"} {
		err := p.reload(t, "mid", leaf, dm.SuspendOptions{})
		if !errors.Is(err, dm.ErrStrands) || !strings.Contains(err.Error(), `key "u7" (AES-256-XTS, hw-wrapped`) ||
			!strings.Contains(err.Error(), `in use by a file system on device "userdata"`) {
			t.Errorf("reload onto %s: %v", leaf, err)
		}
		st := p.Device("mid").State()
		if st.Suspended || st.Inactive || !strings.Contains(p.Device("mid").TableText(false, dm.StatusTable), "ufs0") {
			t.Errorf("after the refusal: %+v", st)
		}
		if prof := top.Info().Crypto; top.Event() != event || !prof.Supports(k.Config()) {
			t.Errorf("event %d, was %d; profile %v", top.Event(), event, prof)
		}
	}
	// Loading changes nothing, and a resume that is refused leaves the table where
	// it was, for another try.
	if err := p.Device("mid").Load(t.Context(), p.Table(over("plain"))); err != nil {
		t.Fatal(err)
	}
	if err := p.Device("mid").Resume(t.Context()); !errors.Is(err, dm.ErrStrands) {
		t.Errorf("resume: %v", err)
	}
	if st := p.Device("mid").State(); !st.Inactive || st.Suspended {
		t.Errorf("after the refused resume: %+v", st)
	}
	got := make([]byte, len(data))
	if err := top.Do(t.Context(), withKey(block.OpRead, k, got)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a read afterwards: %v", err)
	}
	// To another engine of the same hardware it may move: the same bytes there.
	if err := p.reload(t, "mid", "ufs1", dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := top.Do(t.Context(), withKey(block.OpWrite, k, data)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.disks["ufs1"].Bytes(), before) {
		t.Error("two engines of one hardware encrypt differently")
	}
	// Nobody uses the key any more (invariant 39).
	stop()
	stop()
	if err := p.reload(t, "mid", "plain", dm.SuspendOptions{}); err != nil {
		t.Errorf("after the use ended: %v", err)
	}
	if err := top.Do(t.Context(), withKey(block.OpRead, k, got)); !errors.Is(err, block.ErrNoCrypto) {
		t.Errorf("a wrapped key without an engine: %v", err)
	}
	// Both engines that had it confirm.
	r, err := k.Evict(t.Context())
	if err != nil || len(r.Places) != 2 {
		t.Errorf("receipt %v, %v", r, err)
	}
}

// Invariant 38, with force.
func TestRevokeEvictsTheKeyAndThenReloads(t *testing.T) {
	p := newPhone(t)
	top := p.Map("userdata", over("ufs0"))
	k, other := p.wrapped(t, 4096), dmtest.NewKey(t, "raw", xts4k, 3)
	for _, x := range []*blkcrypto.Key{k, other} {
		if _, err := top.StartKey(x, "a file system"); err != nil {
			t.Fatal(err)
		}
		if err := top.Do(t.Context(), withKey(block.OpWrite, x, make([]byte, 4096))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.reload(t, "userdata", "plain", dm.SuspendOptions{Revoke: true}); err != nil {
		t.Fatal(err)
	}
	if err := top.Do(t.Context(), withKey(block.OpRead, k, make([]byte, 4096))); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("the revoked key: %v", err)
	}
	if err := top.Do(t.Context(), withKey(block.OpRead, other, make([]byte, 4096))); err != nil {
		t.Errorf("a raw key beside it: %v", err)
	}
	for _, r := range p.Device("ufs0").Engine().Residents() {
		if r.ID == k.ID() {
			t.Errorf("the revoked key is in slot %d", r.Slot)
		}
	}
}

// Invariants 41 and 47: growth is seen at once, by what is stacked above too.
func TestAWrappedKeyStartsWhereAnEngineTakesItAndNowhereElse(t *testing.T) {
	p := newPhone(t)
	p.Map("mid", over("plain"))
	top := p.Map("userdata", over("mid"))
	k := p.wrapped(t, 4096)
	if _, err := top.StartKey(k, "a file system"); !errors.Is(err, block.ErrNoCrypto) {
		t.Errorf("without an engine: %v", err)
	}
	if err := p.reload(t, "mid", "ufs0", dm.SuspendOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := top.StartKey(k, "a file system"); err != nil {
		t.Errorf("after growth beneath: %v", err)
	}
	if _, err := top.StartKey(p.wrapped(t, 1024), "a file system"); !errors.Is(err, block.ErrNoCrypto) {
		t.Errorf("another data unit: %v", err)
	}
	if _, err := k.Evict(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := top.StartKey(k, "a file system"); !errors.Is(err, blkcrypto.ErrKeyEvicted) {
		t.Errorf("an evicted key: %v", err)
	}
	// It no longer stands in the way either.
	if err := p.reload(t, "mid", "plain", dm.SuspendOptions{}); err != nil {
		t.Error(err)
	}
}

// Invariant 44 and race 2: whoever wins, a key that has started has an engine.
func TestStartAndSwapAreOneStepToEachOther(t *testing.T) {
	p := newPhone(t)
	p.Map("mid", over("ufs0"))
	top := p.Map("userdata", over("mid"))
	var wg sync.WaitGroup
	started, refused := 0, 0
	for range 2 {
		wg.Go(func() {
			for i := range 60 {
				leaf := []string{"plain", "ufs0", "raw", "ufs1"}[i%4]
				if err := p.reload(t, "mid", leaf, dm.SuspendOptions{NoFlush: true}); err != nil && !errors.Is(err, dm.ErrStrands) {
					t.Errorf("reload: %v", err)
				}
			}
		})
	}
	k := p.wrapped(t, 4096)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		stop, err := top.StartKey(k, "a file system")
		if err != nil {
			refused++
			continue
		}
		started++
		for range 3 {
			if err := top.Do(context.Background(), withKey(block.OpWrite, k, make([]byte, 4096))); err != nil {
				t.Fatalf("a started key: %v", err)
			}
		}
		stop()
	}
	t.Logf("started %d times, refused %d times", started, refused)
}

// What inlinecrypt and default-key write with a wrapped key is AES-256-XTS under the
// key that all known hardware derives (blkcrypto.md, section 10.4).
func TestTargetsEncryptWithWrappedKeys(t *testing.T) {
	inline, err := hex.DecodeString("16317c8fe3133e7aef46bdede2b39f09a81e9fbe0c095f906c5c1341da6eaf17" +
		"f151e2982f4f14a5495f78761066cafa5ebb995997d3fb5c8678bb394b6b57dc")
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]string{
		"inlinecrypt": "0 2048 inlinecrypt aes-xts-plain64 :49:logon:w 8 %s 0 3 sector_size:4096 iv_large_sectors keytype:hw-wrapped",
		"default-key": "0 2048 default-key aes-xts-plain64 :49:logon:w 8 %s 0 4 allow_discards sector_size:4096 iv_large_sectors wrappedkey_v0",
	} {
		t.Run(name, func(t *testing.T) {
			p := newPhone(t)
			raw := make([]byte, emul.RawSize)
			for i := range raw {
				raw[i] = byte(i)
			}
			long, err := p.hardware.Import(raw)
			if err != nil {
				t.Fatal(err)
			}
			defer long.Wipe()
			eph, err := p.hardware.Prepare(long.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			p.AddKey("w", bytes.Clone(eph.Bytes()))
			eph.Wipe()
			p.Map("mid", over("ufs0"))
			for _, leaf := range []string{"plain", "raw"} {
				if _, err := p.Parse(fmt.Sprintf(row, leaf)); !errors.Is(err, block.ErrNoCrypto) {
					t.Errorf("over %s: %v", leaf, err)
				}
			}
			text := fmt.Sprintf(row, "mid")
			top := p.Map("vol", text)
			sorted := func(s string) []string { w := strings.Fields(s); slices.Sort(w); return w }
			if got := top.TableText(false, dm.StatusTable); !slices.Equal(sorted(got), sorted(text)) {
				t.Errorf("printed %q, loaded %q", got, text)
			}
			p.Table(top.TableText(false, dm.StatusTable)).Close(t.Context())
			data := bytes.Repeat([]byte("seen"), 2048)
			dmtest.Write(t, top, 4096, data)
			want := encrypted(inline, blkcrypto.Config{DataUnitSize: 4096}, blkcrypto.DUN64(2), data)
			if got := p.disks["ufs0"].Bytes()[4096:][:len(data)]; !bytes.Equal(got, want) {
				t.Errorf("on the medium %x…, want %x…", got[:8], want[:8])
			}
			if err := p.reload(t, "mid", "plain", dm.SuspendOptions{}); !errors.Is(err, dm.ErrStrands) || !strings.Contains(err.Error(), "by target "+name) {
				t.Errorf("reload beneath the target: %v", err)
			}
			if got := dmtest.Read(t, top, 4096, len(data)); !bytes.Equal(got, data) {
				t.Error("read differs")
			}
		})
	}
}

// dm-fscrypt.md invariant 47, gap U10: the operations of wrapped keys pass through
// mapped devices, appear with growth, and go where engines of two hardwares meet;
// race 33: a key of one hardware does not survive a reload onto another.
func TestWrappedOperationsPassThrough(t *testing.T) {
	p := newPhone(t)
	fuses := bytes.Repeat([]byte{7}, emul.FuseSize)
	foreign, err := emul.NewHardware(fuses)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(foreign.Close)
	spec, err := emul.ParseSpec("ufs")
	if err != nil {
		t.Fatal(err)
	}
	spec.Options.Hardware = foreign
	p.Leaf("foreign", dmtest.NewRAM(phoneSize), keyslot.New(emul.New("foreign", spec.Options)))
	p.Map("mid", over("plain"))
	top := p.Map("userdata", over("mid"))
	wrapper := func() keyslot.Wrapper { return top.Keyslots().Wrapper() }
	if wrapper() != nil {
		t.Error("wrapped operations without an engine")
	}
	for _, leaf := range []string{"ufs0", "raw", "ufs1"} {
		if err := p.reload(t, "mid", leaf, dm.SuspendOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := wrapper(); (got == keyslot.Wrapper(p.hardware)) != (leaf != "raw") {
			t.Errorf("on %s: hardware %v", leaf, got)
		}
	}
	long, err := wrapper().Generate()
	if err != nil {
		t.Fatal(err)
	}
	defer long.Wipe()
	eph, err := wrapper().Prepare(long.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := wrapper().DeriveSecret(eph.Bytes())
	if err != nil || secret.Len() != 32 {
		t.Fatalf("derived: %v", err)
	}
	secret.Wipe()
	k, err := blkcrypto.NewKey("u8", p.wrapped(t, 4096).Config(), eph)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := top.StartKey(k, "a file system")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := p.reload(t, "mid", "foreign", dm.SuspendOptions{}); !errors.Is(err, dm.ErrStrands) {
		t.Errorf("reload onto another hardware under a key in use: %v, want %v", err, dm.ErrStrands)
	}
	if err := p.reload(t, "mid", "ufs0", dm.SuspendOptions{}); err != nil {
		t.Errorf("reload onto the same hardware: %v", err)
	}
	two := p.Map("two", "0 1024 linear ufs0 0\n1024 1024 linear foreign 0")
	if pr := two.Keyslots().Profile(); two.Keyslots().Wrapper() != nil || pr.Wraps() || pr.Empty() {
		t.Errorf("over two hardwares: %v, %v; want raw keys alone", two.Keyslots().Wrapper(), pr)
	}
	if _, err := two.StartKey(p.wrapped(t, 4096), "a file system"); !errors.Is(err, block.ErrNoCrypto) {
		t.Errorf("a wrapped key there: %v, want %v", err, block.ErrNoCrypto)
	}
}
