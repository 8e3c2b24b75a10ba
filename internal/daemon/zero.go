package daemon

import (
	"fmt"
	"path/filepath"

	"keyway/blkcrypto"
	"keyway/control"
)

// zeroSize is the size of the disk that a daemon without a configuration
// makes, in bytes. The file is sparse: an empty disk takes no space.
const zeroSize = 1 << 30

// ZeroConfig declares one encrypted disk: a file and its key, both made in
// the state directory by the first start, an engine in front of the file,
// and a device that encrypts everything with the key, served beside the
// control socket.
func ZeroConfig(stateDir, socket string) *Config {
	const leaf, vol = "disk0", "vol0"
	return &Config{
		Keys: []KeyConfig{{
			Name:   leaf,
			Config: blkcrypto.Config{Mode: blkcrypto.AES256XTS, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8},
			File:   filepath.Join(stateDir, "disk0.key"), Generate: true,
		}},
		Devices: []DeviceConfig{
			{control.Create{Name: leaf, Backend: AbsURI("file:disk0.img", stateDir), Size: zeroSize, Engine: "cpu"}},
			{control.Create{
				Name: vol,
				Table: fmt.Sprintf("0 %d default-key aes-xts-plain64 :64:logon:%s 0 %s 0 3 allow_discards sector_size:4096 iv_large_sectors\n",
					zeroSize>>9, leaf, leaf),
			}},
		},
		Exports: []control.Export{{Name: vol, Device: vol, NBD: "unix:" + filepath.Join(filepath.Dir(socket), "vol0.sock")}},
	}
}

// ZeroHelp tells how to use what ZeroConfig declares.
func ZeroHelp(c *Config, program string) string {
	leaf, e := c.Devices[0], c.Exports[0]
	addr, _, _ := parseNBD(e.NBD)
	uri := addr.uri(e.Name, false)
	return fmt.Sprintf(`One encrypted disk of 1 GiB is served as device %[1]q.

  what it is         nbdinfo '%[2]s'
  copy a disk in     nbdcopy disk.img '%[2]s'
                     qemu-img convert -n -O raw disk.qcow2 '%[2]s'
  as a VM's disk     qemu-system-x86_64 ... -drive file='%[2]s',format=raw,if=virtio
  in this kernel     nbd-client -unix %[3]s -name %[1]s /dev/nbd0     (as root, after modprobe nbd)

  the ciphertext     hexdump -C %[4]s | head
  the key            %[5]s      (64 bytes; whoever has it can read the disk)
  what there is      %[6]s ls --tree;  %[6]s table %[1]s;  %[6]s crypto %[1]s
`, e.Device, uri, addr.addr, leaf.Backend[len("file:"):], c.Keys[0].File, program)
}
