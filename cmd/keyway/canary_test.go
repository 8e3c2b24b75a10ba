package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyway/test/fixtures"
	"keyway/test/spawn"
)

// A canary is a key that must not be found where keys do not belong.
type canary struct {
	name string
	raw  []byte
}

func newCanary(name string) canary {
	c := canary{name, make([]byte, 64)}
	rand.Read(c.raw)
	return c
}

// find returns in which form the key, or half of it, is in b; "" if it is not.
func (c canary) find(b []byte) string {
	for half, part := range map[string][]byte{"first half": c.raw[:32], "second half": c.raw[32:]} {
		for form, text := range map[string][]byte{
			"raw": part, "hex": []byte(hex.EncodeToString(part)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(part))),
			"base64": []byte(base64.StdEncoding.EncodeToString(part))[:40], "base64url": []byte(base64.URLEncoding.EncodeToString(part))[:40],
			"Go": []byte(strings.Trim(fmt.Sprint(part), "[]")),
		} {
			if bytes.Contains(b, text) {
				return fmt.Sprintf("%s of %s as %s", half, c.name, form)
			}
		}
	}
	return ""
}

// TestKeysAreNowhere drives a daemon with keys from every source, right and
// wrong, and looks for them in all that was printed, logged and stored; and,
// once they are evicted, in the whole memory of the daemon.
func TestKeysAreNowhere(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file, piped, inHex := newCanary("file key"), newCanary("piped key"), newCanary("hex key")
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	sources := newSourceCanaries(t, dir, write)
	phone := fsImage(t, "ext4", "ext4-1k")
	master := canary{"master key", fixtures.Hex(phone.Directories[0].MasterKey)}
	write("master.key", master.raw)
	write("phone.img", phone.Disk(t, "a"))
	keyFile, config := write("k.key", file.raw), write("c.toml", []byte(sources.config))
	state := filepath.Join(dir, "st")

	bin, err := exec.LookPath("keyway")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"KEYWAY_SOCKET=" + filepath.Join(dir, "c.sock"), "HOME=" + dir}
	notify, err := spawn.NewNotify(filepath.Join(dir, "notify"))
	if err != nil {
		t.Fatal(err)
	}
	var out syncedBuffer
	// Locked, not hidden: so that the whole memory can be looked at.
	server := exec.Command(bin, "serve", "--config", config, "--state", state, "--log-level", "debug", "--key-memory", "locked")
	env = append(env, "CREDENTIALS_DIRECTORY="+dir, "PATH="+os.Getenv("PATH"))
	server.Env = append(env, notify.Env())
	server.Stdout, server.Stderr = &out, &out
	if err := spawn.Start(server); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { server.Wait(); close(done) }()
	defer func() { server.Process.Kill(); <-done }()
	if err := notify.Ready(done, time.Minute); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	client, err := clientDir()
	if err != nil {
		t.Fatal(err)
	}
	run := func(ok bool, stdin []byte, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(client, "keyway"), args...)
		cmd.Env, cmd.Dir = env, dir
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &out
		if err := cmd.Run(); (err == nil) != ok {
			t.Fatalf("keyway %v: %v\n%s", args, err, out.String())
		}
	}

	hexTable := "0 2048 crypt aes-xts-plain64 " + hex.EncodeToString(inHex.raw) + " 0 disk 0\n"
	run(true, nil, "create", "disk", "--backend", "mem:4M", "--engine", "cpu")
	run(true, nil, "key", "add", "k", "--mode", "AES-256-XTS", "--file", keyFile)
	run(true, piped.raw, "key", "add", "p", "--mode", "AES-256-XTS", "-")
	run(false, piped.raw, "key", "add", "p", "--mode", "AES-256-XTS", "-")
	run(false, append([]byte{1}, piped.raw...), "key", "add", "long", "--mode", "AES-256-XTS", "-")
	run(false, []byte(hex.EncodeToString(file.raw)), "key", "add", "text", "--mode", "AES-256-XTS", "-")
	run(true, []byte(hexTable), "create", "hexed", "--table", "-")
	run(false, []byte(strings.Replace(hexTable, " 0 disk", " x disk", 1)), "create", "wrong", "--table", "-")
	run(false, []byte("0 2048 crypt aes-xts-plain64 "+hex.EncodeToString(inHex.raw)+"0 0 disk 0\n"), "create", "odd", "--table", "-")
	// A key in the wrong place would be repeated as any wrong word.
	run(false, []byte("0 2048 "+hex.EncodeToString(inHex.raw[:32])+"\n"), "create", "nowhere", "--table", "-")
	run(false, []byte("0 2048 linear "+hex.EncodeToString(inHex.raw)+" 0\n"), "create", "nowhere", "--table", "-")
	for _, name := range sources.names {
		run(true, nil, "key", "show", name, "--json")
		run(true, nil, "create", "on-"+name, "--backend", "mem:2M")
		run(true, fmt.Appendf(nil, "0 2048 crypt aes-xts-plain64 :64:logon:%s 0 on-%s 0\n", name, name), "create", "of-"+name, "--table", "-")
		run(true, nil, "export", "add", "of-"+name, "--nbd", "unix:"+name+".sock")
	}
	for i, c := range sources.add {
		run(c.ok, c.stdin, append([]string{"key", "add", fmt.Sprintf("add%d", i), "--mode", "AES-256-XTS", "--from"}, c.args...)...)
	}
	for name, key := range map[string]string{"v": "k", "w": "p"} {
		run(true, fmt.Appendf(nil, "0 2048 default-key aes-xts-plain64 :64:logon:%s 0 disk 0 2 sector_size:4096 iv_large_sectors\n", key),
			"create", name, "--table", "-")
	}
	for _, args := range []string{"table", "table --json", "status", "info --json", "ls --tree --json", "crypto v --json", "key list", "key list --json", "export list --json"} {
		run(true, nil, strings.Fields(args)...)
	}
	run(true, nil, "create", "phone", "--backend", "file:phone.img", "--engine", "ufs")
	for _, args := range []string{"fscrypt cat phone xts/p4097 xts-ino64/a", "fscrypt status phone --json", "fscrypt ls -R phone", "explain phone --file xts/p4097"} {
		run(true, nil, append(strings.Fields(args), "--key", "./master.key")...)
		run(false, nil, append(strings.Fields(args), "--key", hex.EncodeToString(master.raw))...)
		run(false, nil, append(strings.Fields(args), "--key", hex.EncodeToString(master.raw)+"=./master.key")...)
	}
	run(true, []byte(hex.EncodeToString(master.raw)+"\n"), "fscrypt", "cat", "phone", "xts/p4097", "--key", "prompt:")
	run(false, append([]byte{1}, master.raw...), "fscrypt", "cat", "phone", "xts/p4097", "--key", "-")
	run(false, master.raw, "fscrypt", "cat", "phone", "xts/absent", "--key", "-")
	// So that the keys have been in slots.
	run(true, nil, "export", "add", "v", "--nbd", "unix:v.sock")
	run(true, nil, "export", "add", "w", "--nbd", "unix:w.sock")
	run(true, nil, "export", "add", "hexed", "--nbd", "unix:h.sock")

	look := func(what string, b []byte) {
		t.Helper()
		for _, c := range append([]canary{file, piped, inHex, master}, sources.all...) {
			if found := c.find(b); found != "" {
				t.Errorf("%s: %s", what, found)
			}
		}
	}
	look("output and log", []byte(out.String()))
	lookState := func() {
		t.Helper()
		err := filepath.WalkDir(state, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			look(p, b)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	lookState()
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", server.Process.Pid, name))
		if err != nil && os.Geteuid() == 0 {
			t.Error(err)
		}
		look(name, b)
	}

	run(true, nil, "key", "evict", "k")
	run(true, nil, "key", "evict", "p", "--json")
	for _, name := range sources.names {
		run(true, nil, "key", "evict", name)
	}
	for i, c := range sources.add {
		if c.ok {
			run(true, nil, "key", "evict", fmt.Sprintf("add%d", i))
		}
	}
	run(true, nil, "export", "remove", "hexed")
	run(true, nil, "remove", "hexed")
	lookState()
	if os.Geteuid() != 0 {
		t.Log("not root: the memory of the daemon is not looked at")
		return
	}
	n, err := eachMapping(server.Process.Pid, func(name string, b []byte) { look("memory "+name, b) })
	if err != nil || n < 1<<20 {
		t.Errorf("memory of the daemon: %d bytes read, %v", n, err)
	}
}

// eachMapping calls f with what is in the memory of a process and can be read.
func eachMapping(pid int, f func(name string, b []byte)) (n int, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		// The race detector maps terabytes that are none of the program's.
		if to-from > 4<<30 {
			continue
		}
		// In pieces that overlap by more than a key in any form.
		const piece, lap = 4 << 20, 1024
		b := make([]byte, piece+lap)
		for at := from; at < to; at += piece {
			k, err := mem.ReadAt(b[:min(int64(len(b)), to-at)], at)
			if err != nil && err != io.EOF && k == 0 {
				break // a hole, or the kernel's own
			}
			f(lines.Text(), b[:k])
			n += k
		}
	}
	return n, lines.Err()
}
