package sm4xts_test

import (
	"bytes"
	"fmt"
	"log"

	"keyway/sm4xts"
)

// A disk of 4096-byte data units: a request of 64 KiB from unit 1000 on is one
// call, and any part of it can be decrypted on its own.
func Example() {
	key := make([]byte, 32) // two SM4 keys; take them from a random source
	for i := range key {
		key[i] = byte(i)
	}
	const unit = 4096
	c, err := sm4xts.New(key, unit)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe() // erases what was derived from the key; key itself is yours
	clear(key)

	plain := bytes.Repeat([]byte("sixteen letters."), 64<<10/16)
	disk := make([]byte, len(plain))
	c.Encrypt(disk, plain, [2]uint64{1000, 0})

	fifth := make([]byte, unit)
	c.Decrypt(fifth, disk[5*unit:6*unit], [2]uint64{1005, 0})
	fmt.Printf("%s\n", fifth[:16])
	fmt.Println("equal units of plaintext differ on the disk:", !bytes.Equal(disk[:unit], disk[unit:2*unit]))
	// Output:
	// sixteen letters.
	// equal units of plaintext differ on the disk: true
}

// The first vector of Linux's crypto/testmgr.h. Its key has equal halves, which
// New refuses.
func ExampleNewAllowWeak() {
	key, text := make([]byte, 32), make([]byte, 32)
	if _, err := sm4xts.New(key, 32); err != nil {
		fmt.Println(err)
	}
	c, err := sm4xts.NewAllowWeak(key, 32)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()
	c.Encrypt(text, text, [2]uint64{})
	fmt.Printf("%x\n", text)
	// Output:
	// sm4xts: the two halves of the key are equal
	// d9b421f731c894fdc35b77291fe4e3b02a1fb76698d59f0e51376c4ada5bc75d
}
