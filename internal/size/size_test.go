package size

import (
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "1K": 1 << 10, "64M": 64 << 20, "1G": 1 << 30, "1g": 1 << 30, "3t": 3 << 40,
		"007": 7, "9223372036854775807": math.MaxInt64, "8388607T": 8388607 << 40,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "K", "-1", "+1", "1.5G", "1KB", "1 K", " 1", "0x10", "1_000", "12x", "1P", "G1", "\xcb", "1\x6b0",
		"9223372036854775808", "8388608T", "99999999999999999999",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d; want an error", text, got)
		}
	}
}

func TestFormatIsReadBack(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1K", 1536: "1536", 1536 << 10: "1536K", 64 << 20: "64M", 5 << 40: "5T", 1 << 60: "1048576T",
	} {
		got := Format(n)
		if got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
		if back, err := Parse(got); err != nil || back != n {
			t.Errorf("Parse(%q) = %d, %v; want %d", got, back, err, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("64M")
	f.Add("18446744073709551615K")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("Parse(%q) = %d", text, n)
		}
		if back, err := Parse(Format(n)); err != nil || back != n {
			t.Fatalf("%q is %d, its Format %q is %d, %v", text, n, Format(n), back, err)
		}
	})
}
