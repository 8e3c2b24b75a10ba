// Package backend opens what devices stand on: memory, files and block
// devices, by URI. A backend is a file here, or a package beneath, that
// registers a Type for its scheme.
//
// A URI is a scheme, a colon, a place, and options as a query:
// "file:disk.img?direct=1". Place and options are percent-decoded, so that a
// file name may hold "?" as %3F and a blank, which ends an argument of a
// table, as %20. A plain path that starts with "/" or "./" is a file with the
// "file:" left out.
package backend

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"keyway/block"
	"keyway/internal/nearest"
	"keyway/internal/size"
)

// Options is what the opener wants, whatever the scheme.
type Options struct {
	Size     int64 // bytes; 0: taken from the medium
	ReadOnly bool
	Create   bool // make the medium, empty and of Size bytes, if it is absent; an existing one stays as it is
}

// A Type is one kind of backend, as data.
type Type struct {
	Scheme  string
	Usage   string // the form of the URI without options: "mem:SIZE"
	Help    string // one line, no full stop
	Options []Option

	// Open opens the medium. ctx bounds waiting for it, not its later use.
	Open func(ctx context.Context, l Location, o Options) (block.Device, error)
}

// An Option is one option of a URI's query.
type Option struct {
	Name    string
	Kind    Kind
	Default string
	Help    string // one line, no full stop
}

// A Kind says what the text of an option must be.
type Kind uint8

const (
	Text Kind = iota
	Bool      // 1 or 0, also yes, no, on, off, true, false
	Size      // as internal/size reads it
)

// A Location is a parsed URI.
type Location struct {
	URI   string
	Place string // between scheme and options, percent-decoded
	typ   *Type
	given map[string]string
}

var types = map[string]*Type{}

// Register adds a backend; it is called from init and panics on a scheme that
// is taken or an option whose default is not of its kind.
func Register(t Type) {
	if types[t.Scheme] != nil {
		panic("backend: scheme " + t.Scheme + " is registered twice")
	}
	for _, o := range t.Options {
		if err := o.check(o.Default); err != nil {
			panic("backend: " + err.Error())
		}
	}
	types[t.Scheme] = &t
}

// Types returns every backend, by scheme.
func Types() []Type {
	var all []Type
	for _, name := range schemes() {
		all = append(all, *types[name])
	}
	return all
}

func schemes() []string {
	var names []string
	for name := range types {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// IsURI reports whether name is a URI of a known scheme or a plain path,
// rather than the name of a device.
func IsURI(name string) bool {
	if isPath(name) {
		return true
	}
	scheme, _, found := strings.Cut(name, ":")
	return found && types[scheme] != nil
}

func isPath(name string) bool { return strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") }

// Open opens the medium that uri names.
func Open(ctx context.Context, uri string, o Options) (block.Device, error) {
	l, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	if o.Size < 0 {
		return nil, fmt.Errorf("backend %q: a size of %d bytes", uri, o.Size)
	}
	return l.typ.Open(ctx, l, o)
}

// Parse checks uri without opening anything.
func Parse(uri string) (Location, error) {
	full := uri
	if isPath(uri) {
		full = "file:" + uri
	}
	scheme, rest, found := strings.Cut(full, ":")
	if !found {
		return Location{}, fmt.Errorf("backend %q has no scheme (known: %s); a file is file:%s or starts with / or ./",
			uri, strings.Join(schemes(), ", "), uri)
	}
	t := types[scheme]
	if t == nil {
		return Location{}, fmt.Errorf("backend %q: unknown scheme %q%s (known: %s)",
			uri, scheme, didYouMean(scheme, schemes()), strings.Join(schemes(), ", "))
	}
	l := Location{URI: uri, typ: t, given: map[string]string{}}
	place, query, _ := strings.Cut(rest, "?")
	var err error
	if l.Place, err = url.PathUnescape(place); err != nil {
		return Location{}, l.errorf("%v; a per cent sign is written %%25", err)
	}
	if err := l.parseQuery(query); err != nil {
		return Location{}, err
	}
	return l, nil
}

func (l *Location) parseQuery(query string) error {
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, escaped, valued := strings.Cut(pair, "=")
		text, err := url.PathUnescape(escaped)
		if err != nil {
			return l.errorf("option %q: %v", name, err)
		}
		i := slices.IndexFunc(l.typ.Options, func(o Option) bool { return o.Name == name })
		if i < 0 {
			return l.errorf("unknown option %q%s", name, didYouMean(name, l.optionNames()))
		}
		if _, twice := l.given[name]; twice {
			return l.errorf("option %q is given twice", name)
		}
		o := l.typ.Options[i]
		if !valued && o.Kind == Bool {
			text = "1"
		}
		if err := o.check(text); err != nil {
			return l.errorf("%v", err)
		}
		l.given[name] = text
	}
	return nil
}

func (l *Location) optionNames() (names []string) {
	for _, o := range l.typ.Options {
		names = append(names, o.Name)
	}
	return names
}

func didYouMean(got string, names []string) string {
	if near := nearest.Of(got, names); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

// errorf returns an error that names the URI and ends with the usage.
func (l *Location) errorf(format string, args ...any) error {
	return fmt.Errorf("backend %q: %w (usage: %s)", l.URI, fmt.Errorf(format, args...), l.typ.usage())
}

// usage is the form of the URI with every option: "file:PATH[?direct=BOOL]".
func (t *Type) usage() string {
	var b strings.Builder
	b.WriteString(t.Usage)
	for i, o := range t.Options {
		sep := "&"
		if i == 0 {
			sep = "?"
		}
		fmt.Fprintf(&b, "[%s%s=%s]", sep, o.Name, [...]string{"TEXT", "1|0", "SIZE"}[o.Kind])
	}
	return b.String()
}

// Bool returns the value of an option; like Size and Text it panics for one
// that the type did not declare.
func (l Location) Bool(name string) bool { return isTrue(l.value(name, Bool)) }

// Size returns the value of an option in bytes.
func (l Location) Size(name string) int64 {
	n, _ := size.Parse(l.value(name, Size)) // checked by Parse or Register
	return n
}

// Text returns the value of an option.
func (l Location) Text(name string) string { return l.value(name, Text) }

func (l Location) value(name string, k Kind) string {
	for _, o := range l.typ.Options {
		if o.Name == name && o.Kind == k {
			if text, ok := l.given[name]; ok {
				return text
			}
			return o.Default
		}
	}
	panic("backend: " + l.typ.Scheme + " declares no such option " + name)
}

var (
	yes = []string{"1", "yes", "on", "true"}
	no  = []string{"0", "no", "off", "false"}
)

func isTrue(text string) bool { return slices.Contains(yes, text) }

func (o Option) check(text string) error {
	switch o.Kind {
	case Bool:
		if !isTrue(text) && !slices.Contains(no, text) {
			return fmt.Errorf("option %q is 1 or 0, not %q", o.Name, text)
		}
	case Size:
		if _, err := size.Parse(text); err != nil {
			return fmt.Errorf("option %q: %w", o.Name, err)
		}
	}
	return nil
}
