package nbd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"keyway/export"
	"keyway/internal/nbdproto"
	"keyway/internal/nbdproto/nbdtest"
)

// authority makes certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.cert, a.key = a.issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: "test"}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) pair(t *testing.T, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	c, k := a.issue(t, &x509.Certificate{DNSNames: []string{"server"}, ExtKeyUsage: []x509.ExtKeyUsage{usage}})
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: k, Leaf: c}
}

// upgrade does STARTTLS on nc.
func upgrade(t *testing.T, nc net.Conn, c *tls.Config) (*nbdtest.Client, error) {
	t.Helper()
	cl := &nbdtest.Client{Conn: nc}
	if err := cl.Hello(3); err != nil {
		t.Fatal(err)
	}
	reps, err := cl.Option(nbdproto.OptStartTLS, nil)
	if err != nil || reps[0].Type != nbdproto.RepAck {
		t.Fatalf("STARTTLS: %v %v", reps, err)
	}
	tc := tls.Client(nc, c)
	if err := tc.Handshake(); err != nil {
		return nil, err
	}
	cl.Conn = tc
	return cl, nil
}

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.pair(t, x509.ExtKeyUsageServerAuth)}}
	dev := newMemory(8 << 20)
	exp := export.Export{Name: "d", Dev: dev}
	plain := &tls.Config{RootCAs: ca.pool, ServerName: "server"}

	t.Run("data of all sizes", func(t *testing.T) {
		s, dial := start(t, Config{TLS: server}, exp)
		eachStyle(t, func(t *testing.T, style nbdproto.Style) {
			c, err := upgrade(t, dial(), plain)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Enter("d", style, false); err != nil {
				t.Fatal(err)
			}
			for i, n := range []int{1, 4096, 70000, 1 << 20, 3 << 20} {
				b := fill(n, byte(i))
				do(t, c, nbdproto.CmdWrite, 0, 5, uint64(n), b, 0)
				if a := do(t, c, nbdproto.CmdRead, 0, 5, uint64(n), nil, 0); !bytes.Equal(a.Data, b) {
					t.Fatalf("%d bytes came back changed", n)
				}
			}
			if l := s.Connections(); !l[len(l)-1].TLS {
				t.Errorf("%+v", l)
			}
		})
	})
	t.Run("allowed is not required", func(t *testing.T) {
		_, dial := start(t, Config{TLS: server}, exp)
		do(t, enter(t, dial(), "d", nbdproto.Simple, false), nbdproto.CmdRead, 0, 0, 512, nil, 0)
	})
	t.Run("required", func(t *testing.T) {
		_, dial := start(t, Config{TLS: server, RequireTLS: true}, exp)
		if _, err := nbdtest.Dial(dial(), "d", nbdproto.Simple, false); err == nil {
			t.Error("plain text was let in")
		}
		c, err := upgrade(t, dial(), plain)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Enter("d", nbdproto.Simple, false); err != nil {
			t.Error(err)
		}
	})
	t.Run("client certificates", func(t *testing.T) {
		mutual := server.Clone()
		mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool
		_, dial := start(t, Config{TLS: mutual, RequireTLS: true}, exp)
		for name, k := range map[string]struct {
			certs []tls.Certificate
			want  bool
		}{
			"good":          {[]tls.Certificate{ca.pair(t, x509.ExtKeyUsageClientAuth)}, true},
			"none":          {nil, false},
			"of a stranger": {[]tls.Certificate{stranger.pair(t, x509.ExtKeyUsageClientAuth)}, false},
			"for servers":   {[]tls.Certificate{ca.pair(t, x509.ExtKeyUsageServerAuth)}, false},
		} {
			t.Run(name, func(t *testing.T) {
				cfg := plain.Clone()
				cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(k.certs) == 0 {
						return &tls.Certificate{}, nil
					}
					return &k.certs[0], nil
				}
				c, err := upgrade(t, dial(), cfg)
				if err == nil { // TLS 1.3 tells the client at its first read
					err = c.Enter("d", nbdproto.Simple, false)
				}
				if (err == nil) != k.want {
					t.Errorf("got %v", err)
				}
			})
		}
	})
	t.Run("required without a certificate to show", func(t *testing.T) {
		if _, err := New(Config{RequireTLS: true}); err == nil {
			t.Error("taken")
		}
	})
	t.Run("slow reader, removal, drain", func(t *testing.T) {
		s, dial := start(t, Config{TLS: server, StallTimeout: 200 * time.Millisecond}, exp, export.Export{Name: "e", Dev: newMemory(1 << 20)})
		slow, err := upgrade(t, dial(), plain)
		if err != nil {
			t.Fatal(err)
		}
		if err := slow.Enter("d", nbdproto.Simple, false); err != nil {
			t.Fatal(err)
		}
		for range 16 {
			slow.Request(nbdproto.CmdRead, 0, 0, 1<<20, nil)
		}
		eventually(t, "the slow reader is cut", func() bool { return len(s.Connections()) == 0 })
		idle, err := upgrade(t, dial(), plain)
		if err != nil {
			t.Fatal(err)
		}
		if err := idle.Enter("e", nbdproto.Simple, false); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(t.Context(), "e"); err != nil {
			t.Error(err)
		}
		ended(t, idle)
	})
}
