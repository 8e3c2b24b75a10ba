package luks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"keyway/luks"
	"keyway/test/harness"
)

// A ram is a medium in memory.
type ram struct{ *recorder }

func (r ram) WriteAt(b []byte, off int64) (int, error) {
	n, err := r.recorder.WriteAt(b, off)
	r.log = nil
	return n, err
}

// A model is what a header should say after some changes.
type model struct {
	slots    map[int]string // passphrases
	priority map[int]int
	tokens   map[int][]int // keyslots of each
	label    string
	flags    []string
}

// FuzzEdits does changes in any order, each byte of steps one, and compares the header
// with a model that knows nothing of the format.
func FuzzEdits(f *testing.F) {
	f.Add(byte(2), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add(byte(1), []byte{0, 1, 0, 16, 32, 2, 48, 0, 64, 80, 3, 96, 112, 18, 0})
	f.Add(byte(2), []byte{0, 16, 32, 48, 64, 80, 1, 17, 33, 2, 18, 3, 19, 0, 16})
	f.Add(byte(2), []byte{0, 6, 22, 38, 5, 21, 7, 23, 1, 2, 18, 34, 8, 24, 9, 25, 3, 19})
	f.Add(byte(1), []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 17, 33, 2, 2, 2, 3, 3, 3, 3, 3})
	f.Fuzz(func(t *testing.T, version byte, steps []byte) {
		if len(steps) > 24 {
			steps = steps[:24]
		}
		edits(t, 1+int(version)%2, steps)
	})
}

func edits(t *testing.T, version int, steps []byte) {
	ctx := context.Background()
	const size = 1 << 20
	o := luks.FormatOptions{Version: version, Key: cheap, Cipher: "aes-cbc-plain64", KeySize: 16}
	if version == 2 {
		o.DataOffset = 32<<10 + 6*64<<10 // six keys
	}
	m := ram{record(make([]byte, size+4096))}
	e, v, err := luks.Format(ctx, m, size+4096, []byte("0"), o)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Key.Wipe()
	is := &model{map[int]string{0: "0"}, map[int]int{}, map[int][]int{}, "", nil}
	for i, step := range steps {
		where := fmt.Sprintf("LUKS%d, step %d of %v", version, i, steps)
		is.step(t, ctx, e, v, where, int(step%16), int(step/16), fmt.Sprintf("p%d", i), version)
		is.same(t, e.Header(), where)
		h, err := luks.Read(m, size+4096, luks.Options{Policy: luks.Strict})
		if err != nil && !errors.Is(err, luks.ErrPolicy) {
			t.Fatalf("%s: %v", where, err)
		}
		if err == nil && !bytes.Equal(h.Metadata(), e.Header().Metadata()) {
			t.Fatalf("%s: the editor has\n%s\nand the medium\n%s", where, e.Header().Metadata(), h.Metadata())
		}
	}
	for slot, p := range is.slots {
		w, err := e.Header().Open(ctx, m, []byte(p), slot)
		if err != nil {
			t.Fatalf("LUKS%d, %v: keyslot %d: %v", version, steps, slot, err)
		}
		if !v.Key.Equal(w.Key.Bytes()) {
			t.Fatalf("LUKS%d, %v: keyslot %d has another key", version, steps, slot)
		}
		w.Key.Wipe()
	}
}

