// Package keysource reads keys from where users keep them: files, descriptors,
// people, systemd's credentials, programs, age files and LUKS headers.
//
// A source is a word, the same on the command line and in a configuration:
//
//	SCHEME:PLACE?OPTION=VALUE&OPTION=VALUE
//
// as backend URIs are written: a path that starts with / or ./ is a file, "-" is
// standard input, and %XX stands for a byte. Kinds of sources are registered by
// scheme; Register is where another kind comes in.
//
// Key bytes go from the descriptor that they come from into locked memory and
// nowhere else; no error has one. What a library would keep on the heap is done by
// a process of its own, which ends with it: see HelperMain.
package keysource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"keyway/internal/nearest"
	"keyway/internal/secret"
)

// MaxKey bounds a key, in bytes: more than any mode takes, so that errors can tell
// the true length of most wrong files.
const MaxKey = 4096

// maxWord bounds the text of a source, in bytes, and maxOptions its options.
const (
	maxWord    = 8192
	maxOptions = 256
)

// An Env is what a process has to read sources with.
type Env struct {
	Credentials string   // systemd's directory of credentials; "": there is none
	Stdin       *os.File // nil: not to be read

	// Ask asks a person for a secret, which what names; nil: nobody is there.
	Ask func(ctx context.Context, what string) (*secret.Buffer, error)
	// Warn is told what is unwise and does not keep a source from being read; nil:
	// nobody is told.
	Warn func(text string)
	// Patience is how long a FIFO may be without a writer; 0: 10 s.
	Patience time.Duration
}

// Process is the Env of a process that nobody can be asked by, such as a daemon.
func Process(warn func(text string)) *Env {
	return &Env{Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), Warn: warn}
}

func (e *Env) warnf(format string, args ...any) {
	if e.Warn != nil {
		e.Warn(fmt.Sprintf(format, args...))
	}
}

// A Scheme is a kind of source.
type Scheme struct {
	Name    string // before the colon
	Place   string // what follows, for the usage, such as PATH; "": nothing does
	Summary string // one line
	Options []Option

	Path  bool // Place is a path, and counts from the directory of who wrote it
	Runs  bool // runs a program that the source names
	Heavy bool // takes so much memory that one is read at a time

	// Check refuses what the grammar allows; nil: nothing.
	Check func(*Source) error
	// Fleeting says why a process that nobody answers cannot read the source later;
	// "": it can. nil: it always can.
	Fleeting func(*Source) string
	// Read returns the bytes, at least one, before their encoding is undone. The
	// caller wipes them. Blocking ends with ctx.
	Read func(context.Context, *Source, *Env) (*secret.Buffer, error)
}

// Kind is what an option holds.
type Kind uint8

// Kinds of options.
const (
	Text     Kind = iota
	Path          // counts from the directory of who wrote it
	Number        // 0 to Max
	Duration      // 1 s to 10 min
	OneOf         // of Words
	List          // Text that may be given several times
)

// An Option is one of a scheme.
type Option struct {
	Name    string
	Kind    Kind
	Value   string // what it holds, for the usage: FILE
	Max     int    // of a Number
	Words   []string
	Summary string
}

// encoding is an option of every scheme.
var encoding = Option{Name: "encoding", Kind: OneOf, Words: []string{"raw", "hex", "base64"}, Value: "raw|hex|base64"}

var schemes = map[string]*Scheme{}

// Register makes a scheme known. It is called by init functions.
func Register(s Scheme) {
	if schemes[s.Name] != nil {
		panic("keysource: scheme registered twice")
	}
	s.Options = append(slices.Clone(s.Options), encoding)
	schemes[s.Name] = &s
}

// Schemes returns all kinds of sources by name.
func Schemes() []Scheme {
	var all []Scheme
	for _, name := range schemeNames() {
		all = append(all, *schemes[name])
	}
	return all
}

