//go:build invariants || race

package dm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/dmtest"
	"keyway/internal/interleave"
)

// Races 18 to 34 of dm-fscrypt.md, section 15, each in every interleaving of the points
// that it names: 18, 19, 25 and 26, which are about the key of a table, here; 20 and 21
// in racesdmremove_test.go; 22, 24, 27 and 28 in racesdmunits_test.go; 30, 31, 33 and 34
// in racesdmgraph_test.go; 32 in keystore/races_test.go and TestDMRace10.... 29 is in
// target/mirrorrace_test.go; 23 is R19 and R20 of blkcrypto.md
// (keyslot/racesover_test.go), and with a mirror in racesdmunits_test.go.

// cryptOnto is a table of two rows that encrypts with a key, in data units of 4096 bytes.
func cryptOnto(leaf, key string) string {
	row := "crypt aes-xts-plain64 :64:logon:" + key + " %d " + leaf + " %d 2 sector_size:4096 iv_large_sectors"
	return fmt.Sprintf("0 8 "+row+"\n8 120 "+row, 0, 0, 8, 8)
}

// tableKey adds a key of a table, and returns it as the rows of cryptOnto share it, but
// for the second one.
func (b *blkWorld) tableKey(name string, seed byte) blkKey {
	b.AddKey(name, rawKey(xts4k, seed))
	c := xts4k
	c.DUNBytes = 1
	k, release, err := b.Key(b.w.Ctx, dm.KeyRef{Size: 64, Type: "logon", Name: name}, c, true)
	if err != nil {
		b.w.Fatal(err)
	}
	b.w.Cleanup(func() { _ = release(b.w.Ctx) })
	return blkKey{k, rawKey(xts4k, seed)}
}

// plainWrite writes data for which a table has the key.
func (b *blkWorld) plainWrite(dev block.Device, off int64, data []byte, allowed ...error) bool {
	err := dev.Do(b.w.Ctx, block.Request{Op: block.OpWrite, Off: off, Len: int64(len(data)), Data: block.Bytes(bytes.Clone(data))})
	if err == nil {
		return true
	}
	for _, a := range allowed {
		if errors.Is(err, a) {
			return false
		}
	}
	b.w.Errorf("write at %d: %v", off, err)
	return false
}

// inEngine reports whether the bytes of a key are in a slot of any engine.
func (b *blkWorld) inEngine(bytes []byte) bool {
	for _, e := range b.engines {
		if e.has(bytes) {
			return true
		}
	}
	return false
}

// Race 18, key wipe and key set. The key of a table is wiped by evicting it while the
// device is suspended: nobody uses it then, so this never waits and never finds it busy
// (in-flight crypto after a suspension is impossible), and it is in no engine. A key is
// set by a table that is loaded. Requests that wait meanwhile are kept, and are served
// with what was set. Where nothing was set, a resume lets them in, and they fail closed:
// the medium never has a byte of theirs in any other form (invariants 18, 19, 25, 62).
func TestDMRace18KeyIsWipedAndSetWhileSuspended(t *testing.T) {
	for _, set := range []bool{true, false} {
		outcomes := []string{"with the old key", "with the key that was set"}
		if !set {
			outcomes = []string{"with the old key", "refused"}
		}
		t.Run(fmt.Sprint("set again: ", set), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: admitted", "keyslot: transforming", "block: opened", "block: closed", "blkcrypto: retired"},
				Outcomes: outcomes,
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					disk := b.disk("a", b.engine())
					old := b.tableKey("k", 9)
					vol := b.Map("vol", cryptOnto("a", "k"))
					m := b.Device("vol")
					wiped := false
					w.Go("write", func() {
						if !b.plainWrite(vol, 0, block4k, blkcrypto.ErrKeyEvicted) {
							w.Outcome("refused")
							if !bytes.Equal(disk.Bytes()[:4096], make([]byte, 4096)) {
								w.Error("a write was refused, and something is on the medium")
							}
							return
						}
						b.wantMedium(disk, blkKey{old.Key, old.bytes}, 0, block4k) // the same bytes either way
						if wiped {
							w.Outcome("with the key that was set")
						} else {
							w.Outcome("with the old key")
						}
					})
					w.Go("control", func() {
						if err := m.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
							w.Errorf("suspend: %v", err)
						}
						if _, err := old.EvictIdle(w.Ctx); err != nil {
							w.Errorf("wipe: %v (invariant 18)", err)
						}
						wiped = true
						b.wantGone(old)
						if b.inEngine(old.bytes) {
							w.Error("the key is wiped and in an engine (invariant 62)")
						}
						w.At("wiped")
						if set {
							b.AddKey("k", rawKey(xts4k, 9))
							if err := m.Load(w.Ctx, b.Table(cryptOnto("a", "k"))); err != nil {
								w.Errorf("set: %v", err)
							}
							w.At("set")
						}
						if err := m.Resume(w.Ctx); err != nil {
							w.Errorf("resume: %v", err)
						}
					})
					w.Check(func() {
						if st := m.State(); st.Suspended || st.Waiting != 0 {
							w.Errorf("in the end: %+v", st)
						}
						if bytes.Contains(disk.Bytes(), block4k[:64]) {
							w.Error("plaintext on the medium (invariant 4)")
						}
					})
				},
			})
		})
	}
}

