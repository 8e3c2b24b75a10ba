package control

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The answer of a call that streams is a sequence of frames: a byte that says what it
// is, four bytes of length, big-endian, and the payload. A stream without a last frame
// has been cut off, so what is incomplete never looks complete.
const (
	frameData    = 'd' // bytes
	frameEntry   = 'f' // FscryptEntry
	frameProblem = 'p' // FscryptProblem
	frameEnd     = 'e' // the last one of a success: the result
	frameError   = 'x' // the last one of a failure: Error

	frameHead = 5
	maxFrame  = 4 << 20 // bytes of a payload
)

// errCut is a stream without a last frame.
var errCut = errors.New("the answer ends in the middle")

// A StreamWriter writes the frames of an answer. Its methods are those of FscryptSink;
// one goroutine may call them.
type StreamWriter struct {
	w     *bufio.Writer
	begun bool
}

// NewStreamWriter returns a writer of frames to w.
func NewStreamWriter(w io.Writer) *StreamWriter {
	return &StreamWriter{w: bufio.NewWriterSize(w, 64<<10)}
}

// Empty reports whether no frame was written yet.
func (s *StreamWriter) Empty() bool { return !s.begun }

// Sink writes what it gets to the stream.
func (s *StreamWriter) Sink() FscryptSink {
	return FscryptSink{
		Data: func(p []byte) error {
			for len(p) > 0 {
				n := min(len(p), maxFrame)
				if err := s.frame(frameData, p[:n]); err != nil {
					return err
				}
				p = p[n:]
			}
			return nil
		},
		Entry:   func(e FscryptEntry) error { return s.json(frameEntry, e) },
		Problem: func(p FscryptProblem) error { return s.json(frameProblem, p) },
	}
}

// End writes the last frame: the result, or why there is none.
func (s *StreamWriter) End(result any, failure *Error) error {
	var err error
	if failure != nil {
		err = s.json(frameError, failure)
	} else {
		err = s.json(frameEnd, result)
	}
	return errors.Join(err, s.w.Flush())
}

func (s *StreamWriter) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.frame(kind, b)
}

func (s *StreamWriter) frame(kind byte, p []byte) error {
	s.begun = true
	var head [frameHead]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(p)))
	s.w.Write(head[:]) // its error is that of the next write
	_, err := s.w.Write(p)
	return err
}

// readStream hands the frames of r to s, and the last to result.
func readStream(r io.Reader, s FscryptSink, result any) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var buf []byte
	for {
		var head [frameHead]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return cut(err)
		}
		n := int(binary.BigEndian.Uint32(head[1:]))
		if n > maxFrame {
			return fmt.Errorf("a frame of %d bytes, more than %d", n, maxFrame)
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		p := buf[:n]
		if _, err := io.ReadFull(in, p); err != nil {
			return cut(err)
		}
		last, err := s.take(head[0], p, result)
		if last || err != nil {
			return err
		}
	}
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) {
		return errCut
	}
	return err
}

// take takes one frame.
func (s *FscryptSink) take(kind byte, p []byte, result any) (last bool, err error) {
	switch {
	case kind == frameData && s.Data != nil:
		return false, s.Data(p)
	case kind == frameEntry && s.Entry != nil:
		var e FscryptEntry
		if err := json.Unmarshal(p, &e); err != nil {
			return false, err
		}
		return false, s.Entry(e)
	case kind == frameProblem && s.Problem != nil:
		var e FscryptProblem
		if err := json.Unmarshal(p, &e); err != nil {
			return false, err
		}
		return false, s.Problem(e)
	case kind == frameEnd:
		if result == nil {
			return true, nil
		}
		return true, json.Unmarshal(p, result)
	case kind == frameError:
		e := new(Error)
		if err := json.Unmarshal(p, e); err != nil {
			return true, err
		}
		return true, e
	}
	return false, fmt.Errorf("a frame of unknown kind %q", kind)
}

// explainStream tells whose fault the end of a stream was.
func (c *Client) explainStream(err error) error {
	if errors.Is(err, errCut) {
		return &Error{Message: fmt.Sprintf("control socket %s: %v", c.Socket, errCut), Hint: "the daemon has ended: see its log"}
	}
	return err
}
