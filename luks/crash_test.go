package luks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"keyway/internal/race"
	"keyway/luks"
)

const sector = 512

// A recorder is a medium in memory that keeps all writes in order.
type recorder struct {
	begin  []byte // before the first write
	now    []byte
	log    []written
	failAt int // the number of the operation that fails, -1: none
}

// written is one write; without bytes it is a sync.
type written struct {
	off int64
	b   []byte
}

var errMedium = errors.New("the medium fails")

func record(b []byte) *recorder { return &recorder{bytes.Clone(b), bytes.Clone(b), nil, -1} }

func (r *recorder) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(r.now)) {
		return 0, io.EOF
	}
	n := copy(b, r.now[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *recorder) WriteAt(b []byte, off int64) (int, error) {
	if len(r.log) == r.failAt {
		return 0, errMedium
	}
	if off < 0 || off%sector != 0 || len(b)%sector != 0 || off+int64(len(b)) > int64(len(r.now)) {
		return 0, fmt.Errorf("a write of %d bytes at %d of %d", len(b), off, len(r.now))
	}
	copy(r.now[off:], b)
	r.log = append(r.log, written{off, bytes.Clone(b)})
	return len(b), nil
}

func (r *recorder) Sync() error {
	if len(r.log) == r.failAt {
		return errMedium
	}
	r.log = append(r.log, written{})
	return nil
}

// crashes calls do with what may be on the medium after a crash at every point: all
// that was synced, and of what was not, any sectors. Where these are many, the edges
// and some others are tried.
func (r *recorder) crashes(seed uint64, do func(where string, state []byte)) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	base := bytes.Clone(r.begin)
	var pending []written
	states := 0
	for n := 0; ; n++ {
		tears(rnd, base, pending, func(how string, state func() []byte) {
			if states++; states%race.Every(10) == 0 {
				do(fmt.Sprintf("after %d of %d operations, %s", n, len(r.log), how), state())
			}
		})
		if n == len(r.log) {
			return
		}
		if w := r.log[n]; w.b != nil {
			pending = append(pending, w)
			continue
		}
		for _, w := range pending {
			copy(base[w.off:], w.b)
		}
		pending = nil
	}
}

// tears tries which sectors of the pending writes are there.
func tears(rnd *rand.Rand, base []byte, pending []written, do func(how string, state func() []byte)) {
	type piece struct {
		off int64
		b   []byte
	}
	var pieces []piece
	for _, w := range pending {
		for at := 0; at < len(w.b); at += sector {
			pieces = append(pieces, piece{w.off + int64(at), w.b[at:][:sector]})
		}
	}
	try := func(how string, has func(i int) bool) {
		do(how, func() []byte {
			b := bytes.Clone(base)
			for i, p := range pieces {
				if has(i) {
					copy(b[p.off:], p.b)
				}
			}
			return b
		})
	}
	n := len(pieces)
	if n <= 3 {
		for set := range 1 << n {
			try(fmt.Sprintf("sectors %b", set), func(i int) bool { return set>>i&1 == 1 })
		}
		return
	}
	try("nothing of the last", func(int) bool { return false })
	try("all", func(int) bool { return true })
	try("all but the first", func(i int) bool { return i > 0 })
	try("the first alone", func(i int) bool { return i == 0 })
	try("all but the last", func(i int) bool { return i < n-1 })
	cut := rnd.IntN(n)
	try("cut", func(i int) bool { return i < cut })
	try("the end", func(i int) bool { return i >= cut })
	for range 8 {
		bits := make([]bool, n)
		for i := range bits {
			bits[i] = rnd.IntN(2) == 0
		}
		try("some", func(i int) bool { return bits[i] })
	}
}

// opened remembers what opened of which bytes: most states of one change have most
// of them in common.
type opened struct {
	seed maphash.Seed
	key  []byte // the volume key
	done map[string]error
}

func newOpened(key []byte) *opened { return &opened{maphash.MakeSeed(), key, map[string]error{}} }

