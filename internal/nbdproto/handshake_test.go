package nbdproto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// shop is a fixed set of exports.
type shop []Export

func (s shop) Find(name string) (Export, uint32) {
	if name == "" && len(s) > 0 {
		return s[0], 0
	}
	for _, e := range s {
		if e.Name == name {
			return e, 0
		}
	}
	return Export{}, RepErrUnknown
}

func (s shop) List() []Export { return s }

var goods = shop{
	{Name: "disk", Description: "a disk", Size: 1 << 20, Flags: HasFlags | SendFlush, MinBlock: 512, PreferredBlock: 4096, MaxBlock: 32 << 20},
	{Name: "other", Size: 4096, Flags: HasFlags, MinBlock: 4096, PreferredBlock: 4096, MaxBlock: 32 << 20},
}

func option(opt uint32, data ...[]byte) []byte {
	d := bytes.Join(data, nil)
	b := binary.BigEndian.AppendUint64(nil, OptionMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(d)))
	return append(b, d...)
}

func be16(v uint16) []byte    { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte    { return binary.BigEndian.AppendUint32(nil, v) }
func lstring(s string) []byte { return append(be32(uint32(len(s))), s...) }

func info(name string, items ...uint16) []byte {
	b := append(lstring(name), be16(uint16(len(items)))...)
	for _, i := range items {
		b = append(b, be16(i)...)
	}
	return b
}

func meta(name string, queries ...string) []byte {
	b := append(lstring(name), be32(uint32(len(queries)))...)
	for _, q := range queries {
		b = append(b, lstring(q)...)
	}
	return b
}

// rep is a reply as a script prints it.
type rep struct {
	opt, typ uint32
	data     string
}

func (r rep) String() string { return fmt.Sprintf("%d: %#x %q", r.opt, r.typ, r.data) }

func parseReps(t *testing.T, b []byte) (l []rep) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 20 || binary.BigEndian.Uint64(b) != OptReplyMagic {
			t.Fatalf("output that is not a reply: %x", b)
		}
		n := binary.BigEndian.Uint32(b[16:])
		if uint64(n) > uint64(len(b)-20) {
			t.Fatalf("reply of %d bytes in %d", n, len(b)-20)
		}
		l = append(l, rep{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), string(b[20 : 20+n])})
		b = b[20+n:]
	}
	return l
}

// begin returns a handshake that has had client flags.
func begin(t *testing.T, mode TLSMode) *Handshake {
	t.Helper()
	h := NewHandshake(goods, mode, false)
	if used, out, act, err := h.Step(be32(3)); used != 4 || len(out) != 0 || act != More || err != nil {
		t.Fatalf("flags: %d %x %v %v", used, out, act, err)
	}
	return h
}

func step(t *testing.T, h *Handshake, in []byte) ([]rep, Action, error) {
	t.Helper()
	used, out, act, err := h.Step(in)
	if used != len(in) && act != Transmit && act != Close {
		t.Fatalf("used %d of %d bytes", used, len(in))
	}
	return parseReps(t, out), act, err
}

