package essiv_test

import (
	"bytes"
	"fmt"
	"log"

	"keyway/essiv"
)

// A disk of dm-crypt's aes-cbc-essiv:sha256, sectors of 512 bytes.
func Example() {
	key := []byte("only an example.")
	c, err := essiv.New(key, 512)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe() // erases what was derived from the key; key itself is yours

	plain := bytes.Repeat([]byte("sixteen letters."), 8*512/16)
	disk := make([]byte, len(plain))
	c.Encrypt(disk, plain, [2]uint64{2048, 0}) // sectors 2048 to 2055, side by side

	sector := make([]byte, 512)
	c.Decrypt(sector, disk[3*512:4*512], [2]uint64{2051, 0})
	fmt.Printf("%s\n", sector[:16])
	fmt.Println("equal sectors of plaintext differ on the disk:", !bytes.Equal(disk[:512], disk[512:1024]))
	// Output:
	// sixteen letters.
	// equal sectors of plaintext differ on the disk: true
}

// The first vector of crypto/testmgr.h in Linux: one data unit of one block, in
// place.
func ExampleCipher_Encrypt() {
	c, err := essiv.New([]byte("\x06\xa9\x21\x40\x36\xb8\xa1\x5b\x51\x2e\x03\xd5\x34\x12\x00\x06"), 16)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()
	text := []byte("Single block msg")
	c.Encrypt(text, text, [2]uint64{0x30b49e9d42baaf3d, 0})
	fmt.Printf("%x\n", text)
	// Output:
	// fa59e75f415665c336ca6b72109f8cd4
}
