package hctr2_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log"

	"keyway/hctr2"
)

// Sectors 8 to 11 of a disk with sectors of 4096 bytes, which are numbered by the
// 512-byte sectors in them, as dm-crypt's aes-hctr2-plain64 and LUKS2 do.
func Example() {
	key := make([]byte, 32)
	rand.Read(key)
	c, err := hctr2.New(key, 4096)
	if err != nil {
		log.Fatal(err)
	}
	clear(key)
	defer c.Wipe()

	data := bytes.Repeat([]byte("some data\n"), 4*4096/10+1)[:4*4096]
	plain := bytes.Clone(data)
	c.EncryptStep(data, data, [4]uint64{8 * 8}, 8)
	c.DecryptStep(data, data, [4]uint64{8 * 8}, 8)
	fmt.Println(bytes.Equal(data, plain))
	// Output: true
}

// A name of any length from 16 bytes on, which stays as long.
func ExampleCipher_EncryptBytes() {
	c, err := hctr2.New(bytes.Repeat([]byte{1}, 32), 16)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()
	var tweak [hctr2.TweakSize]byte
	name := []byte("a long file name.txt")
	c.EncryptBytes(name, name, &tweak)
	fmt.Println(len(name))
	c.DecryptBytes(name, name, &tweak)
	fmt.Printf("%s\n", name)
	// Output:
	// 20
	// a long file name.txt
}
