package xts_test

import (
	"bytes"
	"fmt"
	"log"

	"keyway/xts"
)

// A disk of 4096-byte data units: a request of 64 KiB from unit 1000 on is one
// call, and any part of it can be decrypted on its own.
func Example() {
	key := make([]byte, 64) // two AES-256 keys; take them from a random source
	for i := range key {
		key[i] = byte(i)
	}
	const unit = 4096
	c, err := xts.New(key, unit)
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

// In place, as a driver does it that owns the buffer.
func ExampleCipher_Encrypt() {
	c, err := xts.New([]byte("only an example: 16 + 16 bytes. "), 512)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()
	sectors := make([]byte, 3*512)
	c.Encrypt(sectors, sectors, [2]uint64{7, 0}) // sectors 7, 8 and 9
	fmt.Printf("%x\n", sectors[:8])
	// Output:
	// f2d780f5859c75a1
}

// A medium that takes equal key halves is only opened on purpose.
func ExampleNewAllowWeak() {
	weak := bytes.Repeat([]byte{7}, 64)
	if _, err := xts.New(weak, 512); err != nil {
		fmt.Println(err)
	}
	c, err := xts.NewAllowWeak(weak, 512)
	if err != nil {
		log.Fatal(err)
	}
	c.Wipe()
	// Output:
	// xts: the two halves of the key are equal
}

// IEEE 1619-2018, annex B, vector 15: 17 bytes, so the last one steals 15 bytes of
// ciphertext from the block before it.
func ExampleCipher_EncryptStealing() {
	key := []byte("\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\xf6\xf5\xf4\xf3\xf2\xf1\xf0" +
		"\xbf\xbe\xbd\xbc\xbb\xba\xb9\xb8\xb7\xb6\xb5\xb4\xb3\xb2\xb1\xb0")
	c, err := xts.New(key, 512)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()
	text := []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")
	c.EncryptStealing(text, text, [2]uint64{0x123456789a, 0})
	fmt.Printf("%x\n", text)
	// Output:
	// 6c1625db4671522d3d7599601de7ca09ed
}
