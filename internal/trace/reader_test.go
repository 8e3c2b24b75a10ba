package trace_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"keyway/blkcrypto"
	"keyway/block"
	"keyway/internal/trace"
)

// TestEveryCutIsReadable: whatever part of a trace is there, the whole lines in it are
// read, and the rest is told of.
func TestEveryCutIsReadable(t *testing.T) {
	whole := sample
	first := strings.IndexByte(whole, '\n')
	for n := range len(whole) {
		events := 0
		info, err := trace.Read(strings.NewReader(whole[:n]), func(*trace.Event) error { events++; return nil })
		if n <= first {
			if err == nil {
				t.Errorf("%d bytes: read as a trace", n)
			}
			continue
		}
		want := 0
		for line := range strings.Lines(whole[:n]) {
			if strings.HasSuffix(line, "\n") && strings.ContainsAny(line[:1], "rwv") || strings.HasPrefix(line, "evict") && strings.HasSuffix(line, "\n") {
				want++
			}
		}
		if err != nil || !info.Truncated || events != want {
			t.Errorf("%d bytes: %d events, want %d; %+v, %v", n, events, want, info, err)
		}
	}
}

const sample = `keyway trace 1
began 2026-11-21T20:00:00Z
# a comment
engine 1 32 "engine cpu of device \"disk0\""
key 17 AES-256-XTS 4096 "userdata"
read 1 17 8 32768 4096 1000 91000
write 1 17 0x10000000000000000 36864 4096 2000 92000 failed
read 1 - - 0 512 2000 3000
evict 1 17 95000 99000
end 4
`

func TestSampleIsRead(t *testing.T) {
	info, events := all(t, sample)
	began := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	if want := (&trace.Info{
		Began: began, Engines: []trace.Engine{{Number: 1, Slots: 32, Name: "engine cpu of device \"disk0\""}},
		Keys: []trace.Key{{Number: 17, Mode: "AES-256-XTS", UnitSize: 4096, Name: "userdata"}}, Events: 4,
	}); !reflect.DeepEqual(info, want) {
		t.Errorf("got  %+v\nwant %+v", info, want)
	}
	if want := []trace.Event{
		{DUN: blkcrypto.DUN64(8), Off: 32768, Len: 4096, Start: 1000, End: 91000},
		{Op: block.OpWrite, Failed: true, DUN: blkcrypto.DUN{0, 1}, Off: 36864, Len: 4096, Start: 2000, End: 92000},
		{Key: -1, Len: 512, Start: 2000, End: 3000},
		{Evict: true, Start: 95000, End: 99000},
	}; !reflect.DeepEqual(events, want) {
		t.Errorf("got  %+v\nwant %+v", events, want)
	}
}

