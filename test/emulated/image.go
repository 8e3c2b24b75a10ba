package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Physical addresses in the emulated machine.
const (
	header  = 0xf00000 // boot/rom.s knows it
	info    = header + 0x100
	modules = header + 0x200
	memmap  = header + 0x300
	cmdline = header + 0x1000
	lowEnd  = 0x9f000 // of the memory below the legacy holes
	high    = 0x100000
	align   = 0x200000
)

// decompress returns the ELF file inside a bzImage, which would take the
// emulated machine minutes. Linux boot protocol, "details of header fields".
func decompress(vmlinuz string) ([]byte, error) {
	b, err := os.ReadFile(vmlinuz)
	if err != nil {
		return nil, err
	}
	if len(b) < 0x250 || string(b[0x202:0x206]) != "HdrS" || binary.LittleEndian.Uint16(b[0x206:]) < 0x208 {
		return nil, fmt.Errorf("%s: not a bzImage of boot protocol 2.08 or later", vmlinuz)
	}
	setup := int(b[0x1f1])
	if setup == 0 {
		setup = 4
	}
	at := (setup+1)*512 + int(binary.LittleEndian.Uint32(b[0x248:]))
	n := int(binary.LittleEndian.Uint32(b[0x24c:]))
	if at+n > len(b) || !bytes.HasPrefix(b[at:], []byte("\xfd7zXZ\x00")) {
		return nil, fmt.Errorf("%s: payload is not xz", vmlinuz)
	}
	xz := exec.Command("xz", "-dc", "--single-stream") // the size of the output follows the stream
	xz.Stdin = bytes.NewReader(b[at : at+n])
	var stderr bytes.Buffer
	xz.Stderr = &stderr
	out, err := xz.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: xz: %w: %s", vmlinuz, err, stderr.Bytes())
	}
	return out, nil
}

// image returns what Bochs puts into memory at header: the words for the ROM,
// the PVH start info (xen/include/public/arch-x86/hvm/start_info.h), the kernel
// where it is linked to run, and the initramfs after it.
func image(vmlinux, initrd []byte, args string, memory uint64) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return nil, err
	}
	entry, err := pvhEntry(f)
	if err != nil {
		return nil, err
	}
	img := make([]byte, high)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Paddr < header+high || p.Paddr+p.Memsz > memory {
			return nil, fmt.Errorf("kernel segment at %#x does not fit into memory", p.Paddr)
		}
		img = grow(img, p.Paddr+p.Memsz-header)
		if _, err := p.ReadAt(img[p.Paddr-header:][:p.Filesz], 0); err != nil {
			return nil, err
		}
	}
	img = grow(img, (uint64(len(img))+header+align-1)&^(align-1)-header)
	at := uint64(len(img)) + header
	img = append(img, initrd...)
	img = grow(img, (uint64(len(img))+4095)&^4095)
	if uint64(len(img))+header > memory {
		return nil, fmt.Errorf("kernel and tests need %d MiB of %d", (len(img)+header)>>20, memory>>20)
	}

	put := func(addr uint64, fields ...any) {
		b := img[addr-header:][:0]
		for _, v := range fields {
			b, _ = binary.Append(b, binary.LittleEndian, v)
		}
	}
	put(header, uint32(header+len(img)), entry, uint32(info))
	put(info, uint32(0x336ec578), uint32(1), // magic, version
		uint32(0), uint32(1), uint64(modules), uint64(cmdline), // flags, modules, where, command line
		uint64(0), uint64(memmap), uint32(2), uint32(0)) // no ACPI, memory map of two
	put(modules, at, uint64(len(initrd)), uint64(0), uint64(0))
	const ram = 1
	put(memmap, uint64(0), uint64(lowEnd), uint32(ram), uint32(0),
		uint64(high), memory-high, uint32(ram), uint32(0))
	put(cmdline, []byte(args), byte(0))
	return img, nil
}

func grow(b []byte, n uint64) []byte {
	if n <= uint64(len(b)) {
		return b
	}
	return append(b, make([]byte, n-uint64(len(b)))...)
}

// pvhEntry finds the ELF note XEN_ELFNOTE_PHYS32_ENTRY.
func pvhEntry(f *elf.File) (uint32, error) {
	const physEntry = 18
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return 0, err
		}
		for len(b) >= 12 {
			name := (binary.LittleEndian.Uint32(b) + 3) &^ 3
			desc := (binary.LittleEndian.Uint32(b[4:]) + 3) &^ 3
			if uint64(len(b)) < 12+uint64(name)+uint64(desc) {
				break
			}
			if d := b[12+name:]; binary.LittleEndian.Uint32(b[8:]) == physEntry && bytes.HasPrefix(b[12:], []byte("Xen\x00")) && desc >= 4 {
				return binary.LittleEndian.Uint32(d), nil
			}
			b = b[12+name+desc:]
		}
	}
	return 0, errors.New("kernel has no PVH entry (CONFIG_PVH)")
}
