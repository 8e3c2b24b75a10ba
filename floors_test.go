package keyway_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors is the floor of every package; a package beneath one that is listed
// is half a floor above it. A package imports lower floors only.
//
// control is on the floor below the daemon, which serves what it defines.
var floors = map[string]int{
	"internal/invariant": -1, "internal/point": -1, // of build tags, for everybody
	"internal/secret": 0, "internal/arena": 0, "internal/nbdproto": 0,
	"internal/size": 0, "internal/nearest": 0, "internal/plural": 0, "internal/roofline": 0, "internal/svg": 0, "doc/targets": 0, "internal/fstype": 0,
	"blkcrypto": 1, "internal/aes": 1, "internal/cts": 1, "internal/dataunit": 1,
	"internal/digest": 1, "internal/argon2": 2, "internal/pbkdf2": 2, "internal/hkdf": 2,
	"block": 2, "xts": 2, "adiantum": 2, "hctr2": 2, "internal/camellia": 2, "essiv": 2, "sm4xts": 2, "internal/cipher": 3, "dmcrypt": 3,
	"keyslot": 4, "internal/measure": 4,
	"luks": 4, "fscrypt": 4, "internal/ext4": 4, "internal/f2fs": 4,
	"dm": 5, "backend": 5, "internal/trace": 5,
	"internal/slotstudy": 6,
	"export":             6, "keystore": 6, "control": 6, "internal/keysource": 6,
	"internal/daemon": 7,
	"cmd/keyway":      8,
}

// free are packages that no product package may import: tests, tools and examples.
var free = []string{"test", "bench", "examples", "internal/blocktest", "internal/dataunit/dataunittest", "internal/dmtest", "internal/interleave", "internal/model", "internal/race", "internal/secret/secrettest", "internal/sim", "internal/oracle", "export/nbd/internal/memserve"}

// embeddable are the packages of the Go library: their only modules beside
// ours are golang.org/x and cpuid.
var embeddable = []string{"blkcrypto", "block", "keyslot", "dm", "backend", "export", "keystore", "xts", "sm4xts", "essiv", "adiantum", "hctr2", "dmcrypt", "luks", "fscrypt"}

// A pkg is what go list tells of a package.
type pkg struct {
	ImportPath, Dir   string
	GoFiles, CgoFiles []string
	Imports           []string
	Module            *struct{ Path string }
	Standard          bool
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,Module,Standard"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, errs.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return p == r || strings.HasPrefix(p, r+"/") })
}

// floor returns twice the floor of a package, plus one if it is a child, and
// whose child it is.
func floor(p string) (n int, parent string, known bool) {
	if f, ok := floors[p]; ok {
		return 2 * f, p, true
	}
	for dir := p; strings.Contains(dir, "/"); {
		dir = dir[:strings.LastIndexByte(dir, '/')]
		if f, ok := floors[dir]; ok {
			return 2*f + 1, dir, true
		}
	}
	return 0, "", false
}

func TestPackagesImportLowerFloorsOnly(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, "keyway/")
		if within(name, free) || strings.Contains(name, "/_asm") || p.ImportPath == "keyway" {
			continue
		}
		own, parent, known := floor(name)
		if !known {
			t.Errorf("package %s has no floor: give it one here", name)
			continue
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, "keyway/")
			if !ours {
				continue
			}
			if within(to, free) {
				t.Errorf("%s imports %s, which is for tests", name, to)
				continue
			}
			below, itsParent, known := floor(to)
			switch {
			case !known:
				t.Errorf("%s imports %s, which has no floor", name, to)
			case itsParent == parent && to != parent:
				t.Errorf("%s imports its sibling %s", name, to)
			case below >= own:
				t.Errorf("%s (floor %d) imports %s (floor %d)", name, own/2, to, below/2)
			case strings.HasPrefix(name, "export") && (within(to, []string{"dm", "backend"})):
				t.Errorf("%s imports %s: an export sees devices only", name, to)
			}
		}
	}
}

func TestLibraryHasNoCgoAndFewModules(t *testing.T) {
	var roots []string
	for _, e := range embeddable {
		roots = append(roots, "./"+e+"/...")
	}
	allowed := []string{"keyway", "golang.org/x/sys", "golang.org/x/crypto", "github.com/klauspost/cpuid/v2"}
	for _, p := range list(t, append([]string{"-deps"}, roots...)...) {
		if p.Standard {
			continue
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo", p.ImportPath)
		}
		if p.Module == nil || !slices.Contains(allowed, p.Module.Path) {
			t.Errorf("the library links %s", p.ImportPath)
		}
	}
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	for _, p := range list(t, "./...") {
		var documented []string
		for _, f := range p.GoFiles {
			ast, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.Doc != nil {
				documented = append(documented, f)
			}
		}
		if len(p.GoFiles) > 0 && len(documented) != 1 {
			t.Errorf("package %s has %d package comments, want 1: %v", p.ImportPath, len(documented), documented)
		}
	}
}