func TestOptionReplies(t *testing.T) {
	long := strings.Repeat("n", MaxString+1)
	exportInfo := func(size uint64, flags uint16) string {
		return string(append(binary.BigEndian.AppendUint64(be16(InfoExport), size), be16(flags)...))
	}
	sizes := func(least uint32) string {
		return string(bytes.Join([][]byte{be16(InfoBlockSize), be32(least), be32(4096), be32(32 << 20)}, nil))
	}
	structured := option(OptStructuredReply)
	extended := option(OptExtendedHeaders)
	type want = []rep
	for _, c := range []struct {
		name   string
		before [][]byte
		in     []byte
		want   want
		act    Action
	}{
		{"abort", nil, option(OptAbort), want{{OptAbort, RepAck, ""}}, Close},
		{"abort with data is still obeyed", nil, option(OptAbort, []byte("bye")), want{{OptAbort, RepAck, ""}}, Close},
		{"unknown option", nil, option(4242, []byte("x")), want{{4242, RepErrUnsup, "*"}}, More},
		{"withdrawn PEEK_EXPORT", nil, option(4), want{{4, RepErrUnsup, "*"}}, More},
		{"list", nil, option(OptList), want{
			{OptList, RepServer, string(lstring("disk")) + "a disk"}, {OptList, RepServer, string(lstring("other"))}, {OptList, RepAck, ""}}, More},
		{"list with data", nil, option(OptList, []byte("x")), want{{OptList, RepErrInvalid, "*"}}, More},
		{"STARTTLS where TLS is off", nil, option(OptStartTLS), want{{OptStartTLS, RepErrPolicy, "*"}}, More},
		{"STARTTLS with data", nil, option(OptStartTLS, []byte("x")), want{{OptStartTLS, RepErrInvalid, "*"}}, More},
		{"structured", nil, structured, want{{OptStructuredReply, RepAck, ""}}, More},
		{"structured twice", [][]byte{structured}, structured, want{{OptStructuredReply, RepErrInvalid, "*"}}, More},
		{"structured with data", nil, option(OptStructuredReply, []byte("x")), want{{OptStructuredReply, RepErrInvalid, "*"}}, More},
		{"extended after structured", [][]byte{structured}, extended, want{{OptExtendedHeaders, RepAck, ""}}, More},
		{"structured after extended", [][]byte{extended}, structured, want{{OptStructuredReply, RepErrExtHeaderReqd, "*"}}, More},
		{"extended twice", [][]byte{extended}, extended, want{{OptExtendedHeaders, RepErrInvalid, "*"}}, More},
		{"extended with data", nil, option(OptExtendedHeaders, []byte("x")), want{{OptExtendedHeaders, RepErrInvalid, "*"}}, More},
		{"info, nothing asked", nil, option(OptInfo, info("disk")), want{
			{OptInfo, RepInfo, exportInfo(1<<20, HasFlags|SendFlush)}, {OptInfo, RepInfo, sizes(1)}, {OptInfo, RepAck, ""}}, More},
		{"info, all asked, an unknown item too", nil, option(OptInfo, info("disk", InfoName, 77, InfoDescription, InfoBlockSize)), want{
			{OptInfo, RepInfo, exportInfo(1<<20, HasFlags|SendFlush)},
			{OptInfo, RepInfo, string(be16(InfoName)) + "disk"},
			{OptInfo, RepInfo, string(be16(InfoDescription)) + "a disk"},
			{OptInfo, RepInfo, sizes(512)}, {OptInfo, RepAck, ""}}, More},
		{"the default export tells its name", nil, option(OptInfo, info("", InfoName)), want{
			{OptInfo, RepInfo, exportInfo(1<<20, HasFlags|SendFlush)},
			{OptInfo, RepInfo, string(be16(InfoName)) + "disk"},
			{OptInfo, RepInfo, sizes(1)}, {OptInfo, RepAck, ""}}, More},
		{"DF is offered with structured replies", [][]byte{structured}, option(OptGo, info("other")), want{
			{OptGo, RepInfo, exportInfo(4096, HasFlags|SendDF)}, {OptGo, RepInfo, sizes(1)}, {OptGo, RepAck, ""}}, Transmit},
		{"go to an unknown export", nil, option(OptGo, info("nope")), want{{OptGo, RepErrUnknown, "*"}}, More},
		{"go with too long a name", nil, option(OptGo, info(long)), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go with a name that is not UTF-8", nil, option(OptGo, info("\xff")), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go with NUL in the name", nil, option(OptGo, info("disk\x00")), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go with the name's length beyond the data", nil, option(OptGo, be32(100), []byte("disk"), be16(0)), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go with fewer items than it says", nil, option(OptGo, lstring("disk"), be16(2), be16(0)), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go with bytes left over", nil, option(OptGo, info("disk"), []byte{0}), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"go without data", nil, option(OptGo), want{{OptGo, RepErrInvalid, "*"}}, More},
		{"contexts before structured replies", nil, option(OptListMetaContext, meta("disk")), want{{OptListMetaContext, RepErrInvalid, "*"}}, More},
		{"list contexts, no query", [][]byte{structured}, option(OptListMetaContext, meta("disk")), want{
			{OptListMetaContext, RepMetaContext, string(be32(0)) + ContextAllocation}, {OptListMetaContext, RepAck, ""}}, More},
		{"list contexts, wildcard", [][]byte{extended}, option(OptListMetaContext, meta("disk", "x-no:", "base:")), want{
			{OptListMetaContext, RepMetaContext, string(be32(0)) + ContextAllocation}, {OptListMetaContext, RepAck, ""}}, More},
		{"list contexts of another namespace", [][]byte{structured}, option(OptListMetaContext, meta("disk", "qemu:dirty-bitmap:x", "base:other")), want{
			{OptListMetaContext, RepAck, ""}}, More},
		{"set context", [][]byte{structured}, option(OptSetMetaContext, meta("disk", "base:allocation", "base:allocation")), want{
			{OptSetMetaContext, RepMetaContext, string(be32(AllocationID)) + ContextAllocation}, {OptSetMetaContext, RepAck, ""}}, More},
		{"set does not take the wildcard", [][]byte{structured}, option(OptSetMetaContext, meta("disk", "base:")), want{{OptSetMetaContext, RepAck, ""}}, More},
		{"set without queries", [][]byte{structured}, option(OptSetMetaContext, meta("disk")), want{{OptSetMetaContext, RepAck, ""}}, More},
		{"set for an unknown export", [][]byte{structured}, option(OptSetMetaContext, meta("nope", "base:allocation")), want{{OptSetMetaContext, RepErrUnknown, "*"}}, More},
		{"too many queries", [][]byte{structured}, option(OptSetMetaContext, meta("disk", make([]string, MaxQueries+1)...)), want{{OptSetMetaContext, RepErrTooBig, "*"}}, More},
		{"a query that is too long", [][]byte{structured}, option(OptSetMetaContext, meta("disk", "base:"+long)), want{{OptSetMetaContext, RepErrInvalid, "*"}}, More},
		{"a query beyond the data", [][]byte{structured}, option(OptSetMetaContext, lstring("disk"), be32(1), be32(99), []byte("base:")), want{{OptSetMetaContext, RepErrInvalid, "*"}}, More},
		{"too long an option is skipped", nil, option(OptInfo, make([]byte, MaxOption+1)), want{{OptInfo, RepErrTooBig, "*"}}, More},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := begin(t, TLSOff)
			for _, b := range c.before {
				if r, act, err := step(t, h, b); act != More || err != nil || r[len(r)-1].typ != RepAck {
					t.Fatalf("before: %v %v %v", r, act, err)
				}
			}
			got, act, err := step(t, h, c.in)
			if act != c.act || err != nil {
				t.Fatalf("action %v, error %v; want %v", act, err, c.act)
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i, w := range c.want {
				g := got[i]
				if w.data == "*" { // a message for people: there must be one
					if g.data == "" {
						t.Errorf("reply %d has no message", i)
					}
					g.data = "*"
				}
				if g != w {
					t.Errorf("reply %d: got %v, want %v", i, g, w)
				}
			}
			if act != More {
				return
			}
			// The negotiation goes on after any refusal.
			if r, act, err := step(t, h, option(OptGo, info("disk"))); act != Transmit || err != nil || r[len(r)-1].typ != RepAck {
				t.Fatalf("GO afterwards: %v %v %v", r, act, err)
			}
		})
	}
}

