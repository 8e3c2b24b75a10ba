package daemon

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"keyway/dm"
)

// checkName refuses what could not be told from a number, a path or a backend
// URI where a table names a device.
func checkName(name string) error {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#+-.=@_"
	switch {
	case name == "" || len(name) > 127: // as in device-mapper
		return fmt.Errorf("device name %q: has %d bytes, not 1 to 127", name, len(name))
	case name == "." || name == "..":
		return fmt.Errorf("device name %q is reserved", name)
	case strings.Trim(name, "0123456789") == "":
		return fmt.Errorf("device name %q is a number", name)
	}
	if i := strings.IndexFunc(name, func(c rune) bool { return !strings.ContainsRune(legal, c) }); i >= 0 {
		return fmt.Errorf("device name %q: a name has letters, digits and #+-.=@_ only", name)
	}
	return nil
}

// AbsURI makes the path of a file backend absolute: it counts from dir.
func AbsURI(uri, dir string) string {
	rest, file := strings.CutPrefix(uri, "file:")
	switch {
	case file && rest != "" && !strings.HasPrefix(rest, "/"):
		place, query, has := strings.Cut(rest, "?")
		s := "file:" + escapePath(dir) + "/" + strings.TrimPrefix(place, "./")
		if has {
			s += "?" + query
		}
		return s
	case strings.HasPrefix(uri, "./"):
		return escapePath(dir) + uri[1:]
	}
	return uri
}

// PathURI is the backend URI, and the word of a table, for the file at an absolute
// path.
func PathURI(path string) string { return escapePath(path) }

// escapePath quotes what has a meaning in a backend URI or in table text.
func escapePath(p string) string {
	p = filepath.Clean(p)
	if p == "/" {
		return ""
	}
	return strings.NewReplacer("%", "%25", "?", "%3F", " ", "%20", "\t", "%09", "\n", "%0A", `\`, "%5C").Replace(p)
}

// AbsTable makes the paths of file backends in table text absolute.
func AbsTable(text, dir string) string {
	if !strings.Contains(text, "./") && !strings.Contains(text, "file:") {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		for len(line) > 0 {
			blank := len(line) - len(strings.TrimLeft(line, " \t\r\n"))
			b.WriteString(line[:blank])
			line = line[blank:]
			end := wordEnd(line)
			b.WriteString(AbsURI(line[:end], dir))
			line = line[end:]
		}
	}
	return b.String()
}

// wordEnd returns the length of the word at the start of s, which ends before
// the first blank that no backslash quotes.
func wordEnd(s string) int {
	quoted := false
	for i := range len(s) {
		switch c := s[i]; {
		case quoted:
			quoted = false
		case c == '\\':
			quoted = true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			return i
		}
	}
	return len(s)
}

// NoKeys refuses table text in which a word is as long as a key in hex and looks
// like one: a key where its target takes none would be repeated in errors, as
// any other wrong word. The error does not repeat it.
func NoKeys(text string) error {
	row := 0
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		row++
		for i, w := range words {
			if n := len(w); (n == 64 || n == 96 || n == 128) && strings.Trim(w, "0123456789abcdefABCDEF") == "" {
				return fmt.Errorf("table row %d: word %d looks like a key in hex, where no key belongs", row, i+1)
			}
		}
	}
	return nil
}

// renameInTable replaces a device's name where it is a word of its own among
// the arguments of a row.
func renameInTable(text, from, to string) string {
	var b strings.Builder
	from, to = dm.QuoteWord(from), dm.QuoteWord(to)
	for line := range strings.Lines(text) {
		for n := 0; len(line) > 0; n++ {
			blank := len(line) - len(strings.TrimLeft(line, " \t\r\n"))
			b.WriteString(line[:blank])
			line = line[blank:]
			end := wordEnd(line)
			if n > 2 && line[:end] == from {
				b.WriteString(to)
			} else {
				b.WriteString(line[:end])
			}
			line = line[end:]
		}
	}
	return b.String()
}

// A listenAddr is where a server listens.
type listenAddr struct {
	network string // "unix" or "tcp"
	addr    string
}

func (a listenAddr) String() string { return a.network + ":" + a.addr }

const nbdPort = "10809"

// parseNBD reads where an export is to be: unix:PATH, tcp:HOST:PORT,
// nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH. A path may be
// relative.
func parseNBD(text string) (a listenAddr, name string, err error) {
	const forms = "forms: unix:PATH, tcp:HOST:PORT, nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH"
	switch scheme, rest, _ := strings.Cut(text, ":"); scheme {
	case "unix":
		if rest == "" {
			return a, "", fmt.Errorf("%q has no path", text)
		}
		return listenAddr{"unix", rest}, "", nil
	case "tcp":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return a, "", fmt.Errorf("%q: %w (%s)", text, err, forms)
		}
		return listenAddr{"tcp", rest}, "", nil
	case "nbd", "nbds", "nbd+unix", "nbds+unix":
		u, err := url.Parse(text)
		if err != nil {
			return a, "", fmt.Errorf("%q is not a URI (%s)", text, forms)
		}
		name = strings.TrimPrefix(u.Path, "/")
		if strings.HasSuffix(scheme, "+unix") {
			sock := u.Query().Get("socket")
			if sock == "" || u.Host != "" {
				return a, "", fmt.Errorf("%q: a Unix socket is nbd+unix:///NAME?socket=PATH", text)
			}
			return listenAddr{"unix", sock}, name, nil
		}
		port := u.Port()
		if port == "" {
			port = nbdPort
		}
		return listenAddr{"tcp", net.JoinHostPort(u.Hostname(), port)}, name, nil
	}
	return a, "", fmt.Errorf("%q does not say where to listen (%s)", text, forms)
}

// AbsNBD makes the path of a Unix socket absolute: it counts from dir.
func AbsNBD(text, dir string) (string, error) {
	a, name, err := parseNBD(text)
	if err != nil {
		return "", err
	}
	if a.network != "unix" || filepath.IsAbs(a.addr) {
		return text, nil
	}
	a.addr = filepath.Join(dir, a.addr)
	if name == "" {
		return a.String(), nil
	}
	return a.uri(name, strings.HasPrefix(text, "nbds")), nil
}

// uri is what clients connect to.
func (a listenAddr) uri(name string, tls bool) string {
	scheme := "nbd"
	if tls {
		scheme = "nbds"
	}
	u := url.URL{Scheme: scheme, Host: a.addr, Path: "/" + name}
	if a.network == "unix" {
		u = url.URL{Scheme: scheme + "+unix", Path: "/" + name, RawQuery: "socket=" + strings.ReplaceAll(url.QueryEscape(a.addr), "%2F", "/")}
	}
	return u.String()
}