// Race 19: another key is set while writes wait. The key is the table's, and a request is
// mapped by the table that admits it: a write that waits is encrypted with the new key, as
// it is in Linux, and the whole of it is, also across rows (invariant 23). Whoever must
// not have that writes nothing between suspend and resume. What was written before with
// the old key reads as noise afterwards: a reload encrypts nothing again. The old key is
// in no engine when the resume has returned (invariants 29 and 61).
func TestDMRace19AnotherKeyIsSetWhileWritesWait(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: admitted", "block: opened", "dm: suspended", "dm: swapped", "dm: retiring"},
		Outcomes: []string{"old key", "new key"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			disk := b.disk("a", b.engine())
			old, next := rawKey(xts4k, 9), rawKey(xts4k, 50)
			b.AddKey("old", old)
			b.AddKey("new", next)
			vol := b.Map("vol", cryptOnto("a", "old"))
			m := b.Device("vol")
			table := b.Table(cryptOnto("a", "new"))
			two := append(bytes.Clone(block4k), block4k...)
			w.Go("write", func() { b.plainWrite(vol, 0, two) }) // across the rows
			w.Go("control", func() {
				if err := m.Suspend(w.Ctx, dm.SuspendOptions{}); err != nil {
					w.Errorf("suspend: %v", err)
				}
				if err := m.Load(w.Ctx, table); err != nil {
					w.Errorf("load: %v", err)
				}
				w.At("loaded")
				if err := m.Resume(w.Ctx); err != nil {
					w.Errorf("resume: %v", err)
				}
				if b.inEngine(old) {
					w.Error("the old key is in an engine after the resume (invariant 29)")
				}
			})
			w.Check(func() {
				got := disk.Bytes()[:8192]
				switch {
				case bytes.Equal(got, encrypted(old, xts4k, blkcrypto.DUN64(0), two)):
					w.Outcome("old key")
					if bytes.Equal(dmtest.Read(w, vol, 0, 8192), two) {
						w.Error("read with the old key after the new one was set")
					}
				case bytes.Equal(got, encrypted(next, xts4k, blkcrypto.DUN64(0), two)):
					w.Outcome("new key")
					if !bytes.Equal(dmtest.Read(w, vol, 0, 8192), two) {
						w.Error("the new key does not read what it wrote")
					}
				default:
					w.Error("the write is with neither key alone (invariant 23)")
				}
			})
		},
	})
}

