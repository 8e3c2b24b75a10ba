package luks_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"keyway/luks"
)

// A volume in a file gets a second passphrase.
func Example() {
	ctx := context.Background()
	const size = 20 << 20
	f, err := os.CreateTemp("", "vault")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		log.Fatal(err)
	}
	if err := luks.LockFile(f, true); err != nil {
		log.Fatal(err)
	}
	// Without Iterations a derivation takes two seconds, as it should.
	cheap := luks.KeyOptions{KDF: luks.KDFOptions{Iterations: 4, Memory: 64, CPUs: 1}}
	e, v, err := luks.Format(ctx, f, size, []byte("correct horse"), luks.FormatOptions{Label: "vault", Key: cheap})
	if err != nil {
		log.Fatal(err)
	}
	defer v.Key.Wipe()
	slot, err := e.AddKey(ctx, v, []byte("battery staple"), luks.AnySlot, cheap)
	if err != nil {
		log.Fatal(err)
	}
	table, err := e.Header().Table(v, "disk", size, ":64:logon:vault")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("keyslot", slot)
	fmt.Print(table)
	// Output:
	// keyslot 1
	// 0 8192 crypt aes-xts-plain64 :64:logon:vault 0 disk 32768 1 sector_size:4096
}