func TestExportName(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uint32
		in    []byte
		want  int // bytes out; 0: the connection ends
	}{
		{"with zeroes", 1, option(OptExportName, []byte("disk")), 134},
		{"without zeroes", 3, option(OptExportName, []byte("disk")), 10},
		{"old newstyle client", 0, option(OptExportName, []byte("disk")), 134},
		{"default", 3, option(OptExportName), 10},
		{"unknown", 3, option(OptExportName, []byte("nope")), 0},
		{"too long", 3, option(OptExportName, make([]byte, MaxString+1)), 0},
		{"far too long", 3, option(OptExportName, make([]byte, MaxOption+1)), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := NewHandshake(goods, TLSOff, false)
			h.Step(be32(c.flags))
			_, out, act, err := h.Step(c.in)
			if c.want == 0 {
				if act != Close || err == nil || len(out) != 0 {
					t.Fatalf("%x %v %v; want the connection to end without a word", out, act, err)
				}
				return
			}
			if act != Transmit || err != nil || len(out) != c.want {
				t.Fatalf("%d bytes, %v, %v; want %d and transmission", len(out), act, err, c.want)
			}
			if binary.BigEndian.Uint64(out) != 1<<20 || binary.BigEndian.Uint16(out[8:]) != HasFlags|SendFlush {
				t.Errorf("size and flags %x", out[:10])
			}
		})
	}
	t.Run("after extended headers", func(t *testing.T) {
		h := begin(t, TLSOff)
		h.Step(option(OptExtendedHeaders))
		if _, out, act, err := h.Step(option(OptExportName, []byte("disk"))); act != Close || err == nil || len(out) != 0 {
			t.Fatalf("%x %v %v", out, act, err)
		}
	})
}