// Race 25: the old table gives back its key, which wipes it, while a request that it has
// mapped comes to its end. It is not given back before the last of them has left: none
// fails, none has a byte in any other form, and the key is gone from every engine when
// the reload has returned, and not before it may be (invariant 29).
func TestDMRace25DestructorAgainstLastCompletion(t *testing.T) {
	for _, op := range []block.Op{block.OpRead, block.OpWrite} {
		between := map[block.Op]string{block.OpRead: "keyslot: read", block.OpWrite: "keyslot: encrypted"}[op]
		t.Run(op.String(), func(t *testing.T) {
			interleave.Run(t, interleave.Race{
				Points:   []string{"dm: admitted", between, "block: left", "dm: swapping", "dm: swapped", "dm: retiring"},
				Outcomes: []string{"old table", "new table"},
				World: func(w *interleave.World) {
					b := newBlkWorld(w)
					disk := b.disk("a", b.engine())
					b.disk("b", nil)
					key := rawKey(xts4k, 9)
					b.AddKey("k", key)
					vol := b.Map("vol", cryptOnto("a", "k"))
					want := encrypted(key, xts4k, blkcrypto.DUN64(0), block4k)
					if op == block.OpRead {
						disk.Set(want)
					}
					table := b.Table(onto("b"))
					w.Go("request", func() {
						data := make([]byte, 4096)
						if op == block.OpWrite {
							copy(data, block4k)
						}
						if err := vol.Do(w.Ctx, block.Request{Op: op, Len: 4096, Data: block.Bytes(data)}); err != nil {
							w.Errorf("%v: %v (invariant 29)", op, err)
						}
						if op == block.OpRead && bytes.Equal(data, block4k) || disk.Count(block.OpWrite) > 0 {
							w.Outcome("old table")
						} else {
							w.Outcome("new table")
						}
					})
					w.Go("reload", func() {
						if err := b.Device("vol").Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
							w.Errorf("reload: %v", err)
						}
						if n := len(b.managers[0].Residents()); n != 0 || b.inEngine(key) {
							w.Errorf("%d keys are in the engine after the reload (invariant 29)", n)
						}
						b.wantOpen("a", 0)
					})
					w.Check(func() {
						if got := disk.Bytes()[:4096]; op == block.OpWrite && disk.Count(op) > 0 && !bytes.Equal(got, want) {
							w.Error("wrong bytes on the medium (invariant 1)")
						}
					})
				},
			})
		})
	}
}

// Race 26: what tables print while keys come and go. A text is that of one table, whole,
// and no text, error or receipt has a byte of a key, whether it came in hex with the
// table or is evicted at that moment (invariant 63).
func TestDMRace26TableTextAgainstKeys(t *testing.T) {
	interleave.Run(t, interleave.Race{
		Points:   []string{"dm: staged", "dm: swapped", "dm: discarding", "blkcrypto: dead"},
		Outcomes: []string{"old", "new"},
		World: func(w *interleave.World) {
			b := newBlkWorld(w)
			b.disk("a", b.engine())
			keys := []string{hex.EncodeToString(rawKey(xts4k, 9)), hex.EncodeToString(rawKey(xts4k, 50))}
			row := func(key string) string { return "0 128 crypt aes-xts-plain64 " + key + " 0 a 0" }
			vol := b.Map("vol", row(keys[0]))
			m := b.Device("vol")
			texts := map[string]string{"": "none"}
			texts[m.TableText(false, dm.StatusTable)] = "old"
			table := b.Table(row(keys[1]))
			texts[table.Text(dm.StatusTable)] = "new"
			k, release, err := b.Key(w.Ctx, dm.KeyRef{Size: 64, Name: "key-" + keys[0][:8]},
				blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 1}, true)
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = release(w.Ctx) })
			look := func(what, text string) {
				for _, key := range keys {
					for i := 0; i+16 <= len(key); i += 2 { // eight bytes at any place
						raw, _ := hex.DecodeString(key[i : i+16])
						if strings.Contains(text, key[i:i+16]) || strings.Contains(text, string(raw)) {
							w.Errorf("%s has bytes of a key (invariant 63): %q", what, text)
						}
					}
				}
			}
			w.Go("read", func() {
				for i := range 2 {
					live, inactive := m.TableText(false, dm.StatusTable), m.TableText(true, dm.StatusTable)
					if texts[live] == "" || texts[inactive] == "" || live == "" {
						w.Errorf("live %q, inactive %q: of no table", live, inactive)
					}
					w.Outcome(texts[live])
					look("table", live+inactive)
					look("status", m.TableText(false, dm.StatusInfo))
					look("state", fmt.Sprintf("%+v %v %+v", m.State(), k, m.Keyslots().Residents()))
					if i == 0 {
						w.At("between reads")
					}
				}
			})
			w.Go("reload", func() {
				if err := m.Reload(w.Ctx, table, dm.SuspendOptions{}); err != nil {
					w.Errorf("reload: %v", err)
				}
			})
			w.Go("evict", func() {
				if !k.Evicted() {
					receipt, err := k.Evict(w.Ctx)
					look("receipt", fmt.Sprintf("%+v %v", receipt, err))
				}
				if err := vol.Do(w.Ctx, block.Request{Op: block.OpWrite, Len: 512, Data: block.Bytes(make([]byte, 512))}); err != nil {
					look("error", err.Error())
					if !errors.Is(err, blkcrypto.ErrKeyEvicted) {
						w.Errorf("write: %v", err)
					}
				}
			})
		},
	})
}
