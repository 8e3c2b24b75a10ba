package nbd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config says how a Server behaves. The zero value serves in plain text with
// the limits given at each field.
type Config struct {
	// TLS is offered to clients when set. Its ClientAuth and ClientCAs say
	// whether they must show a certificate. RequireTLS refuses everything
	// before TLS is up.
	TLS        *tls.Config
	RequireTLS bool

	// Default is the export that the empty name stands for. Empty: the only
	// export, if there is exactly one.
	Default string

	MaxConnections   int           // more are closed at once; 0: 256
	HandshakeTimeout time.Duration // from accept to transmission; 0: 10 s
	StallTimeout     time.Duration // for a peer that stops in the middle of a request's payload or does not read its replies; 0: 30 s
	DrainTimeout     time.Duration // from the end of Serve's context until connections are cut; 0: 10 s

	// MaxInFlight bounds the requests of one connection that wait in the
	// device, each of which holds a goroutine; 0: 128.
	MaxInFlight int

	// ConnBytes and ServerBytes bound the memory of requests that are larger
	// than a connection's own buffers, or wait in the device: for each
	// connection (0: 64 MiB) and for all (0: 1 GiB). At a limit the connection
	// is not read until memory is free. A connection that has none may always
	// take one request's worth, so that nobody can starve the others: that
	// much, 32 MiB for each connection, comes on top of ServerBytes at worst.
	ConnBytes, ServerBytes int64

	Log *slog.Logger // connections and what went wrong with them; nil: nothing
}

// MaxRequest is the largest read or write, in bytes, and the maximum block
// size that clients are told: the protocol wants servers to take this much.
const MaxRequest = 32 << 20

func (c *Config) fill() error {
	if c.RequireTLS && c.TLS == nil {
		return errors.New("nbd: TLS is required but there is no certificate to offer")
	}
	def := func(p *time.Duration, d time.Duration) error {
		if *p == 0 {
			*p = d
		}
		if *p < 0 {
			return fmt.Errorf("nbd: a timeout of %v", *p)
		}
		return nil
	}
	if err := errors.Join(def(&c.HandshakeTimeout, 10*time.Second),
		def(&c.StallTimeout, 30*time.Second),
		def(&c.DrainTimeout, 10*time.Second)); err != nil {
		return err
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 256 // each holds 1.3 MiB of buffers
	}
	if c.MaxConnections < 1 || c.MaxConnections > 8192 {
		return fmt.Errorf("nbd: a limit of %d connections is not between 1 and 8192", c.MaxConnections)
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 128 // what nbd-client and qemu keep in flight at most
	}
	if c.MaxInFlight < 1 {
		return fmt.Errorf("nbd: a limit of %d requests in flight", c.MaxInFlight)
	}
	if c.ConnBytes == 0 {
		c.ConnBytes = 2 * MaxRequest
	}
	if c.ServerBytes == 0 {
		c.ServerBytes = 1 << 30
	}
	if c.ConnBytes < 0 || c.ServerBytes < 0 {
		return errors.New("nbd: a negative limit of bytes in flight")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
