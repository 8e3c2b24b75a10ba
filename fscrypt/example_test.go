package fscrypt_test

import (
	"encoding/hex"
	"fmt"
	"log"

	"keyway/fscrypt"
)

// A directory whose context and entries were read from an ext4, and a file in it.
func Example() {
	raw, _ := hex.DecodeString("6e44d68b2e6546b4b6ecd847cb89da920e4975f7959492547e3ef7f5dc6402eb") // in locked memory, if it is a real one
	m, err := fscrypt.NewMasterKey(raw)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Wipe()

	stored, _ := hex.DecodeString("02010400" + "00000000" + "b7b3812293539ea602c4552d1bd014a3" + "000102030405060708090a0b0c0d0e0f")
	c, err := fscrypt.ParseContext(stored)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Policy)

	fs := fscrypt.Ext4([16]byte{}, 4096, true)
	dir, err := fscrypt.Open(m, fs, c, 13)
	if err != nil {
		log.Fatal(err)
	}
	names, err := dir.Names()
	if err != nil {
		log.Fatal(err)
	}
	defer names.Wipe()
	encrypted, err := names.Encrypt([]byte("letter.txt"))
	if err != nil {
		log.Fatal(err)
	}
	shown, err := fscrypt.NoKey(0, 0, encrypted)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("without the key:", shown)
	name, err := names.Decrypt(encrypted)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("with it: %s\n", name)

	c.Nonce[0] = 0xff // another inode's
	file, err := fscrypt.Open(m, fs, c, 14)
	if err != nil {
		log.Fatal(err)
	}
	dun, err := file.DUN(1 << 20)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("its contents: %v; at 1 MiB the number is %d\n", file.Config(), dun[0])

	// Output:
	// v2, contents AES-256-XTS, names AES-256-CBC-CTS padded to 4, key b7b3812293539ea602c4552d1bd014a3
	// without the key: AAAAAAAAAAB2BYsXIvEbyEdiMgCdhs7V
	// with it: letter.txt
	// its contents: AES-256-XTS, raw, 4096-byte units, 4 DUN bytes; at 1 MiB the number is 256
}
