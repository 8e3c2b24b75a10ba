package dm_test

import (
	"bytes"
	"strings"
	"testing"

	"keyway/dm"
	"keyway/internal/dmtest"
)

// FuzzTable: no text makes the parser fail in another way than by an error,
// nothing stays open after one, and what a table prints can be loaded again
// and prints the same.
func FuzzTable(f *testing.F) {
	for _, s := range []string{
		"0 10 linear a 0\n10 10 linear b 7\n",
		"0 1024 striped 2 8 a 0 b 512",
		"0 16 crypt aes-xts-plain64 :64:logon:k 8 a 0 3 allow_discards sector_size:4096 iv_large_sectors",
		"0 16 inlinecrypt aes-xts-plain64 :64:user:k 18446744073709551615 a 0 1 keytype:raw",
		"0 8 default-key aes-xts-plain64 " + metaKey + " 0 a 0",
		"# comment\n\n0 8 zero\n8 8 error a 0\n",
		"0 1 linear \\a\\\\ 0",
		"0 18446744073709551615 linear a 0",
		"0 1024 striped 4294967295 8 a 0",
		"0 8 flakey a 0 5 5 10 error_reads corrupt_bio_byte 1 w 255 0 random_read_corrupt 7 corrupt_ciphertext junk",
		"0 1024 delay a 0 10 b 0 20 b 8 4294967295",
		"0 1024 dust a 0 512\n1024 64 dust b 1 4096",
		"0 512 unstriped 4 16 2 a 0\n512 16 unstriped 1 8 4294967295 a 0",
		"0 1024 switch 2 64 0 a 0 b 0",
		"0 1024 log-writes a b",
		"0 64 snapshot-origin a\n64 64 snapshot a b PO 8 2 discard_zeroes_cow discard_passdown_origin\n128 8 snapshot a b p 0",
		"0 64 snapshot a b N 4194304",
		"0 1024 mirror core 1 64 2 a 0 b 0 2 handle_errors keep_log\n1024 64 mirror disk 3 a 8 nosync 3 a 0 b 8 a 16",
		"0 64 mirror disk 2 a 4294967296 2 a 0 b 0\n64 64 mirror core 2 2 sync 9 a 0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w := dmtest.New(t)
		w.Disk("a", 1<<20, 1)
		w.Disk("b", 1<<20, 0)
		w.AddKey("k", bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 8)) // weak, so refused by some
		tab, err := w.Parse(text)
		if err == nil {
			printed := tab.Text(dm.StatusTable)
			again, err := w.Parse(printed)
			if err != nil {
				t.Fatalf("%q prints %q, which is refused: %v", text, printed, err)
			}
			if got := again.Text(dm.StatusTable); got != printed {
				t.Errorf("%q prints %q, and that %q", text, printed, got)
			}
			for _, tb := range []*dm.Table{tab, again} {
				if err := tb.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		for _, name := range []string{"a", "b"} {
			if s := w.Device(name).State(); s.Open != 0 {
				t.Errorf("%q left %s open", text, name)
			}
			if e := w.Device(name).Engine(); e != nil && e.Stats().Resident != 0 {
				t.Errorf("%q left a key in a slot", text)
			}
		}
	})
}

// FuzzTakeKeys: no key in hex survives in the result, and none in the source.
func FuzzTakeKeys(f *testing.F) {
	for _, s := range []string{
		"0 8 crypt aes-xts-plain64 %K 0 a 0", "  0\t8 default-key\taes-xts-plain64 %K", "0 8 crypt x :64:logon:%K 0",
		"0 8 crypt %K %K %K", "0 8 linear %K 0\n0 8 inlinecrypt c %K\r\n", "# 0 8 crypt c %K",
	} {
		f.Add(s)
	}
	const key = "c0ffee00c0ffee11c0ffee22c0ffee33c0ffee44c0ffee55c0ffee66c0ffee77"
	f.Fuzz(func(t *testing.T, text string) {
		src := []byte(strings.ReplaceAll(text, "%K", key))
		var taken []string
		out, err := dm.TakeKeys(src, func(_, _ string, hex []byte) (dm.KeyRef, error) {
			taken = append(taken, string(hex))
			return dm.KeyRef{Size: len(hex) / 2, Type: "logon", Name: "taken"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(out, "\n") != strings.Count(text, "\n") {
			t.Error("lines came or went")
		}
		for _, k := range taken {
			if k == key && strings.Count(out, key) >= strings.Count(strings.ReplaceAll(text, "%K", key), key) {
				t.Errorf("%q: a key that was taken is still there: %q", text, out)
			}
		}
	})
}
