package dm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"keyway/block"
)

// A Target is a Device over one row of a table; r.Off counts from the row's
// start. Its Info describes the part beneath it, except for Size, which the
// table knows. The table has checked range and alignment, splits at row
// boundaries, and sends flushes to the devices of Under itself, unless the
// type TakesFlush.
type Target interface {
	block.Device
	block.Stacked

	// Status is the text that dmsetup prints after the target's name.
	Status(k StatusKind) string
}

// A StatusKind says which text Status returns.
type StatusKind uint8

const (
	StatusInfo  StatusKind = iota // how the target is
	StatusTable                   // its arguments; can be loaded again
)

// Features of a target type.
type Features uint8

const (
	// PassesCrypto: contexts may be sent to the target, which hands them,
	// advanced by what it skips, to every device the data goes to.
	PassesCrypto Features = 1 << iota
	// MarkedOnly, with PassesCrypto: only contexts of requests that are
	// marked SkipDefaultKey; it adds its own to all others.
	MarkedOnly
	// Singleton: the only row of its table.
	Singleton
	// TakesFlush: flushes go to the target, which hands them to every device
	// of Under or has a reason not to, and not to those devices past it.
	TakesFlush
)

// Chunked is a target that cuts requests at multiples of Chunk bytes from the
// start of its row.
type Chunked interface{ Chunk() int64 }

// A TargetType is registered under its name.
type TargetType struct {
	Name     string
	Features Features
	Usage    string // arguments, one line
	KeyArg   int    // which argument is a key, from 1; 0: none
	New      func(ctx context.Context, b *Builder, a *Args) (Target, error)
}

var types = map[string]TargetType{}

// Register adds a target type; called by init functions only.
func Register(t TargetType) {
	if _, twice := types[t.Name]; twice {
		panic("dm: target registered twice: " + t.Name)
	}
	types[t.Name] = t
}

// Types returns all registered target types by name.
func Types() []TargetType {
	var all []TargetType
	for _, t := range types {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b TargetType) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func lookupType(name string) (TargetType, error) {
	t, ok := types[name]
	if !ok {
		var names []string
		for _, t := range Types() {
			names = append(names, t.Name)
		}
		return t, fmt.Errorf("no target %q (there are: %s)", name, strings.Join(names, ", "))
	}
	return t, nil
}
