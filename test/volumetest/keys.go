package volumetest

import (
	"keyway/fscrypt"
	"keyway/test/fixtures"
	"keyway/test/fixtures/fsimages"
)

// Masters returns what makes the master keys of all directories of an image, once for
// each volume.
func Masters(f *fsimages.FileSystem) func() []*fscrypt.MasterKey {
	return func() (all []*fscrypt.MasterKey) {
		seen := map[string]bool{}
		for _, d := range f.Directories {
			if seen[d.MasterKey+d.Descriptor] {
				continue
			}
			seen[d.MasterKey+d.Descriptor] = true
			m, err := fscrypt.NewMasterKey(fixtures.Hex(d.MasterKey))
			if d.PolicyVersion == 1 { // added under a descriptor of its own
				m, err = fscrypt.NewMasterKeyAs(fixtures.Hex(d.MasterKey), [8]byte(fixtures.Hex(d.Descriptor)))
			}
			if err != nil {
				panic(err) // of a manifest
			}
			all = append(all, m)
		}
		return all
	}
}
