package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// heard is what a sink was told.
type heard struct {
	data     []byte
	entries  []FscryptEntry
	problems []FscryptProblem
}

func (h *heard) sink() FscryptSink {
	return FscryptSink{
		Data:    func(p []byte) error { h.data = append(h.data, p...); return nil },
		Entry:   func(e FscryptEntry) error { h.entries = append(h.entries, e); return nil },
		Problem: func(p FscryptProblem) error { h.problems = append(h.problems, p); return nil },
	}
}

func stream(t *testing.T) (b []byte, data []byte) {
	t.Helper()
	var out bytes.Buffer
	w := NewStreamWriter(&out)
	if !w.Empty() {
		t.Error("a new stream is not empty")
	}
	s := w.Sink()
	data = bytes.Repeat([]byte("contents "), maxFrame/9+100) // more than a frame takes
	for _, err := range []error{
		s.Entry(FscryptEntry{Path: "a\uFFFD", PathBytes: []byte("a\xff"), Size: 7}), s.Data(data[:5]), s.Data(nil),
		s.Problem(FscryptProblem{Path: "b", Error: "bad"}), s.Data(data[5:]), w.End(FscryptTotals{Files: 1, Bytes: int64(len(data))}, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if w.Empty() {
		t.Error("a stream with frames is empty")
	}
	return out.Bytes(), data
}

func TestStreamArrivesAsItWasSent(t *testing.T) {
	b, data := stream(t)
	var h heard
	var total FscryptTotals
	if err := readStream(bytes.NewReader(b), h.sink(), &total); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.data, data) {
		t.Errorf("%d bytes, want %d", len(h.data), len(data))
	}
	want := heard{nil, []FscryptEntry{{Path: "a\uFFFD", PathBytes: []byte("a\xff"), Size: 7}}, []FscryptProblem{{Path: "b", Error: "bad"}}}
	if h.data = nil; !reflect.DeepEqual(h, want) {
		t.Errorf("got %+v, want %+v", h, want)
	}
	if total != (FscryptTotals{Files: 1, Bytes: int64(len(data))}) {
		t.Errorf("totals %+v", total)
	}
}

// Wherever a stream is cut off, it is no success.
func TestStreamThatIsCutNeverSucceeds(t *testing.T) {
	b, _ := stream(t)
	cuts := []int{len(b) - 1, len(b) - 3, len(b) / 2, maxFrame + 4}
	for n := range 64 {
		cuts = append(cuts, n)
	}
	for _, n := range cuts {
		var total FscryptTotals
		if err := readStream(bytes.NewReader(b[:n]), (&heard{}).sink(), &total); !errors.Is(err, errCut) {
			t.Errorf("%d bytes of %d: %v, want %v", n, len(b), err, errCut)
		}
	}
}

func TestStreamEndsWithTheErrorOfTheDaemon(t *testing.T) {
	var out bytes.Buffer
	w := NewStreamWriter(&out)
	if err := w.End(nil, &Error{Message: "no", Hint: "way"}); err != nil {
		t.Fatal(err)
	}
	err := readStream(&out, (&heard{}).sink(), nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Message != "no" || e.Hint != "way" {
		t.Errorf("got %#v", err)
	}
}

func TestStreamRefusesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{"q\x00\x00\x00\x00": "unknown kind", "d\xff\xff\xff\xff": "a frame of 4294967295 bytes"} {
		if err := readStream(strings.NewReader(text), (&heard{}).sink(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	// Data, where the call brings none.
	if err := readStream(strings.NewReader("d\x00\x00\x00\x01x"), FscryptSink{}, nil); err == nil || errors.Is(err, errCut) {
		t.Errorf("data for nobody: %v", err)
	}
}

// An error of who takes the stream ends it.
func TestStreamEndsWithItsSink(t *testing.T) {
	b, _ := stream(t)
	full := errors.New("no space left")
	s := (&heard{}).sink()
	s.Data = func([]byte) error { return full }
	if err := readStream(bytes.NewReader(b), s, nil); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("d\x00\x00\x00\x01xe\x00\x00\x00\x02{}"))
	f.Add([]byte("f\x00\x00\x00\x0c{\"path\":\"a\"}x\x00\x00\x00\x02{}"))
	f.Add(binary.BigEndian.AppendUint32([]byte("p"), maxFrame+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h heard
		var total FscryptTotals
		err := readStream(bytes.NewReader(b), h.sink(), &total)
		if err == nil && !bytes.ContainsRune(b, frameEnd) {
			t.Error("a success without an end")
		}
		if len(h.data) > len(b) {
			t.Errorf("%d bytes of data in %d", len(h.data), len(b))
		}
		if errors.Is(err, io.EOF) {
			t.Error("an end that is none")
		}
	})
}
