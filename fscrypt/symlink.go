package fscrypt

import (
	"encoding/binary"
	"fmt"
)

const linkHead = 2 // bytes of the length before an encrypted target

// maxTarget is the longest encrypted target of a symbolic link in bytes: it fills a
// block with its length and a zero byte, which is counted though it is not stored.
func maxTarget(block int) int { return block - linkHead - 1 }

// EncryptTarget returns what a symbolic link stores for a target: two bytes of
// length and the encrypted target. n is of the link itself. ErrNameTooLong: it does
// not fit in a block.
func (n *Names) EncryptTarget(target []byte) ([]byte, error) {
	if len(target) == 0 {
		return nil, fmt.Errorf("fscrypt: %w: the target is empty", ErrName)
	}
	b, err := n.seal(target, n.link)
	if err != nil {
		return nil, err
	}
	return append(binary.LittleEndian.AppendUint16(nil, uint16(len(b))), b...), nil
}

// DecryptTarget returns the target of a symbolic link that stores data, as long as
// the inode says. ErrName: it is none under this key.
func (n *Names) DecryptTarget(data []byte) ([]byte, error) {
	encrypted, err := EncryptedTarget(data)
	if err != nil {
		return nil, err
	}
	target, err := n.open(encrypted, n.link)
	if err != nil {
		return nil, err
	}
	if len(target) == 0 {
		return nil, fmt.Errorf("fscrypt: %w: the target is empty", ErrName)
	}
	return target, nil
}

// EncryptedTarget returns the encrypted target in the data of a symbolic link. NoKey
// of it, with hashes of 0, is the target that is shown without the key.
func EncryptedTarget(data []byte) ([]byte, error) {
	if len(data) < linkHead {
		return nil, fmt.Errorf("fscrypt: %w: a symbolic link of %d bytes", ErrName, len(data))
	}
	n := int(binary.LittleEndian.Uint16(data))
	if n < MinEncrypted || n > len(data)-linkHead {
		return nil, fmt.Errorf("fscrypt: %w: %d bytes encrypted in a symbolic link of %d", ErrName, n, len(data))
	}
	return data[linkHead:][:n], nil
}
