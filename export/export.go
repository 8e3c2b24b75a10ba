// Package export holds what all servers of block devices share: what an
// export is, and what a daemon can ask of a server. The servers themselves are
// the packages below it.
package export

import (
	"context"
	"net"

	"keyway/block"
)

// An Export is a device under the name by which clients ask for it.
type Export struct {
	Name        string // at most 4096 bytes of UTF-8
	Description string // for people; at most 4096 bytes
	Dev         block.Device
	ReadOnly    bool // refuse changes even if the device takes them
}

// A Server offers exports to clients on a network.
type Server interface {
	// Add offers e from now on. The device stays the caller's, who closes it
	// after Remove or after every Serve has returned.
	Add(e Export) error

	// Remove stops offering the export and returns when no connection uses
	// its device any more. Connections are given until ctx ends to complete
	// what they have begun, then they are cut, which is an error.
	Remove(ctx context.Context, name string) error

	// List returns the exports, sorted by name.
	List() []Export

	// Serve accepts connections from l, which it closes, until ctx ends; then
	// it completes what clients have begun, within the server's own deadline,
	// and returns. It may be called for several listeners at once.
	Serve(ctx context.Context, l net.Listener) error
}
