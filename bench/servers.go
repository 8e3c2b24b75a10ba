package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"keyway/internal/measure"
	"keyway/test/spawn"
)

// Names of the servers; the aims of the report refer to them.
const (
	nbdkitMemory  = "nbdkit memory"
	nbdkitFile    = "nbdkit file"
	nbdkitLUKS    = "nbdkit file+luks"
	qemuRaw       = "qemu-nbd raw"
	qemuLUKS      = "qemu-nbd luks"
	keywayMemory  = "keyway memory"
	keywayMemEnc  = "keyway memory encrypted"
	keywayFile    = "keyway file"
	keywayFileEnc = "keyway file encrypted"
	keywayFile512 = "keyway file encrypted 512"
)

// A server is one running NBD server with one export.
type server struct {
	name         string
	sock, export string
	cmd          *exec.Cmd
	errors       bytes.Buffer
	exited       chan struct{}
}

func (s *server) uri() string { return "nbd+unix:///" + s.export + "?socket=" + s.sock }

// launch starts argv; nil ready: until its socket accepts.
func (s *server) launch(env []string, ready *spawn.Notify, argv ...string) error {
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.errors, &s.errors
	if err := spawn.Start(s.cmd); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func() { s.cmd.Wait(); close(s.exited) }()
	var err error
	if ready != nil {
		err = ready.Ready(s.exited, 30*time.Second)
	} else {
		err = spawn.Socket(s.sock, 30*time.Second)
	}
	if err != nil {
		s.stop()
		return fmt.Errorf("%s: %w\n%s", s.name, err, s.errors.String())
	}
	return nil
}

// cpu returns the processor seconds that the server has used.
func (s *server) cpu() float64 { return measure.ProcessCPU(s.cmd.Process.Pid) }

func (s *server) stop() {
	if s.exited == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(5 * time.Second):
		s.cmd.Process.Kill()
		<-s.exited
	}
}

// diagnosis returns what a server that ended said last; nil while it runs.
func (s *server) diagnosis() error {
	select {
	case <-s.exited:
		return fmt.Errorf("%s ended: %v\n%s", s.name, s.cmd.ProcessState, s.errors.String())
	default:
		return nil
	}
}