func TestViolationsEndTheConnection(t *testing.T) {
	huge := option(OptList)
	binary.BigEndian.PutUint32(huge[12:], MaxSkip+1)
	bad := option(OptList)
	bad[0]++
	for name, in := range map[string][]byte{
		"unknown client flag": be32(4),
		"bad magic":           append(be32(3), bad...),
		"huge option":         append(be32(3), huge...),
	} {
		h := NewHandshake(goods, TLSOff, false)
		if _, out, act, err := h.Step(in); act != Close || err == nil || len(out) != 0 {
			t.Errorf("%s: %x %v %v", name, out, act, err)
		}
	}
	h := begin(t, TLSOff)
	for i := range MaxOptions {
		if _, _, act, err := h.Step(option(99)); act != More || err != nil {
			t.Fatalf("option %d: %v %v", i, act, err)
		}
	}
	if _, _, act, err := h.Step(option(99)); act != Close || err == nil {
		t.Errorf("one option too many: %v %v", act, err)
	}
}

func TestTLSModes(t *testing.T) {
	h := begin(t, TLSRequire)
	for _, o := range []uint32{OptList, OptInfo, OptGo, OptStructuredReply, OptExtendedHeaders, OptListMetaContext, OptSetMetaContext, 4242} {
		if r, act, err := step(t, h, option(o)); act != More || err != nil || len(r) != 1 || r[0].typ != RepErrTLSReqd {
			t.Errorf("option %d before TLS: %v %v %v", o, r, act, err)
		}
	}
	if r, act, err := step(t, h, option(OptStartTLS)); act != StartTLS || err != nil || r[0].typ != RepAck {
		t.Fatalf("STARTTLS: %v %v %v", r, act, err)
	}
	h.TLSDone()
	if r, _, _ := step(t, h, option(OptStartTLS)); r[0].typ != RepErrInvalid {
		t.Errorf("STARTTLS again: %v", r)
	}
	if _, act, err := step(t, h, option(OptGo, info("disk"))); act != Transmit || err != nil {
		t.Errorf("GO under TLS: %v %v", act, err)
	}
	h = begin(t, TLSRequire)
	if _, out, act, err := h.Step(option(OptExportName, []byte("disk"))); act != Close || err == nil || len(out) != 0 {
		t.Errorf("EXPORT_NAME before TLS: %x %v %v", out, act, err)
	}
}

