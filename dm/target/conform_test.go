package target_test

import (
	"testing"

	"keyway/internal/blocktest"
)

// TestTargetsConform: every target that keeps data, also across rows, in
// stripes, with data units larger than a sector, and on large blocks.
func TestTargetsConform(t *testing.T) {
	for name, c := range map[string]blocktest.TargetCase{
		"linear":      {Table: "0 2000 linear a 48"},
		"linear rows": {Table: "0 1000 linear b 1048\n1000 1001 linear a 0\n2001 47 linear b 1"},
		"linear 4K":   {Table: "0 1024 linear a 1024\n1024 2048 linear b 0", Leaf: 4096},
		"striped":     {Table: "0 4096 striped 2 8 a 0 b 0", Splits: true},
		"striped odd": {Table: "0 1530 striped 3 5 a 0 b 7 a 1000", Splits: true},
		"crypt":       {Table: "0 2048 crypt aes-xts-plain64 :64:logon:k 5 a 0 1 allow_discards"},
		"crypt 4K":    {Table: "0 2048 crypt aes-xts-plain64 :64:logon:k 0 a 0 2 sector_size:4096 iv_large_sectors"},
		"crypt rows": {Table: "0 1024 crypt aes-xts-plain64 :64:logon:k 0 a 0 1 sector_size:4096\n" +
			"1024 2048 linear b 0"},
		"inlinecrypt":          {Table: "0 2048 inlinecrypt aes-xts-plain64 :64:logon:k 0 a 0 1 allow_discards"},
		"default-key":          {Table: "0 2048 default-key aes-xts-plain64 :64:logon:k 0 a 0 3 allow_discards sector_size:4096 iv_large_sectors"},
		"flakey up":            {Table: "0 2000 flakey a 48 3600 0"},
		"flakey down":          {Table: "0 1000 flakey a 48 0 1 5 corrupt_bio_byte 1 w 0 4096\n1000 1048 linear b 0"},
		"delay":                {Table: "0 2000 delay a 48 0"},
		"delay flush":          {Table: "0 1000 delay a 8 0 a 8 0 b 0 0"},
		"dust":                 {Table: "0 2000 dust a 48 4096"},
		"unstriped":            {Table: "0 1024 unstriped 2 8 1 a 0", Splits: true},
		"unstriped odd":        {Table: "0 1020 unstriped 2 5 0 b 1", Splits: true},
		"switch":               {Table: "0 2000 switch 2 64 0 a 0 b 48", Splits: true},
		"switch odd":           {Table: "0 1530 switch 2 5 0 a 0 b 7", Splits: true},
		"mirror":               {Table: "0 2000 mirror core 1 64 2 a 48 b 0", Splits: true},
		"mirror errors":        {Table: "0 1000 mirror core 2 8 sync 3 b 0 a 0 b 1048 2 handle_errors keep_log", Splits: true},
		"mirror disk":          {Table: "0 1800 mirror disk 2 b 32 2 a 48 b 16", Splits: true},
		"mirror nosync":        {Table: "0 1800 mirror disk 3 a 64 nosync 2 a 48 b 16\n1800 96 linear b 1904", Leaf: 4096, Splits: true},
		"snapshot-origin":      {Table: "0 2000 snapshot-origin a"},
		"snapshot-origin rows": {Table: "0 1000 linear b 0\n1000 1000 snapshot-origin a", Splits: true},
		"snapshot":             {Table: "0 1024 snapshot a b P 8", Splits: true},
		"snapshot odd":         {Table: "0 1021 snapshot a b PO 2 2 discard_zeroes_cow discard_passdown_origin", Splits: true},
		"snapshot rows":        {Table: "0 300 snapshot a b P 8\n300 600 snapshot a b P 8", Splits: true},
		"snapshot 4K":          {Table: "0 1024 snapshot b a P 16 1 discard_zeroes_cow", Leaf: 4096, Splits: true},
		"log-writes":           {Table: "0 2048 log-writes a b", Splits: true},
		"log-writes 4K":        {Table: "0 2048 log-writes b a", Leaf: 4096, Splits: true},
	} {
		t.Run(name, func(t *testing.T) { blocktest.Target(t, c) })
	}
}