// at opens one keyslot of a medium, or any.
func (o *opened) at(b []byte, passphrase string, slot int) error {
	h, err := luks.Read(bytes.NewReader(b), int64(len(b)), luks.Options{})
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%s %d %s", passphrase, slot, h.Metadata())
	for _, k := range h.Keyslots {
		if slot == luks.AnySlot || k.ID == slot {
			id += fmt.Sprintf(" %x", maphash.Bytes(o.seed, b[k.Area.Offset:][:k.Area.Size]))
		}
	}
	if err, ok := o.done[id]; ok {
		return err
	}
	err = o.open(h, b, passphrase, slot)
	o.done[id] = err
	return err
}

func (o *opened) open(h *luks.Header, b []byte, passphrase string, slot int) error {
	v, err := h.Open(context.Background(), bytes.NewReader(b), []byte(passphrase), slot)
	if err != nil {
		return err
	}
	defer v.Key.Wipe()
	if !v.Key.Equal(o.key) {
		return errors.New("opens to another key")
	}
	return nil
}

// crashVolume is a small volume with three passphrases: a, b and c in the keyslots.
func crashVolume(t testing.TB, version int) (*recorder, []byte) {
	t.Helper()
	ctx := context.Background()
	o := luks.FormatOptions{Version: version, Key: cheap, Cipher: "aes-cbc-essiv:sha256", KeySize: 16}
	size := int64(1<<20) + 4096
	if version == 2 {
		o.DataOffset = 32<<10 + 5*64<<10 + 64<<10
		size = o.DataOffset + 4096
	}
	m := record(make([]byte, size))
	e, v, err := luks.Format(ctx, m, size, []byte("a"), o)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Key.Wipe()
	for _, p := range []string{"b", "c"} {
		if _, err := e.AddKey(ctx, v, []byte(p), luks.AnySlot, cheap); err != nil {
			t.Fatal(err)
		}
	}
	return m, bytes.Clone(v.Key.Bytes())
}

// changes are what can be done to a volume with a, b and c. others are the keyslots
// that open at every moment, and ok says whether the rest is as it must be.
var changes = []struct {
	name     string
	versions string
	do       func(ctx context.Context, e *luks.Editor, v *luks.Volume) error
	others   map[int]string
	either   []string // one of them opens at every moment
	then     map[int]string
}{
	{"add", "12", func(ctx context.Context, e *luks.Editor, v *luks.Volume) error {
		_, err := e.AddKey(ctx, v, []byte("new"), 3, cheap)
		return err
	}, map[int]string{0: "a", 1: "b", 2: "c"}, nil, map[int]string{0: "a", 1: "b", 2: "c", 3: "new"}},
	{"add 6", "12", func(ctx context.Context, e *luks.Editor, v *luks.Volume) error {
		_, err := e.AddKey(ctx, v, []byte("new"), 6, cheap)
		return err
	}, map[int]string{0: "a", 1: "b", 2: "c"}, nil, map[int]string{0: "a", 1: "b", 2: "c", 6: "new"}},
	{"change", "12", func(ctx context.Context, e *luks.Editor, _ *luks.Volume) error {
		_, err := e.ChangeKey(ctx, []byte("b"), []byte("new"), luks.AnySlot, cheap)
		return err
	}, map[int]string{0: "a", 2: "c"}, []string{"b", "new"}, nil},
	{"kill", "12", func(_ context.Context, e *luks.Editor, _ *luks.Volume) error { return e.KillSlot(1, false) },
		map[int]string{0: "a", 2: "c"}, nil, map[int]string{0: "a", 2: "c"}},
	{"remove", "12", func(ctx context.Context, e *luks.Editor, _ *luks.Volume) error {
		_, err := e.RemoveKey(ctx, []byte("c"), false)
		return err
	}, map[int]string{0: "a", 1: "b"}, nil, map[int]string{0: "a", 1: "b"}},
	{"uuid", "12", func(_ context.Context, e *luks.Editor, _ *luks.Volume) error {
		return e.SetUUID("01234567-89ab-cdef-0123-456789abcdef")
	}, map[int]string{0: "a", 1: "b", 2: "c"}, nil, nil},
	{"priority", "2", func(_ context.Context, e *luks.Editor, _ *luks.Volume) error { return e.SetPriority(1, 2) },
		map[int]string{0: "a", 1: "b", 2: "c"}, nil, nil},
	{"token", "2", func(_ context.Context, e *luks.Editor, _ *luks.Volume) error {
		_, err := e.AddToken([]byte(`{"type":"x","keyslots":["0"]}`), luks.AnyToken)
		return err
	}, map[int]string{0: "a", 1: "b", 2: "c"}, nil, nil},
	{"repair", "2", func(_ context.Context, e *luks.Editor, _ *luks.Volume) error { return nil },
		map[int]string{0: "a", 1: "b", 2: "c"}, nil, nil},
}

