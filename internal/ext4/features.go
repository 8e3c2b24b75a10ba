package ext4

import "fmt"

// Features of which something depends here; those that change nothing for a reader
// have a name only.
const (
	compatJournal      = 0x4
	compatDirIndex     = 0x20
	compatSparseSuper2 = 0x200
	compatStableInodes = 0x800

	incompatFiletype   = 0x2
	incompatRecover    = 0x4
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompat64bit      = 0x80
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatSeed       = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64bit |
		incompatMMP | incompatFlexBG | incompatEAInode | incompatSeed | incompatLargeDir | incompatInlineData |
		incompatEncrypt | incompatCasefold

	roSparseSuper  = 0x1
	roHugeFile     = 0x8
	roGDTCsum      = 0x10
	roBigalloc     = 0x200
	roMetadataCsum = 0x400
	roVerity       = 0x8000
)

// Names of the bits of each word, as e2fsprogs prints them.
var (
	compatNames = []string{
		"dir_prealloc", "imagic_inodes", "has_journal", "ext_attr", "resize_inode", "dir_index", "lazy_bg", "",
		"snapshot", "sparse_super2", "fast_commit", "stable_inodes", "orphan_file",
	}
	incompatNames = []string{
		"compression", "filetype", "needs_recovery", "journal_dev", "meta_bg", "", "extent", "64bit", "mmp",
		"flex_bg", "ea_inode", "", "dirdata", "metadata_csum_seed", "large_dir", "inline_data", "encrypt", "casefold",
	}
	roNames = []string{
		"sparse_super", "large_file", "", "huge_file", "uninit_bg", "dir_nlink", "extra_isize", "snapshot_bitmap",
		"quota", "bigalloc", "metadata_csum", "replica", "read-only", "project", "shared_blocks", "verity", "orphan_present",
	}
)

// featureNames lists the bits of a word; one without a name is FEATURE_, the letter
// of its word, and its number.
func featureNames(bits uint32, names []string, letter byte) (out []string) {
	for n := range 32 {
		switch {
		case bits&(1<<n) == 0:
		case n < len(names) && names[n] != "":
			out = append(out, names[n])
		default:
			out = append(out, fmt.Sprintf("FEATURE_%c%d", letter, n))
		}
	}
	return out
}
