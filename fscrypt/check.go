package fscrypt

import (
	"fmt"
	"math/bits"
)

// Limits of data units and blocks, in bits.
const (
	minUnitShift = 9
	maxUnitShift = 16
)

// Check reports what is wrong with p whatever the file system, or nil: with
// exceptions that hold on some file systems only (CheckOn), what the kernel refuses
// when a policy is set. The error is a *FieldError.
func (p Policy) Check() error { return p.check(fmt.Sprintf("policy v%d", p.Version)) }

func (p Policy) check(of string) error {
	fail := func(field, format string, a ...any) error { return &FieldError{of, field, fmt.Sprintf(format, a...)} }
	known := PadMask | DirectKey | inoLblk
	if p.Version == 1 {
		known = PadMask | DirectKey
	}
	from, paired := pairs[[2]Mode{p.Contents, p.Names}]
	switch {
	case p.Version != 1 && p.Version != 2:
		return fail("version", "%d is unknown: 1 and 2 are", p.Version)
	case p.Key.Version != p.Version:
		return fail("master_key_identifier", "names the key of a v%d policy", p.Key.Version)
	case p.Version == 1 && [DescriptorSize]byte(p.Key.ID[DescriptorSize:]) != [DescriptorSize]byte{}:
		return fail("master_key_descriptor", "more than %d bytes", DescriptorSize)
	case modes[p.Contents].block == 0:
		return fail("contents_encryption_mode", "%v does not encrypt contents", p.Contents)
	case !paired:
		return fail("filenames_encryption_mode", "%v does not go with contents encrypted by %v", p.Names, p.Contents)
	case p.Version < from:
		return fail("filenames_encryption_mode", "%v with contents encrypted by %v needs a v%d policy", p.Names, p.Contents, from)
	case p.Flags&^known != 0:
		return fail("flags", "0x%02x: a v%d policy has no flags 0x%02x", uint8(p.Flags), p.Version, uint8(p.Flags&^known))
	case bits.OnesCount8(uint8(p.Flags&perModeKey)) > 1:
		return fail("flags", "0x%02x: %v exclude one another", uint8(p.Flags), p.Flags)
	case p.Flags&DirectKey != 0 && (p.Contents != p.Names || p.Contents.IVSize() < directIVSize):
		return fail("flags", "0x%02x: DIRECT_KEY needs one mode for both with IVs of %d bytes, which is Adiantum", uint8(p.Flags), directIVSize)
	case p.Flags&inoLblk != 0 && p.Contents != AES256XTS:
		return fail("flags", "0x%02x: %v needs contents encrypted by %v, not %v", uint8(p.Flags), p.Flags, AES256XTS, p.Contents)
	}
	switch n := p.Log2DataUnit; {
	case n == 0:
	case p.Version == 1:
		return fail("log2_data_unit_size", "%d: a v1 policy has none", n)
	case n < minUnitShift || n > maxUnitShift:
		return fail("log2_data_unit_size", "%d: must be 0 or %d to %d", n, minUnitShift, maxUnitShift)
	}
	return nil
}

// CheckOn is Check, and reports what is wrong with p on a file system. The error is
// a *FieldError where the policy is at fault.
func (p Policy) CheckOn(fs FileSystem) error {
	if err := fs.check(); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return err
	}
	fail := func(field, format string, a ...any) error {
		return &FieldError{fmt.Sprintf("policy v%d", p.Version), field, fmt.Sprintf(format, a...)}
	}
	unit := int(p.Log2DataUnit)
	switch block := fs.blockShift(); {
	case unit == 0:
		unit = block
	case unit > block:
		return fail("log2_data_unit_size", "%d: the file system has blocks of %d bytes", unit, fs.BlockSize)
	case !fs.SubBlockUnits:
		return fail("log2_data_unit_size", "%d: the file system has whole blocks as data units", unit)
	case unit != block && p.Flags&InoLblk32 != 0:
		// The numbers might begin anew in the middle of a block.
		return fail("log2_data_unit_size", "%d: IV_INO_LBLK_32 needs whole blocks of %d bytes as data units", unit, fs.BlockSize)
	}
	if p.Flags&inoLblk == 0 {
		return nil
	}
	switch {
	case !fs.StableInodes:
		return fail("flags", "0x%02x: %v needs a file system that never renumbers inodes (ext4: stable_inodes)", uint8(p.Flags), p.Flags)
	case !fs.ShortInodes:
		return fail("flags", "0x%02x: %v needs a file system with inode numbers of 32 bits", uint8(p.Flags), p.Flags)
	case fs.unitBits(unit) > 32:
		return fail("flags", "0x%02x: %v needs files of at most 2^32 data units, and they may have 2^%d", uint8(p.Flags), p.Flags, fs.unitBits(unit))
	}
	return nil
}

// CheckCasefold reports why the policy cannot be that of a casefolded directory,
// whose names have hashes that need a key.
func (p Policy) CheckCasefold() error {
	if p.Version == 1 {
		return &FieldError{"policy v1", "version", "a casefolded directory needs a v2 policy"}
	}
	return nil
}
