package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/cipher"
	"keyway/keyslot"
)

// Engine tests an inline engine, alone and under a keyslot manager. open
// returns a new one each time. The engine must not fail by intention; it may
// be slow, by the clock of package time.
func Engine(t *testing.T, open func(t *testing.T) keyslot.Engine) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, e keyslot.Engine)
	}{
		{"ProfileIsSound", testEngineProfile},
		{"CiphertextIsThatOfTheMode", testEngineCiphertext},
		{"TakesSegmentsOfAnySize", testEngineSegments},
		{"ProgramReplacesAndEvictEmpties", testEngineSlots},
		{"RefusesWhatIsNotInItsProfile", testEngineRefusals},
		{"RequestsSideBySide", testEngineConcurrent},
		{"VictimIsTheLongestIdle", inBubble(testEngineLRU)},
		{"WaitersAreServedAndCancelled", inBubble(testEngineExhausted)},
		{"ResetBringsTheKeysBack", inBubble(testEngineReset)},
		{"EvictionUnderLoad", testEngineEviction},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func inBubble(test func(t *testing.T, e keyslot.Engine)) func(t *testing.T, e keyslot.Engine) {
	return func(t *testing.T, e keyslot.Engine) {
		synctest.Test(t, func(t *testing.T) { test(t, e) })
	}
}

// usable returns the configs of the engine whose ciphertext is known here:
// raw keys, in both numberings where the engine takes them.
func usable(e keyslot.Engine) (all []blkcrypto.Config) {
	p := e.Profile()
	for _, c := range p.Configs() {
		if c.KeyType != blkcrypto.Raw || !cipher.Supported(c.Mode) {
			continue
		}
		all = append(all, c)
		c.Numbering = blkcrypto.BySector
		if p.Supports(c) {
			all = append(all, c)
		}
	}
	return all
}

func one(t *testing.T, e keyslot.Engine) blkcrypto.Config {
	t.Helper()
	all := usable(e)
	if len(all) == 0 {
		t.Skip("the engine takes no raw key of a mode with a cipher here")
	}
	return all[len(all)/2]
}

func rawKey(c blkcrypto.Config, seed uint64) []byte { return pattern(seed, int64(c.Mode.KeySize())) }

// reference encrypts src unit by unit.
func reference(t *testing.T, c blkcrypto.Config, key []byte, dun blkcrypto.DUN, src []byte) []byte {
	t.Helper()
	ref, err := cipher.New(c.Mode, c.DataUnitSize, bytes.Clone(key))
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Wipe()
	out := make([]byte, len(src))
	for at := 0; at < len(src); at += c.DataUnitSize {
		ref.Encrypt(out[at:at+c.DataUnitSize], src[at:at+c.DataUnitSize], c.DUN(dun, int64(at)))
	}
	return out
}

func testEngineProfile(t *testing.T, e keyslot.Engine) {
	if n := e.Slots(); e.Name() == "" || n < 1 || e.Slots() != n {
		t.Errorf("name %q, %d slots, then %d", e.Name(), n, e.Slots())
	}
	if p := e.Profile(); p.Empty() || p != e.Profile() {
		t.Errorf("profile %v", p)
	}
}

func testEngineCiphertext(t *testing.T, e keyslot.Engine) {
	for i, c := range usable(e) {
		slot := i % e.Slots()
		key := rawKey(c, uint64(i))
		if err := e.Program(slot, c, bytes.Clone(key)); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		n := int64(4 * c.DataUnitSize)
		// The second limb is reached where the config has one (blkcrypto.md,
		// invariant 3).
		for _, dun := range []blkcrypto.DUN{{}, {1<<32 - 2}, {1<<64 - 2}, {1<<64 - 2, 1<<64 - 1}} {
			if !c.Fits(dun, 4) {
				continue
			}
			plain := pattern(uint64(i)+100, n)
			src, got := bytes.Clone(plain), make([]byte, n)
			want := reference(t, c, key, dun, plain)
			what := fmt.Sprintf("%v from %x", c, dun)
			crypt(t, e, slot, keyslot.Encrypt, dun, got, src)
			if !same(t, what+": encrypted", got, want) {
				return
			}
			same(t, what+": source", src, plain)
			crypt(t, e, slot, keyslot.Encrypt, dun, src, src)
			same(t, what+": encrypted in place", src, want)
			crypt(t, e, slot, keyslot.Decrypt, dun, got, src)
			same(t, what+": decrypted", got, plain)
			crypt(t, e, slot, keyslot.Decrypt, dun, src, src)
			same(t, what+": decrypted in place", src, plain)
		}
		if err := e.Evict(slot); err != nil {
			t.Fatal(err)
		}
	}
}

func crypt(t *testing.T, e keyslot.Engine, slot int, d keyslot.Direction, dun blkcrypto.DUN, dst, src []byte) {
	t.Helper()
	if err := e.Crypt(slot, d, dun, block.Bytes(dst), block.Bytes(src)); err != nil {
		t.Fatalf("crypt: %v", err)
	}
}

func testEngineSegments(t *testing.T, e keyslot.Engine) {
	c := one(t, e)
	key := rawKey(c, 1)
	if err := e.Program(0, c, bytes.Clone(key)); err != nil {
		t.Fatal(err)
	}
	n := int64(max(5*c.DataUnitSize, 32<<10/c.DataUnitSize*c.DataUnitSize))
	plain := pattern(2, n)
	want := reference(t, c, key, blkcrypto.DUN{7}, plain)
	for _, how := range []struct {
		name     string
		dst, src func(b []byte) block.Segments
	}{{"from many", block.Bytes, scatter}, {"to many", scatter, block.Bytes}, {"from many to others", scatter, shifted}} {
		dst := make([]byte, n)
		if err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{7}, how.dst(dst), how.src(bytes.Clone(plain))); err != nil {
			t.Fatal(err)
		}
		same(t, how.name, dst, want)
	}
	both := bytes.Clone(plain)
	s := scatter(both)
	if err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{7}, s, s); err != nil {
		t.Fatal(err)
	}
	same(t, "many in place", both, want)
	if err := e.Crypt(0, keyslot.Encrypt, blkcrypto.DUN{7}, block.Bytes(both[:1]), block.Bytes(both[:1])); err == nil {
		t.Error("a part of a data unit is taken")
	}
}