// step does one change, with an argument from 0 to 15, to header and model.
func (is *model) step(t *testing.T, ctx context.Context, e *luks.Editor, v *luks.Volume, where string, what, arg int, fresh string, version int) {
	t.Helper()
	slots := slices.Sorted(maps.Keys(is.slots))
	has := func(id int) bool { _, ok := is.slots[id]; return ok }
	pick := -1 // a keyslot in use
	if len(slots) > 0 {
		pick = slots[arg%len(slots)]
	}
	may := func(err error, allowed bool) bool {
		t.Helper()
		if (err == nil) != allowed {
			t.Fatalf("%s (%d, %d): %v, want it done: %v", where, what, arg, err, allowed)
		}
		return err == nil
	}
	most := []int{0, 8, 6}[version]
	switch {
	case what == 0: // add anywhere
		id, err := e.AddKey(ctx, v, []byte(fresh), luks.AnySlot, cheap)
		if may(err, len(slots) < most) {
			if has(id) {
				t.Fatalf("%s: keyslot %d was in use", where, id)
			}
			is.slots[id] = fresh
		} else if !errors.Is(err, luks.ErrFull) {
			t.Fatalf("%s: %v", where, err)
		}
	case what == 1: // add there
		_, err := e.AddKey(ctx, v, []byte(fresh), arg, cheap)
		if may(err, !has(arg) && len(slots) < most && (version == 2 || arg < 8)) {
			is.slots[arg] = fresh
		}
	case what == 2 && pick >= 0: // change
		room := len(slots) < most || version == 1 && pick != 6
		id, err := e.ChangeKey(ctx, []byte(is.slots[pick]), []byte(fresh), pick, cheap)
		if may(err, room) {
			if id != pick {
				delete(is.slots, pick)
			}
			is.slots[id] = fresh
		}
	case what == 3: // kill
		if may(e.KillSlot(arg, false), has(arg) && len(slots) > 1) {
			is.forget(arg)
		}
	case what == 4 && pick >= 0: // kill, the last as well
		may(e.KillSlot(pick, true), true)
		is.forget(pick)
	case what == 5 && pick >= 0: // priority
		if may(e.SetPriority(pick, arg%3), version == 2) {
			is.priority[pick] = arg % 3
		}
	case what == 6: // a token
		list, text := []int{}, ""
		if pick >= 0 {
			list, text = []int{pick}, fmt.Sprintf("%q", fmt.Sprint(pick))
		}
		id, err := e.AddToken(fmt.Appendf(nil, `{"type":"t","keyslots":[%s]}`, text), luks.AnyToken)
		if may(err, version == 2) {
			is.tokens[id] = list
		}
	case what == 7: // no token
		_, there := is.tokens[arg]
		if may(e.RemoveToken(arg), there) {
			delete(is.tokens, arg)
		}
	case what == 8 && pick >= 0: // a token for another keyslot
		list, there := is.tokens[arg]
		if may(e.AssignToken(arg, pick, true), there) && !slices.Contains(list, pick) {
			is.tokens[arg] = append(list, pick)
		}
	case what == 9:
		if may(e.SetLabel(fresh, ""), version == 2) {
			is.label = fresh
		}
	case what == 10:
		flags := [][]string{nil, {"allow-discards"}, {"no-read-workqueue", "allow-discards"}}[arg%3]
		if may(e.SetFlags(flags), version == 2) {
			is.flags = flags
		}
	case what == 11 && pick >= 0: // remove by passphrase
		if is.priority[pick] == 0 && is.hasPriority(pick) {
			return // is not tried
		}
		id, err := e.RemoveKey(ctx, []byte(is.slots[pick]), false)
		if may(err, len(slots) > 1) {
			if id != pick {
				t.Fatalf("%s: keyslot %d was removed, want %d", where, id, pick)
			}
			is.forget(pick)
		}
	}
}

func (is *model) hasPriority(slot int) bool { _, ok := is.priority[slot]; return ok }

func (is *model) forget(slot int) {
	delete(is.slots, slot)
	delete(is.priority, slot)
	for id, list := range is.tokens {
		is.tokens[id] = slices.DeleteFunc(list, func(s int) bool { return s == slot })
	}
}

// same compares what a header says.
func (is *model) same(t *testing.T, h *luks.Header, where string) {
	t.Helper()
	var got []int
	for _, k := range h.Keyslots {
		got = append(got, k.ID)
		want := 1
		if is.hasPriority(k.ID) {
			want = is.priority[k.ID]
		}
		if k.Priority != want {
			t.Fatalf("%s: keyslot %d has priority %d, want %d", where, k.ID, k.Priority, want)
		}
	}
	if want := slices.Sorted(maps.Keys(is.slots)); !slices.Equal(got, want) {
		t.Fatalf("%s: keyslots %v, want %v", where, got, want)
	}
	if len(h.Tokens) != len(is.tokens) {
		t.Fatalf("%s: %d tokens, want %d", where, len(h.Tokens), len(is.tokens))
	}
	for _, token := range h.Tokens {
		if want, ok := is.tokens[token.ID]; !ok || !slices.Equal(token.Keyslots, want) {
			t.Fatalf("%s: token %d is for %v, want %v", where, token.ID, token.Keyslots, want)
		}
	}
	if h.Label != is.label || !slices.Equal(h.Flags, is.flags) {
		t.Fatalf("%s: label %q and flags %v, want %q, %v", where, h.Label, h.Flags, is.label, is.flags)
	}
	if d := h.Digests; len(d) != 1 || len(d[0].Keyslots) != len(is.slots) || !slices.Equal(d[0].Segments, []int{0}) {
		t.Fatalf("%s: digests %+v", where, d)
	}
}

// TestRandomEdits is FuzzEdits with random steps.
func TestRandomEdits(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for end := time.Now().Add(harness.Soak(t, time.Second)); ; {
		steps := make([]byte, 1+rnd.IntN(24))
		for i := range steps {
			steps[i] = byte(rnd.IntN(12) + 16*rnd.IntN(16))
		}
		edits(t, 1+rnd.IntN(2), steps)
		if t.Failed() || time.Now().After(end) {
			return
		}
	}
}