// TestNoCrashLosesAKey: whatever a crash leaves of the writes of a change, keyslots
// that it is not about open, and the one that it is about opens as before or after.
func TestNoCrashLosesAKey(t *testing.T) {
	const seed = 5
	states := 0
	for _, version := range []int{1, 2} {
		volume, key := crashVolume(t, version)
		o := newOpened(key)
		damages := []int64{-1}
		if version == 2 {
			damages = []int64{-1, 0, copySize} // one copy is bad when the change begins
		}
		for _, damage := range damages {
			begin := bytes.Clone(volume.now)
			if damage >= 0 {
				begin[damage+5000] ^= 1
			}
			for _, c := range changes {
				if !bytes.ContainsRune([]byte(c.versions), rune('0'+version)) {
					continue
				}
				m := record(begin)
				change(t, m, c.name, c.do)
				name := fmt.Sprintf("LUKS%d, %s, damage at %d", version, c.name, damage)
				m.crashes(seed, func(where string, b []byte) {
					states++
					for slot, p := range c.others {
						if err := o.at(b, p, slot); err != nil {
							t.Fatalf("%s, %s: keyslot %d: %v", name, where, slot, err)
						}
					}
					// A new keyslot is named only when it opens.
					h, err := luks.Read(bytes.NewReader(b), int64(len(b)), luks.Options{})
					if err != nil {
						t.Fatal(err)
					}
					for slot, p := range c.then {
						if slices.ContainsFunc(h.Keyslots, func(k luks.Keyslot) bool { return k.ID == slot }) {
							if err := o.at(b, p, slot); err != nil {
								t.Fatalf("%s, %s: keyslot %d is there: %v", name, where, slot, err)
							}
						}
					}
					if c.either == nil {
						return
					}
					var errs []error
					for _, p := range c.either {
						errs = append(errs, o.at(b, p, luks.AnySlot))
					}
					if errs[0] != nil && errs[1] != nil {
						t.Fatalf("%s, %s: neither passphrase opens: %v", name, where, errs)
					}
				})
				for slot, p := range c.then {
					if err := o.at(m.now, p, slot); err != nil {
						t.Errorf("%s: in the end keyslot %d: %v", name, slot, err)
					}
				}
				if c.either != nil && o.at(m.now, c.either[0], luks.AnySlot) == nil {
					t.Errorf("%s: in the end the old passphrase opens", name)
				}
			}
		}
	}
	t.Logf("%d states, seed %d", states, seed)
	if states < 1000/race.Every(20) {
		t.Errorf("only %d states", states)
	}
}

// change does one change on a medium.
func change(t *testing.T, m *recorder, name string, do func(context.Context, *luks.Editor, *luks.Volume) error) {
	t.Helper()
	ctx := context.Background()
	if name == "repair" {
		if _, err := luks.Repair(m, int64(len(m.now)), luks.Options{}); err != nil {
			t.Fatal(err)
		}
		return
	}
	e, err := luks.Edit(m, int64(len(m.now)), luks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.Header().Open(ctx, m, []byte("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Key.Wipe()
	if err := do(ctx, e, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
