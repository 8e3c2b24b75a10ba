package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"keyway/control"
)

// listen opens a listener. A Unix socket is for the daemon's user alone, and
// takes the place of one where nobody listens any more.
func listen(ctx context.Context, a listenAddr) (net.Listener, error) {
	lc := net.ListenConfig{}
	if a.network == "unix" {
		lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
			// Before bind: the file never exists with another mode.
			e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
			return errors.Join(e, err)
		}
		if err := removeStale(a.addr); err != nil {
			return nil, err
		}
	}
	l, err := lc.Listen(ctx, a.network, a.addr)
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", a, err)
	}
	return l, nil
}

func removeStale(path string) error {
	i, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if i.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket %s: there is a file of that name that is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("socket %s: somebody listens there already", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	return nil
}

// serverTLS reads the certificates.
func serverTLS(t control.TLS) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if t.CA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("TLS CA: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS CA: %s has no certificate", t.CA)
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	if t.ClientAuth {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}
