package adiantum_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log"

	"keyway/adiantum"
)

// A disk of 4096-byte sectors: any run of them in one call, numbered by the first.
func Example() {
	key := make([]byte, adiantum.KeySize)
	rand.Read(key)
	c, err := adiantum.New(key, 4096)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Wipe()

	plain := bytes.Repeat([]byte("sixteen letters."), 8*4096/16) // 8 sectors
	disk := make([]byte, len(plain))
	c.Encrypt(disk, plain, [4]uint64{100}) // sectors 100 to 107

	// One bit of ciphertext changed: all of that sector is noise, and only that.
	disk[3*4096] ^= 1
	c.Decrypt(disk, disk, [4]uint64{100})
	for sector := range 8 {
		at := sector * 4096
		same := 0
		for i := range 4096 / 16 {
			if bytes.Equal(disk[at+16*i:][:16], plain[:16]) {
				same++
			}
		}
		fmt.Println("sector", 100+sector, "blocks that are as they were:", same)
	}
	// Output:
	// sector 100 blocks that are as they were: 256
	// sector 101 blocks that are as they were: 256
	// sector 102 blocks that are as they were: 256
	// sector 103 blocks that are as they were: 0
	// sector 104 blocks that are as they were: 256
	// sector 105 blocks that are as they were: 256
	// sector 106 blocks that are as they were: 256
	// sector 107 blocks that are as they were: 256
}