// TestWrongTracesAreRefused: each by the line, and what is wrong there.
func TestWrongTracesAreRefused(t *testing.T) {
	const head = "keyway trace 1\nengine 1 2 \"e\"\nkey 3 AES-256-XTS 4096 \"k\"\n"
	for _, tt := range []struct{ text, want string }{
		{"", "this is no trace"},
		{"keyway trace 1", "this is no trace"},
		{"hello\n", "this is no trace"},
		{"keyway trace x\n", "this is no trace"},
		{"keyway trace 2\n", "line 1: a trace of version 2: this program reads version 1"},
		{"keyway trace 1\n\n", `line 2: "" is none of read,`},
		{"keyway trace 1\nfoo 1\n", `line 2: "foo" is none of read,`},
		{head + "began 2026-11-21T20:00:00Z\n", "line 4: began stands in the second line only"},
		{"keyway trace 1\nbegan yesterday\n", `line 2: "yesterday" is not a time`},
		{head + "engine 1 2 \"f\"\n", "line 4: engine 1 was another one before"},
		{head + "engine 2 2 f\n", "line 4: \"f\" is not a name in quotes"},
		{head + "engine 2 2\n", "line 4: is too short"},
		{head + "engine 2 2000000 \"f\"\n", "line 4: number of keyslots: 2000000 is more than 1048576"},
		{head + "key 3 AES-256-XTS 512 \"k\"\n", "line 4: key 3 was another one before"},
		{head + "key 4 AES-256-XTS 65537 \"k\"\n", "line 4: data unit size: 65537 is more than 65536"},
		{head + "key 4  4096 \"k\"\n", `line 4: "" is no mode`},
		{head + "key 4 AES-256-XTS 4096 \"" + strings.Repeat("n", 201) + "\"\n", "is not a name in quotes of at most 200 bytes"},
		{head + "read 1 3 0 0 4096 5\n", "line 4: is too short"},
		{head + "read 1 3 0 0 4096 5 6 7\n", `line 4: "7" is not "failed"`},
		{head + "read 1 3 0 0 4096 5 6 failed failed\n", `line 4: is too long: "failed"`},
		{head + "read 1 3 0 0 4096 6 5\n", "line 4: ends at 5, before it starts at 6"},
		{head + "read 2 3 0 0 4096 5 6\n", "line 4: engine 2 has not been introduced"},
		{head + "read 1 4 0 0 4096 5 6\n", "line 4: key 4 has not been introduced"},
		{head + "read 1 3 - 0 4096 5 6\n", `either both are "-" or none`},
		{head + "read 1 - 0 0 4096 5 6\n", `either both are "-" or none`},
		{head + "read 1 x 0 0 4096 5 6\n", `"x" is not the number of a key`},
		{head + "read 1 3 -1 0 4096 5 6\n", `"-1" is not a DUN`},
		{head + "read 1 3 18446744073709551616 0 4096 5 6\n", `"18446744073709551616" is not a DUN`},
		{head + "read 1 3 01 0 4096 5 6\n", `"01" is not a DUN`},
		{head + "read 1 3 0xff 0 4096 5 6\n", "is not a DUN of 17 to 64 hexadecimal digits"},
		{head + "read 1 3 0x1000000000000000G 0 4096 5 6\n", "is not a DUN"},
		{head + "read 1 3 0 9223372036854775807 1 5 6\n", "line 4: 1 bytes from offset 9223372036854775807 on reach too far"},
		{head + "read 1 3 0 9223372036854775808 1 5 6\n", `offset: "9223372036854775808" is not a number`},
		{head + "read 1 3 0 0 4096 5  6\n", `end: "" is not a number`},
		{head + "read 1 3 0 0 4096 5 +6\n", `end: "+6" is not a number`},
		{head + "evict 1 3 5\n", "line 4: is too short"},
		{head + "evict 1 4 5 6\n", "line 4: key 4 has not been introduced"},
		{head + "end 1\n", "line 4: there should be 1 requests and evictions, and there are 0"},
		{head + "end 0\n# no more\n", "line 5: stands after the end"},
		{head + "end 0\nx", "line 5: stands after the end"},
		{head + "read 1 3 0 0 4096 5 6\r\n", `end: "6\r" is not a number`},
		{head + "# " + strings.Repeat("x", trace.MaxLine) + "\n", "line 4: has more than 4096 bytes"},
	} {
		_, err := trace.Read(strings.NewReader(tt.text), func(*trace.Event) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q in it", tt.text, err, tt.want)
		}
	}
}

// TestErrorsComeThrough: those of the caller and those of the file.
func TestErrorsComeThrough(t *testing.T) {
	mine := errors.New("enough")
	if _, err := trace.Read(strings.NewReader(sample), func(*trace.Event) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v, want %v", err, mine)
	}
	broken := io.MultiReader(strings.NewReader(sample), errReader{mine})
	if _, err := trace.Read(broken, func(*trace.Event) error { return nil }); !errors.Is(err, mine) {
		t.Errorf("got %v, want %v", err, mine)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// FuzzRead: no text makes the reader panic, and what it takes it would take again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("keyway trace 1\nend 0\n"))
	f.Add([]byte("keyway trace 1\nengine 0 0 \"\"\nkey 0 x 0 \"\"\nwrite 0 0 0 0 0 0 0\nevict 0 0 0 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := 0
		info, err := trace.Read(bytes.NewReader(text), func(e *trace.Event) error {
			n++
			if e.Engine < 0 || e.Key < -1 || e.Off < 0 || e.Len < 0 || e.Off+e.Len < 0 || e.Start < 0 || e.End < e.Start || e.Evict && e.Key < 0 {
				t.Fatalf("got %+v", e)
			}
			return nil
		})
		if err != nil {
			return
		}
		if info.Events != n {
			t.Fatalf("%d events, and %d were delivered", info.Events, n)
		}
		if !info.Truncated {
			cut := text[:len(text)-1]
			if info, err := trace.Read(bytes.NewReader(cut), func(*trace.Event) error { return nil }); err != nil || !info.Truncated {
				t.Fatalf("without the last byte: %+v, %v", info, err)
			}
		}
	})
}
