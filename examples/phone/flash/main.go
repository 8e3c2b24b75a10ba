// Command flash puts a file system with fscrypt's encrypted directories onto the device
// of a phone, block by block, as the phone itself would have written it: contents of
// encrypted files are ciphertext already, so their blocks carry SkipDefaultKey and pass the
// default key; every other block is encrypted with the default key on its way. So each
// block on the medium is encrypted once.
//
//	flash CONFIG DEVICE IMAGE
//	flash unpack IMAGE FILE
//
// CONFIG is the daemon's configuration, which declares DEVICE and all that it stands on;
// no daemon may run on it meanwhile. IMAGE is an ext4, as it is or packed by zstd.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"

	"keyway/block"
	"keyway/internal/ext4"
)

func main() {
	a := os.Args[1:]
	if len(a) != 3 {
		fmt.Fprintln(os.Stderr, "usage: flash CONFIG DEVICE IMAGE | flash unpack IMAGE FILE")
		os.Exit(2)
	}
	do := func() error { return flash(context.Background(), a[0], a[1], a[2]) }
	if a[0] == "unpack" {
		do = func() error {
			b, err := unpack(a[1])
			if err != nil {
				return err
			}
			return os.WriteFile(a[2], b, 0o600)
		}
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "flash: error:", err)
		os.Exit(1)
	}
}

func flash(ctx context.Context, config, device, path string) (err error) {
	image, err := unpack(path)
	if err != nil {
		return err
	}
	skip, err := contents(image)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s, err := newStack(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	dev, err := s.open(ctx, device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	if size := dev.Info().Size; size < int64(len(image)) {
		return fmt.Errorf("device %q has %d bytes, and the file system %d", device, size, len(image))
	}
	passed, err := write(ctx, dev, image, skip)
	if err != nil {
		return err
	}
	all := len(image) / blockSize
	fmt.Printf("%d blocks of %d bytes: %d were encrypted with the default key, %d are contents of encrypted files and passed it\n", all, blockSize, all-passed, passed)
	return nil
}

// blockSize is that of the file system, and of the default key's data units.
const blockSize = 4096

// unpack reads an image, whole: it is small.
func unpack(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return b, err
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	b, err = d.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// contents tells which blocks hold contents of encrypted files. Names and targets of
// symbolic links are encrypted too, but they are metadata, which fscrypt does not mark.
func contents(image []byte) (skip []bool, err error) {
	fs, err := ext4.Open(bytes.NewReader(image), int64(len(image)), ext4.Options{})
	if err != nil {
		return nil, err
	}
	if size := fs.Info().BlockSize; size != blockSize {
		return nil, fmt.Errorf("blocks of %d bytes, and only %d are taken", size, blockSize)
	}
	root, err := fs.Inode(ext4.Root)
	if err != nil {
		return nil, err
	}
	skip = make([]bool, len(image)/blockSize)
	err = fs.Walk(root, func(_ []ext4.Entry, i *ext4.Inode) error {
		if i.Type() != ext4.Regular || !i.Encrypted() || i.Size == 0 {
			return nil
		}
		for r, err := range i.Map(0, uint64(i.Size+blockSize-1)/blockSize) {
			if err != nil {
				return err
			}
			if r.Kind == ext4.Data {
				for b := r.Physical; b < r.Physical+r.Blocks; b++ {
					skip[b] = true
				}
			}
		}
		return nil
	})
	return skip, err
}

// write sends the blocks, in runs of the same kind, and says how many passed the default
// key.
func write(ctx context.Context, dev block.Device, image []byte, skip []bool) (passed int, err error) {
	const most = 256 // blocks in a request
	for at := 0; at < len(skip); {
		n := 1
		for at+n < len(skip) && n < most && skip[at+n] == skip[at] {
			n++
		}
		p := image[at*blockSize : (at+n)*blockSize]
		r := block.Request{Op: block.OpWrite, Off: int64(at) * blockSize, Len: int64(len(p)), Data: block.Bytes(p)}
		if skip[at] {
			r.Flags = block.SkipDefaultKey
			passed += n
		}
		if err := dev.Do(ctx, r); err != nil {
			return passed, err
		}
		at += n
	}
	return passed, dev.Do(ctx, block.Request{Op: block.OpFlush})
}
