package foreign

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"keyway/test/harness"
)

// makeCerts lets openssl make a certificate authority, a server certificate for
// localhost and 127.0.0.1 and a client certificate, under the names that GnuTLS
// clients (libnbd, QEMU) expect in a directory.
func makeCerts(t *testing.T) string {
	t.Helper()
	dir := harness.Dir(t)
	at := func(n string) string { return filepath.Join(dir, n) }
	harness.ToolOK(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=test authority", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
		"-keyout", at("ca-key.pem"), "-out", at("ca-cert.pem"))
	for _, who := range []struct{ name, ext string }{
		{"server", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"},
		{"client", "extendedKeyUsage=clientAuth\n"},
	} {
		if err := os.WriteFile(at("ext"), []byte(who.ext), 0o600); err != nil {
			t.Fatal(err)
		}
		harness.ToolOK(t, "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN="+who.name,
			"-keyout", at(who.name+"-key.pem"), "-out", at("csr"))
		harness.ToolOK(t, "openssl", "x509", "-req", "-days", "2", "-in", at("csr"), "-CA", at("ca-cert.pem"), "-CAkey", at("ca-key.pem"),
			"-CAcreateserial", "-extfile", at("ext"), "-out", at(who.name+"-cert.pem"))
	}
	return dir
}

// Over TCP with TLS and client certificates required, only a client of our
// authority gets in, and nothing is served in plain text.
func TestTLSWithClientCertificates(t *testing.T) {
	harness.Need(t, "openssl", "nbdinfo", "nbdcopy", "qemu-img")
	certs, alien := makeCerts(t), makeCerts(t)
	d := harness.Start(t)
	addKey(t, d, "k", 4096, testKey(81))
	d.OK("create", "leaf", "--backend", "mem:16M", "--engine", "cpu")
	create(d, "vol", "0 32768 default-key aes-xts-plain64 :64:logon:k 0 leaf 0 2 sector_size:4096 iv_large_sectors")
	port := freePort(t)
	d.OK("export", "add", "vol", "--nbd", fmt.Sprintf("tcp:127.0.0.1:%d", port), "--name", "vol",
		"--tls-cert", filepath.Join(certs, "server-cert.pem"), "--tls-key", filepath.Join(certs, "server-key.pem"),
		"--tls-ca", filepath.Join(certs, "ca-cert.pem"), "--tls-client-auth")

	// Directories for clients: with a certificate, without, with one of another authority.
	without := harness.Dir(t)
	foreign := harness.Dir(t)
	copyFile(t, filepath.Join(without, "ca-cert.pem"), filepath.Join(certs, "ca-cert.pem"))
	copyFile(t, filepath.Join(foreign, "ca-cert.pem"), filepath.Join(certs, "ca-cert.pem"))
	for _, f := range []string{"client-cert.pem", "client-key.pem"} {
		copyFile(t, filepath.Join(foreign, f), filepath.Join(alien, f))
	}
	uri := func(dir string) string {
		return fmt.Sprintf("nbds://localhost:%d/vol?tls-certificates=%s", port, dir)
	}

	harness.ToolOK(t, "nbdinfo", uri(certs))
	for what, u := range map[string]string{
		"no certificate":                   uri(without),
		"certificate of another authority": uri(foreign),
		"a server of another authority":    uri(alien),
		"plain text":                       fmt.Sprintf("nbd://localhost:%d/vol", port),
	} {
		if r := harness.Tool(t, "nbdinfo", u); r.Code == 0 {
			t.Errorf("%s: let in\n%s", what, r.Stdout)
		}
	}
	// All of them leave the server as it was.
	src := patternFile(t, 9, 16*miB)
	back := filepath.Join(harness.Dir(t), "back")
	harness.ToolOK(t, "nbdcopy", "--connections=4", "--flush", src, uri(certs))
	harness.ToolOK(t, "nbdcopy", "--connections=4", uri(certs), back)
	if got, want := fileSum(t, back), fileSum(t, src); got != want {
		t.Errorf("copied back over TLS: sha256 %s, want %s", got, want)
	}
	harness.ToolOK(t, "qemu-img", "compare", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+certs,
		"--image-opts", "driver=raw,file.filename="+src,
		fmt.Sprintf("driver=nbd,host=localhost,port=%d,export=vol,tls-creds=tls0", port))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func copyFile(t *testing.T, dst, src string) {
	t.Helper()
	b, err := os.ReadFile(src)
	if err == nil {
		err = os.WriteFile(dst, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
