package target_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/dmtest"
)

// request returns one on the first bytes of a device.
func request(op block.Op, data []byte) block.Request {
	return block.Request{Op: op, Len: int64(len(data)), Data: block.Bytes(data)}
}

// TestFlakeyTakesTurns: what is done, lost and failed in each interval.
func TestFlakeyTakesTurns(t *testing.T) {
	const done, lost, failed = "done", "lost", "failed"
	for _, c := range []struct {
		words                      string
		read, write, flush, zeroes string // while down
	}{
		{"", failed, failed, failed, failed},
		{"1 error_reads", failed, done, done, done},
		{"1 error_writes", done, failed, failed, failed},
		{"1 drop_writes", done, lost, lost, lost},
		{"2 ERROR_READS drop_writes", failed, lost, lost, lost},
		{"5 corrupt_bio_byte 600 r 1 0", done, done, done, done}, // beyond the data
	} {
		t.Run(c.words, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := dmtest.New(t)
				a := w.Disk("a", 1<<20, 0)
				dev := w.Map("d", "0 8 flakey a 3 5 3 "+c.words)
				for second := range 17 {
					down := second%8 >= 5
					data := bytes.Repeat([]byte{byte(second + 1)}, 512)
					for _, x := range []struct {
						op   block.Op
						want string
					}{{block.OpWrite, c.write}, {block.OpRead, c.read}, {block.OpFlush, c.flush}, {block.OpWriteZeroes, c.zeroes}} {
						before, n := a.Bytes(), a.Count(x.op)
						r := request(x.op, bytes.Clone(data))
						if !x.op.HasData() {
							r.Data = block.Segments{}
						}
						if x.op == block.OpFlush {
							r.Len = 0
						}
						err := dev.Do(t.Context(), r)
						got := done
						switch {
						case errors.Is(err, block.ErrIO):
							got = failed
						case err != nil:
							t.Fatal(err)
						case a.Count(x.op) == n:
							got = lost
						}
						want := done
						if down {
							want = x.want
						}
						if got != want {
							t.Errorf("second %d: %v is %s, want %s", second, x.op, got, want)
						}
						if got != done && !bytes.Equal(a.Bytes(), before) {
							t.Errorf("second %d: a %v that was %s changed the disk", second, x.op, got)
						}
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// TestFlakeyCorrupts: the byte that was asked for, in the direction that was
// asked for, on the way only; the writer's memory stays as it is.
func TestFlakeyCorrupts(t *testing.T) {
	was := bytes.Repeat([]byte{7}, 1024)
	for _, c := range []struct {
		words       string
		flags       block.Flags
		onDisk      int // bytes that differ there
		onRead      int // and when read
		at, becomes int
	}{
		{words: "5 corrupt_bio_byte 1 w 200 0", onDisk: 1, onRead: 1, at: 0, becomes: 200},
		{words: "5 corrupt_bio_byte 1024 w 0 0", onDisk: 1, onRead: 1, at: 1023, becomes: 0},
		{words: "5 corrupt_bio_byte 1025 w 0 0"},
		{words: "5 corrupt_bio_byte 514 R 9 0", onRead: 1, at: 513, becomes: 9},
		{words: "5 corrupt_bio_byte 1 w 200 131073"}, // writes with FUA
		{words: "5 corrupt_bio_byte 1 w 200 131073", flags: block.FUA, onDisk: 1, onRead: 1, becomes: 200},
		{words: "5 corrupt_bio_byte 1 r 200 1"},  // reads that are writes
		{words: "5 corrupt_bio_byte 1 w 200 32"}, // a flag that no request has
		{words: "6 drop_writes corrupt_bio_byte 514 r 9 0", onDisk: 1024, onRead: 1024, at: 513, becomes: 9},
		{words: "2 random_write_corrupt 0"},
	} {
		t.Run(c.words, func(t *testing.T) {
			w := dmtest.New(t)
			a := w.Disk("a", 1<<20, 0)
			dev := w.Map("d", "0 8 flakey a 0 0 1 "+c.words)
			if c.words == "2 random_write_corrupt 0" { // nothing is left to do, so it fails
				if err := dev.Do(t.Context(), request(block.OpWrite, was)); !errors.Is(err, block.ErrIO) {
					t.Errorf("without a feature: %v", err)
				}
				return
			}
			data := bytes.Clone(was)
			r := request(block.OpWrite, data)
			r.Data, r.Flags = block.Vec([][]byte{data[:1], data[1:513], nil, data[513:]}), c.flags
			if err := dev.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(data, was) {
				t.Error("the writer's data changed")
			}
			disk, read := a.Bytes()[:1024], dmtest.Read(t, dev, 0, 1024)
			if got := differ(disk, was); got != c.onDisk {
				t.Errorf("%d bytes differ on the disk, want %d", got, c.onDisk)
			}
			if got := differ(read, was); got != c.onRead {
				t.Errorf("%d bytes differ when read, want %d", got, c.onRead)
			}
			if c.onRead > 0 && read[c.at] != byte(c.becomes) {
				t.Errorf("byte %d is %d, want %d", c.at, read[c.at], c.becomes)
			}
		})
	}
	for words, onDisk := range map[string]bool{
		fmt.Sprintf("2 random_write_corrupt %d", 1_000_000_000): true, fmt.Sprintf("2 random_read_corrupt %d", 1_000_000_000): false,
	} {
		w := dmtest.New(t)
		a := w.Disk("a", 1<<20, 0)
		dev := w.Map("d", "0 8 flakey a 0 0 1 "+words)
		var disk, read int
		for range 40 { // each changes a byte, to another value but for 1 in 256
			dmtest.Write(t, dev, 0, was)
			disk += differ(a.Bytes()[:1024], was)
			a.Set(was)
			read += differ(dmtest.Read(t, dev, 0, 1024), was)
		}
		if disk > 40 || read > 40 || (disk > 30) != onDisk || (read > 30) == onDisk || disk > 0 && read > 0 {
			t.Errorf("%s: %d bytes changed on the disk and %d on the way back", words, disk, read)
		}
	}
}

// differ counts the bytes that differ.
func differ(a, b []byte) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// TestFlakeyNeverStripsAContext (dm-fscrypt.md, invariants 4 and 5): a
// corrupted write is encrypted like any other, and which of plaintext and
// ciphertext is corrupted is as documented.
func TestFlakeyNeverStripsAContext(t *testing.T) {
	for _, c := range []struct {
		name, words string
		slots       int
		passes      bool // the profile
		spoilt      int  // bytes of plaintext that one byte on the way spoils
	}{
		{"engine", "5 corrupt_bio_byte 5 w 170 0", 2, true, 1},
		{"engine, read", "5 corrupt_bio_byte 5 r 170 0", 2, true, 1},
		{"engine, ciphertext", "6 corrupt_ciphertext corrupt_bio_byte 5 w 170 0", 2, false, 16},
		{"engine, read, ciphertext", "6 corrupt_bio_byte 5 r 170 0 corrupt_ciphertext", 2, false, 16},
		{"software", "5 corrupt_bio_byte 5 w 170 0", 0, false, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dmtest.New(t)
			a := w.Disk("a", 1<<20, c.slots)
			good := w.Map("good", "0 64 linear a 0")
			dev := w.Map("d", "0 64 flakey a 0 0 1 "+c.words)
			config := blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 512, DUNBytes: 8}
			profile := dev.Info().Crypto
			if got := profile.Supports(config); got != c.passes {
				t.Errorf("supports the config: %v, want %v", got, c.passes)
			}
			key := dmtest.NewKey(t, "k", config, 3)
			defer func() {
				if _, err := key.Evict(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			plain := bytes.Repeat([]byte{1, 2, 3, 4}, 1024)
			r := request(block.OpWrite, bytes.Clone(plain))
			r.Crypt = blkcrypto.Context{Key: key, DUN: blkcrypto.DUN64(99)}
			if err := dev.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(a.Bytes(), plain[8:24]) {
				t.Fatal("plaintext on the medium")
			}
			got := make([]byte, len(plain))
			r.Op, r.Data = block.OpRead, block.Bytes(got)
			from := good
			if bytes.Contains([]byte(c.words), []byte(" r ")) {
				from = dev
			}
			if err := from.Do(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			n := differ(got, plain)
			if c.spoilt == 1 && (n != 1 || got[4] != 170) || c.spoilt == 16 && (n < 8 || n > 16 || differ(got[16:], plain[16:]) != 0) {
				t.Errorf("%d bytes of plaintext differ, want about %d", n, c.spoilt)
			}
		})
	}
}

// TestFlakeyThatIsDownCanBeReplaced: a suspension does not fail because the
// target fails flushes.
func TestFlakeyThatIsDownCanBeReplaced(t *testing.T) {
	w := dmtest.New(t)
	a := w.Disk("a", 1<<20, 0)
	dev := w.Map("d", "0 64 flakey a 0 0 1 1 error_writes\n64 64 linear a 64")
	if err := dev.Do(t.Context(), block.Request{Op: block.OpFlush}); !errors.Is(err, block.ErrIO) {
		t.Errorf("flush: %v, want an input/output error", err)
	}
	n := a.Count(block.OpFlush)
	w.Reload("d", "0 128 linear a 0")
	if a.Count(block.OpFlush) != n+1 {
		t.Error("the suspension made nothing durable")
	}
	dmtest.Write(t, dev, 0, make([]byte, 512))
}