func TestTLSForgetsWhatWasNegotiated(t *testing.T) {
	h := begin(t, TLSAllow)
	h.Step(option(OptExtendedHeaders))
	h.Step(option(OptSetMetaContext, meta("disk", ContextAllocation)))
	h.Step(option(OptStartTLS))
	h.TLSDone()
	if _, act, _ := step(t, h, option(OptGo, info("disk"))); act != Transmit {
		t.Fatal("no transmission")
	}
	if r := h.Result(); r.Style != Simple || r.Allocation {
		t.Errorf("kept from plain text: %+v", r)
	}
}

func TestNothingMayFollowSTARTTLS(t *testing.T) {
	h := begin(t, TLSAllow)
	in := append(option(OptStartTLS), option(OptGo, info("disk"))...)
	if _, out, act, err := h.Step(in); act != Close || err == nil || len(out) != 0 {
		t.Errorf("%x %v %v", out, act, err)
	}
}

func TestContextHoldsForItsExportOnly(t *testing.T) {
	for _, c := range []struct {
		set  []string // pairs of export and query
		exp  string
		want bool
	}{
		{[]string{"disk", ContextAllocation}, "disk", true},
		{[]string{"", ContextAllocation}, "disk", true}, // the default export by its name
		{[]string{"other", ContextAllocation}, "disk", false},
		{[]string{"disk", ContextAllocation, "nope", ContextAllocation}, "disk", false}, // a failed one clears
		{[]string{"disk", ContextAllocation, "disk", "base:"}, "disk", false},
	} {
		h := begin(t, TLSOff)
		h.Step(option(OptStructuredReply))
		for i := 0; i < len(c.set); i += 2 {
			h.Step(option(OptSetMetaContext, meta(c.set[i], c.set[i+1])))
		}
		if _, act, _ := step(t, h, option(OptGo, info(c.exp, InfoBlockSize))); act != Transmit {
			t.Fatalf("%v: no transmission", c)
		}
		if r := h.Result(); r.Allocation != c.want || !r.BlockSizes || r.Style != Structured {
			t.Errorf("%v: %+v", c, r)
		}
	}
}

func TestShutdownRefusesOptions(t *testing.T) {
	h := begin(t, TLSOff)
	h.Shutdown()
	if r, act, _ := step(t, h, option(OptGo, info("disk"))); act != More || r[0].typ != RepErrShutdown {
		t.Errorf("GO: %v %v", r, act)
	}
	if r, act, _ := step(t, h, option(OptAbort)); act != Close || r[0].typ != RepAck {
		t.Errorf("ABORT: %v %v", r, act)
	}
}

// TestInputInPiecesOfAnySize feeds a whole negotiation byte by byte, and what
// follows it must come back unread.
func TestInputInPiecesOfAnySize(t *testing.T) {
	in := be32(3)
	for _, o := range [][]byte{
		option(OptStructuredReply), option(77, make([]byte, MaxOption+5)), option(OptList),
		option(OptSetMetaContext, meta("disk", ContextAllocation)), option(OptGo, info("disk", InfoName)),
	} {
		in = append(in, o...)
	}
	in = append(in, "requests"...)
	play := func(size int) (out []byte, rest string) {
		h := NewHandshake(goods, TLSOff, false)
		for left := in; ; {
			n := min(size, len(left))
			used, o, act, err := h.Step(left[:n])
			out = append(out, o...)
			left = left[used:]
			if err != nil || len(left) == 0 {
				t.Fatalf("size %d: %v, %d bytes left", size, err, len(left))
			}
			if act == Transmit {
				return out, string(left)
			}
		}
	}
	want, rest := play(len(in))
	if rest != "requests" {
		t.Fatalf("rest %q", rest)
	}
	for _, size := range []int{1, 3, 17, 4096} {
		if got, rest := play(size); !bytes.Equal(got, want) || rest != "requests" {
			t.Errorf("pieces of %d bytes: another negotiation", size)
		}
	}
}