// start starts every chosen server, its disk filled so that all pages exist. The
// servers that run are returned also with an error.
func start(o options) (servers []*server, err error) {
	raw := filepath.Join(o.dir, "disk.raw")
	if err := fillRandom(raw, o.size); err != nil {
		return nil, err
	}
	add := func(name, export string, f func(s *server) error) {
		if err != nil || !chosen(o.servers, name) {
			return
		}
		s := &server{name: name, export: export, sock: filepath.Join(o.dir, fmt.Sprintf("%d.sock", len(servers)))}
		if err = f(s); err == nil {
			servers = append(servers, s)
		} else {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	fill := func(s *server) error { return command("nbdcopy", raw, s.uri()) }
	size := fmt.Sprint(o.size)

	add(nbdkitMemory, "", func(s *server) error {
		if err := s.launch(nil, nil, "nbdkit", "-f", "-U", s.sock, "memory", "size="+size, "allocator=malloc"); err != nil {
			return err
		}
		return fill(s)
	})
	add(nbdkitFile, "", func(s *server) error {
		return s.launch(nil, nil, "nbdkit", "-f", "-U", s.sock, "file", "file="+raw)
	})
	luks := filepath.Join(o.dir, "disk.luks")
	pass := filepath.Join(o.dir, "passphrase")
	secret := "secret,id=s0,file=" + pass
	if chosen(o.servers, nbdkitLUKS) || chosen(o.servers, qemuLUKS) {
		if err := makeLUKS(luks, raw, pass, secret, size); err != nil {
			return nil, err
		}
	}
	add(nbdkitLUKS, "", func(s *server) error {
		return s.launch(nil, nil, "nbdkit", "-f", "-U", s.sock, "file", "file="+luks, "--filter=luks", "passphrase=+"+pass)
	})
	add(qemuRaw, "", func(s *server) error {
		return s.launch(nil, nil, "qemu-nbd", "-t", "-e", "64", "-k", s.sock, "-x", "", "-f", "raw", "--cache=writeback", "--aio=threads", raw)
	})
	add(qemuLUKS, "", func(s *server) error {
		return s.launch(nil, nil, "qemu-nbd", "-t", "-e", "64", "-k", s.sock, "-x", "", "--object", secret, "--cache=writeback", "--aio=threads",
			"--image-opts", "driver=luks,key-secret=s0,file.driver=file,file.filename="+luks)
	})

	for i, k := range []struct {
		name     string
		backend  string
		dataUnit int // 0: plain
	}{
		{keywayMemory, "mem:" + size, 0},
		{keywayMemEnc, "mem:" + size, 4096},
		{keywayFile, "file:" + filepath.Join(o.dir, "keyway0.img"), 0},
		{keywayFileEnc, "file:" + filepath.Join(o.dir, "keyway1.img"), 4096},
		{keywayFile512, "file:" + filepath.Join(o.dir, "keyway2.img"), 512},
	} {
		add(k.name, "disk", func(s *server) error {
			if err := s.keyway(o, i, k.backend, k.dataUnit); err != nil {
				return err
			}
			return fill(s)
		})
	}
	return servers, err
}

// keyway starts a daemon that exports one device, encrypted by the engine in front
// of the leaf under a default-key table unless dataUnit is 0.
func (s *server) keyway(o options, n int, backend string, dataUnit int) error {
	dir := filepath.Join(o.dir, fmt.Sprintf("keyway%d", n))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	config, control := filepath.Join(dir, "keyway.toml"), filepath.Join(dir, "control.sock")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return err
	}
	ready, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		return err
	}
	if err := s.launch([]string{ready.Env()}, ready, o.keyway, "serve", "--config", config, "--state", filepath.Join(dir, "state"), "--socket", control); err != nil {
		return err
	}
	cli := func(args ...string) error { return command(o.keyway, append(args, "--socket", control)...) }
	if dataUnit == 0 {
		if err := cli("create", "disk", "--backend", backend, "--size", fmt.Sprint(o.size)); err != nil {
			return err
		}
	} else {
		key, table := filepath.Join(dir, "key"), filepath.Join(dir, "table")
		b := make([]byte, 64)
		rand.Read(b)
		if err := os.WriteFile(key, b, 0o600); err != nil {
			return err
		}
		options := ""
		if dataUnit != 512 {
			options = fmt.Sprintf(" 2 sector_size:%d iv_large_sectors", dataUnit)
		}
		text := fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:k 0 leaf 0%s\n", o.size/512, options)
		if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"key", "add", "k", "--mode", "AES-256-XTS", "--data-unit", fmt.Sprint(dataUnit), "--file", key},
			{"create", "leaf", "--backend", backend, "--size", fmt.Sprint(o.size), "--engine", "cpu"},
			{"create", "disk", "--table", table},
		} {
			if err := cli(args...); err != nil {
				return err
			}
		}
	}
	return cli("export", "add", "disk", "--nbd", "unix:"+s.sock, "--name", "disk")
}

func fillRandom(path string, size int64) error {
	b := make([]byte, 1<<20)
	rand.Read(b)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for n := int64(0); n < size; n += int64(len(b)) {
		if _, err := f.Write(b[:min(int64(len(b)), size-n)]); err != nil {
			return err
		}
	}
	return f.Close()
}

func makeLUKS(luks, raw, pass, secret, size string) error {
	if err := os.WriteFile(pass, []byte("benchmark"), 0o600); err != nil {
		return err
	}
	// qemu 7.2 sometimes fails to time its key derivation: once more then.
	var err error
	for range 6 {
		if err = command("qemu-img", "create", "-q", "-f", "luks", "--object", secret, luks,
			"-o", "key-secret=s0,iter-time=100,cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64", size); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	return command("qemu-img", "convert", "-q", "-n", "--object", secret, "--target-image-opts", "-f", "raw", raw,
		"driver=luks,key-secret=s0,file.filename="+luks)
}

func command(name string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := spawn.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out.String())
	}
	return nil
}