// shifted cuts b elsewhere than scatter does.
func shifted(b []byte) block.Segments {
	n := min(777, len(b))
	v := [][]byte{b[:n]}
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = min(1111, len(b))
		v = append(v, b[:n])
	}
	return block.Vec(v)
}

func testEngineSlots(t *testing.T, e keyslot.Engine) {
	c := one(t, e)
	plain := pattern(1, int64(c.DataUnitSize))
	encrypted := func(slot int) ([]byte, error) {
		out := make([]byte, len(plain))
		err := e.Crypt(slot, keyslot.Encrypt, blkcrypto.DUN{3}, block.Bytes(out), block.Bytes(bytes.Clone(plain)))
		return out, err
	}
	for slot := range e.Slots() {
		if err := e.Evict(slot); err != nil {
			t.Fatalf("evicting the empty slot %d: %v", slot, err)
		}
		if out, err := encrypted(slot); err == nil {
			t.Errorf("the empty slot %d made %x…", slot, out[:8])
		}
		for i := range uint64(2) {
			key := rawKey(c, uint64(slot)*2+i)
			if err := e.Program(slot, c, key); err != nil {
				t.Fatal(err)
			}
			want := reference(t, c, key, blkcrypto.DUN{3}, plain)
			clear(key) // valid until Program returned
			got, err := encrypted(slot)
			if err != nil {
				t.Fatal(err)
			}
			same(t, fmt.Sprintf("slot %d, key %d", slot, i), got, want)
		}
	}
	for slot := range e.Slots() {
		for range 2 {
			if err := e.Evict(slot); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := encrypted(slot); err == nil {
			t.Errorf("slot %d made %x… after it was evicted", slot, out[:8])
		}
		if next := slot + 1; next < e.Slots() {
			if _, err := encrypted(next); err != nil {
				t.Errorf("evicting slot %d emptied slot %d: %v", slot, next, err)
			}
		}
	}
}

func testEngineRefusals(t *testing.T, e keyslot.Engine) {
	p := e.Profile()
	for _, c := range blkcrypto.Everything().Configs() {
		if !p.Supports(c) && cipher.Supported(c.Mode) {
			if err := e.Program(0, c, pattern(1, int64(c.Mode.KeySize()))); err == nil {
				t.Errorf("%v is not in the profile and was programmed", c)
			}
			if err := e.Evict(0); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := one(t, e)
	for _, n := range []int{0, 1, c.Mode.KeySize() - 1, c.Mode.KeySize() + 1} {
		if err := e.Program(0, c, pattern(1, int64(n))); err == nil {
			t.Errorf("a key of %d bytes was programmed for %v", n, c)
		}
	}
}

func testEngineConcurrent(t *testing.T, e keyslot.Engine) {
	c := one(t, e)
	n := int64(3 * c.DataUnitSize)
	slots := min(e.Slots(), 4)
	for slot := range slots {
		if err := e.Program(slot, c, rawKey(c, uint64(slot))); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		slot := w % slots
		dun := blkcrypto.DUN64(uint64(w))
		plain := pattern(uint64(w), n)
		want := reference(t, c, rawKey(c, uint64(slot)), dun, plain)
		wg.Go(func() {
			for range 30 {
				buf := bytes.Clone(plain)
				if err := e.Crypt(slot, keyslot.Encrypt, dun, block.Bytes(buf), block.Bytes(buf)); err != nil {
					t.Error(err)
				}
				if !same(t, fmt.Sprintf("worker %d in slot %d", w, slot), buf, want) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// keys makes n keys that e takes.
func keys(t *testing.T, e keyslot.Engine, n int) []*blkcrypto.Key {
	t.Helper()
	all := make([]*blkcrypto.Key, n)
	for i := range all {
		all[i] = Key(t, one(t, e))
	}
	return all
}

func get(t *testing.T, m *keyslot.Manager, k *blkcrypto.Key) keyslot.Slot {
	t.Helper()
	s, err := m.Get(context.Background(), k, false)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return s
}

func resident(m *keyslot.Manager) (ids []uint64) {
	for _, r := range m.Residents() {
		ids = append(ids, r.ID)
	}
	slices.Sort(ids)
	return ids
}

func ids(all ...*blkcrypto.Key) (ids []uint64) {
	for _, k := range all {
		ids = append(ids, k.ID())
	}
	slices.Sort(ids)
	return ids
}

// blkcrypto.md invariants 13, 15 and 16.
func testEngineLRU(t *testing.T, e keyslot.Engine) {
	m := keyslot.New(e)
	n := e.Slots()
	all := keys(t, e, n+3)
	for _, k := range all[:n] {
		get(t, m, k).Put()
	}
	if got := resident(m); !slices.Equal(got, ids(all[:n]...)) {
		t.Fatalf("in the slots: %v, want %v", got, ids(all[:n]...))
	}
	if st := m.Stats(); st.Programs != uint64(n) || st.Busy != 0 {
		t.Errorf("%d programs and %d busy slots for %d keys", st.Programs, st.Busy, n)
	}
	// Use again all but two, in another order: those two are the victims, the
	// one that was released first before the other.
	order := rand.Perm(n)
	for _, i := range order {
		get(t, m, all[i]).Put()
	}
	left := slices.Clone(all[:n])
	for j, k := range all[n:] {
		if j == n {
			break
		}
		get(t, m, k).Put()
		left = slices.DeleteFunc(left, func(o *blkcrypto.Key) bool { return o == all[order[j]] })
		if got, want := resident(m), ids(append(slices.Clone(left), all[n:n+j+1]...)...); !slices.Equal(got, want) {
			t.Fatalf("after key %d in order %v: %v in the slots, want %v", j, order, got, want)
		}
	}
}

// blkcrypto.md invariants 15 and 17.
func testEngineExhausted(t *testing.T, e keyslot.Engine) {
	m := keyslot.New(e)
	n := e.Slots()
	all := keys(t, e, n+2)
	var held []keyslot.Slot
	for _, k := range all[:n] {
		held = append(held, get(t, m, k))
	}
	if _, err := m.Get(t.Context(), all[n], true); err != block.ErrWouldBlock {
		t.Errorf("nowait without a free slot: %v", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	type answer struct {
		s   keyslot.Slot
		err error
	}
	wait := func(ctx context.Context, k *blkcrypto.Key) chan answer {
		c := make(chan answer, 1)
		go func() { s, err := m.Get(ctx, k, false); c <- answer{s, err} }()
		synctest.Wait()
		return c
	}
	gives, waits := wait(ctx, all[n]), wait(context.Background(), all[n+1])
	cancel(cause)
	if a := <-gives; !errors.Is(a.err, cause) {
		t.Errorf("a cancelled waiter: %v", a.err)
	}
	synctest.Wait()
	if len(waits) != 0 {
		t.Fatal("a slot in use was given away")
	}
	held[n/2].Put()
	a := <-waits
	if a.err != nil {
		t.Fatal(a.err)
	}
	if slices.Contains(resident(m), all[n/2].ID()) {
		t.Error("the key of the freed slot is still there")
	}
	a.s.Put()
	for i, s := range held {
		if i != n/2 {
			s.Put()
		}
	}
	if st := m.Stats(); st.Busy != 0 {
		t.Errorf("%d busy slots after all were put back", st.Busy)
	}
}

// blkcrypto.md invariant 20.
func testEngineReset(t *testing.T, e keyslot.Engine) {
	m := keyslot.New(e)
	c := one(t, e)
	n := max(1, e.Slots()-1) // an empty slot stays empty
	all := keys(t, e, n)
	plain := pattern(1, int64(c.DataUnitSize))
	encrypt := func(k *blkcrypto.Key) []byte {
		s := get(t, m, k)
		defer s.Put()
		out := make([]byte, len(plain))
		if err := s.Crypt(keyslot.Encrypt, blkcrypto.DUN{1}, block.Bytes(out), block.Bytes(bytes.Clone(plain))); err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := make([][]byte, n)
	for i, k := range all {
		before[i] = encrypt(k)
	}
	programs := m.Stats().Programs
	err := m.Reset(func() {
		for slot := range e.Slots() {
			if err := e.Evict(slot); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := resident(m); !slices.Equal(got, ids(all...)) {
		t.Errorf("after the reset %v are in the slots, want %v", got, ids(all...))
	}
	after := m.Stats().Programs
	if after != programs+uint64(n) {
		t.Errorf("%d keys programmed by the reset, want %d", after-programs, n)
	}
	for i, k := range all {
		same(t, "ciphertext after the reset", encrypt(k), before[i])
	}
	if m.Stats().Programs != after {
		t.Error("a key had to be programmed again after the reset")
	}
}

// blkcrypto.md invariants 21 and 25, and race R6: requests use keys while they
// are evicted; none meets another's key, and none a key that is gone.
func testEngineEviction(t *testing.T, e keyslot.Engine) {
	m := keyslot.New(e)
	c := one(t, e)
	plain := pattern(1, int64(c.DataUnitSize))
	rounds := 20
	for round := range rounds {
		type entry struct {
			key  *blkcrypto.Key
			want []byte
		}
		all := make([]entry, min(2*e.Slots(), 6)+1)
		for i := range all {
			raw := rawKey(c, uint64(round*100+i))
			all[i] = entry{keyOf(t, c, raw), reference(t, c, raw, blkcrypto.DUN{9}, plain)}
		}
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(w)))
				for gone := 0; gone < 5; {
					x := all[rnd.IntN(len(all))]
					s, err := m.Get(context.Background(), x.key, false)
					if errors.Is(err, blkcrypto.ErrKeyEvicted) {
						gone++
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					out := make([]byte, len(plain))
					err = s.Crypt(keyslot.Encrypt, blkcrypto.DUN{9}, block.Bytes(out), block.Bytes(plain))
					s.Put()
					if err != nil {
						t.Errorf("crypt with a slot in hand: %v", err)
						return
					}
					if !same(t, "ciphertext beside evictions", out, x.want) {
						return
					}
				}
			})
		}
		for _, x := range all {
			if _, err := x.key.Evict(context.Background()); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		// Not earlier: a slot may be set aside for a key whose programming is
		// about to be refused.
		if got := resident(m); len(got) > 0 {
			t.Errorf("evicted keys %v are in slots", got)
		}
	}
	for slot := range e.Slots() {
		out := make([]byte, len(plain))
		if err := e.Crypt(slot, keyslot.Encrypt, blkcrypto.DUN{9}, block.Bytes(out), block.Bytes(plain)); err == nil {
			t.Errorf("slot %d is not empty after all keys were evicted", slot)
		}
	}
}