func schemeNames() (names []string) {
	for name := range schemes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Usage is how a source of the scheme is written.
func (s *Scheme) Usage() string {
	var b strings.Builder
	if s.Name == "stdin" {
		return "-"
	}
	b.WriteString(s.Name + ":" + s.Place)
	sep := "?"
	for _, o := range s.Options {
		if o.Name == encoding.Name {
			continue
		}
		fmt.Fprintf(&b, "[%s%s=%s]", sep, o.Name, o.Value)
		sep = "&"
	}
	return b.String()
}

// A Source is a place that a key can be read from. It is not changed after Parse
// and Abs.
type Source struct {
	scheme  *Scheme
	Place   string
	options map[string][]string
}

// Parse reads the text of a source. Words that follow are for the program of a
// source that runs one, as its option arg is. Errors do not repeat what may be a key
// that somebody put there by mistake.
func Parse(text string, words ...string) (*Source, error) {
	switch {
	case len(text) > maxWord:
		return nil, fmt.Errorf("key source: %d characters, more than %d", len(text), maxWord)
	case text == "":
		return nil, errors.New("key source: is empty")
	case text == "-":
		text = "stdin:"
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"):
		text = "file:" + text
	}
	name, rest, found := strings.Cut(text, ":")
	scheme := schemes[name]
	if scheme == nil {
		did := ""
		if near := nearest.Of(name, schemeNames()); near != "" && found {
			did = fmt.Sprintf(", did you mean %q?", near)
		}
		return nil, withWay(fmt.Errorf("key source: does not begin with a known scheme%s (known: %s)", did, strings.Join(schemeNames(), ", ")),
			"a file is file:PATH or starts with / or ./; a key itself is never written here")
	}
	s := &Source{scheme: scheme, options: map[string][]string{}}
	place, query, _ := strings.Cut(rest, "?")
	var ok bool
	if s.Place, ok = unescape(place); !ok {
		return nil, s.wrong("a per cent sign that two hex digits do not follow; it is written %%25 itself")
	}
	if err := s.parse(query); err != nil {
		return nil, err
	}
	if len(words) > 0 && !scheme.Runs {
		return nil, s.wrong("only a program takes arguments, and %d are there", len(words))
	}
	s.options["arg"] = append(s.options["arg"], words...)
	if len(s.options["arg"]) == 0 {
		delete(s.options, "arg")
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// parse reads the options.
func (s *Source) parse(query string) error {
	n := 0
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		if n++; n > maxOptions {
			return s.wrong("more than %d options", maxOptions)
		}
		name, escaped, valued := strings.Cut(pair, "=")
		o := s.scheme.option(name)
		if o == nil {
			var names []string
			for _, o := range s.scheme.Options {
				names = append(names, o.Name)
			}
			did := ""
			if near := nearest.Of(name, names); near != "" {
				did = fmt.Sprintf(", did you mean %q?", near)
			}
			return s.wrong("unknown option%s (known: %s)", did, strings.Join(names, ", "))
		}
		value, ok := unescape(escaped)
		switch {
		case !valued:
			return s.wrong("option %q has no value", o.Name)
		case !ok:
			return s.wrong("option %q: a per cent sign that two hex digits do not follow; it is written %%25 itself", o.Name)
		case o.Kind != List && s.options[o.Name] != nil:
			return s.wrong("option %q is given twice", o.Name)
		}
		s.options[o.Name] = append(s.options[o.Name], value)
	}
	return nil
}

func (s *Source) check() error {
	switch {
	case s.scheme.Place == "" && s.Place != "":
		return s.wrong("nothing belongs behind the colon")
	case s.scheme.Place != "" && s.Place == "":
		return s.wrong("%s is missing behind the colon", s.scheme.Place)
	case strings.ContainsRune(s.Place, 0):
		return s.wrong("%s has a byte of zero", s.scheme.Place)
	}
	for _, o := range s.scheme.Options {
		for _, v := range s.options[o.Name] {
			if err := o.check(v); err != nil {
				return s.wrong("option %q %w", o.Name, err)
			}
		}
	}
	if s.scheme.Check != nil {
		if err := s.scheme.Check(s); err != nil {
			return s.wrong("%w", err)
		}
	}
	return nil
}

func (s *Scheme) option(name string) *Option {
	i := slices.IndexFunc(s.Options, func(o Option) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Options[i]
}

// Limits of a Duration.
const (
	leastLimit = time.Second
	mostLimit  = 10 * time.Minute
)

func (o *Option) check(v string) error {
	if strings.ContainsRune(v, 0) {
		return errors.New("has a byte of zero")
	}
	switch o.Kind {
	case List:
		return nil
	case Number:
		// Strict, so that a source has one spelling.
		if n, err := strconv.Atoi(v); err != nil || n < 0 || n > o.Max || strconv.Itoa(n) != v {
			return fmt.Errorf("is not a number from 0 to %d", o.Max)
		}
	case Duration:
		if d, err := time.ParseDuration(v); err != nil || d < leastLimit || d > mostLimit {
			return fmt.Errorf("is not a time from %v to %v, such as 30s", leastLimit, mostLimit)
		}
	case OneOf:
		if !slices.Contains(o.Words, v) {
			return fmt.Errorf("is not %s", strings.Join(o.Words, ", "))
		}
	case Text, Path:
		if v == "" {
			return errors.New("is empty")
		}
	}
	return nil
}

// wrong is an error in how s is written. It does not repeat s.
func (s *Source) wrong(format string, args ...any) error {
	return withWay(fmt.Errorf("key source of scheme %s: %w", s.scheme.Name, fmt.Errorf(format, args...)), "it is written "+s.scheme.Usage())
}

// get returns an option, "" if it is not given.
func (s *Source) get(name string) string {
	if v := s.options[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// number returns a Number, or other if it is not given.
func (s *Source) number(name string, other int) int {
	if v := s.get(name); v != "" {
		n, _ := strconv.Atoi(v) // checked
		return n
	}
	return other
}

func (s *Source) duration(name string, other time.Duration) time.Duration {
	if v := s.get(name); v != "" {
		d, _ := time.ParseDuration(v) // checked
		return d
	}
	return other
}

// Abs returns s with its paths absolute: they count from dir, an absolute path.
func (s *Source) Abs(dir string) *Source {
	abs := func(p string) string {
		if filepath.IsAbs(p) {
			return filepath.Clean(p)
		}
		return filepath.Join(dir, p)
	}
	a := &Source{scheme: s.scheme, Place: s.Place, options: map[string][]string{}}
	if s.scheme.Path {
		a.Place = abs(s.Place)
	}
	for name, values := range s.options {
		values = slices.Clone(values)
		if s.scheme.option(name).Kind == Path {
			for i, v := range values {
				values[i] = abs(v)
			}
		}
		a.options[name] = values
	}
	return a
}

// String is the text of the source: Parse of it is the same source.
func (s *Source) String() string {
	var b strings.Builder
	b.WriteString(s.scheme.Name + ":" + escape(s.Place))
	sep := "?"
	for _, o := range s.scheme.Options {
		for _, v := range s.options[o.Name] {
			b.WriteString(sep + o.Name + "=" + escape(v))
			sep = "&"
		}
	}
	return b.String()
}

// Name says where the key comes from, for people: without options, for the
// arguments of a program may be nobody's business.
func (s *Source) Name() string {
	switch s.scheme.Name {
	case "file":
		return s.Place
	case "fd":
		return "descriptor " + s.Place
	case "stdin":
		return "standard input"
	case "prompt":
		return "the terminal"
	}
	return s.scheme.Name + ":" + s.Place
}

// File returns the path of a plain file without options, "" if s is not one.
func (s *Source) File() string {
	if s.scheme.Name == "file" && len(s.options) == 0 {
		return s.Place
	}
	return ""
}

// Runs reports whether reading runs a program that the source names.
func (s *Source) Runs() bool { return s.scheme.Runs }

// Fleeting says why a process that nobody answers, such as a daemon after a
// restart, cannot read the source; "": it can.
func (s *Source) Fleeting() string {
	if s.scheme.Fleeting == nil {
		return ""
	}
	return s.scheme.Fleeting(s)
}

// heavy is held by who reads a source that takes much memory.
var heavy = make(chan struct{}, 1)

// Read reads the key: 1 to MaxKey bytes. The caller wipes it. It blocks no longer
// than ctx lasts.
func (s *Source) Read(ctx context.Context, e *Env) (*secret.Buffer, error) {
	if s.scheme.Heavy {
		select {
		case heavy <- struct{}{}:
			defer func() { <-heavy }()
		case <-ctx.Done():
			return nil, fmt.Errorf("key from %s: %w", s.Name(), context.Cause(ctx))
		}
	}
	b, err := s.scheme.Read(ctx, s, e)
	if err == nil {
		b, err = decode(b, s.get("encoding"))
	}
	if err == nil && b.Len() > MaxKey {
		b.Wipe()
		err = tooLong(MaxKey)
	}
	if err != nil {
		return nil, fmt.Errorf("key from %s: %w", s.Name(), err)
	}
	return b, nil
}

// An advised error has the way out.
type advised struct {
	error
	way string
}

func (a advised) Unwrap() error { return a.error }

// Hint is the way out, for people.
func (a advised) Hint() string { return a.way }

func withWay(err error, way string) error { return advised{err, way} }

var hexDigits = "0123456789ABCDEF"

// escape quotes what has a meaning in a source, what does not print on one line and
// what JSON cannot carry.
func escape(v string) string {
	var b strings.Builder
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRuneInString(v[i:])
		if r == utf8.RuneError && n <= 1 || r <= ' ' || r == 0x7f || strings.ContainsRune(`%?&\`, r) {
			for _, c := range []byte(v[i : i+n]) {
				b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
			}
		} else {
			b.WriteString(v[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unescape(v string) (string, bool) {
	if !strings.Contains(v, "%") {
		return v, true
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] != '%' {
			b.WriteByte(v[i])
			continue
		}
		if i+2 >= len(v) {
			return "", false
		}
		n, err := strconv.ParseUint(v[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), true
}

// ReadAll reads several sources side by side, since each may wait for something
// else, and calls each with what came of one; calls do not overlap.
func ReadAll(ctx context.Context, e *Env, sources []*Source, each func(i int, b *secret.Buffer, err error)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, s := range sources {
		wg.Go(func() {
			b, err := s.Read(ctx, e)
			mu.Lock()
			defer mu.Unlock()
			each(i, b, err)
		})
	}
	wg.Wait()
}
