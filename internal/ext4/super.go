package ext4

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

const (
	superOffset = 1024 // bytes, on the device
	superSize   = 1024
	superMagic  = 0xef53
)

// super holds what is needed of the superblock.
type super struct {
	info
	compat, incompat, ro uint32

	blockSize   int
	blockBits   uint
	firstBlock  uint32 // of group 0
	blocks      uint64
	perGroup    uint32 // blocks
	inodes      uint32
	inodesPer   uint32 // group
	inodeSize   int
	firstInode  uint32 // that is not reserved
	groups      uint32
	descSize    int
	firstMetaBG uint32
	reservedGDT uint32
	backups     [2]uint32 // sparse_super2
	clusterBits uint      // blocks in a cluster, as power of two
	journal     uint32    // inode
	seed        uint32    // of checksums
	hashSeed    [4]uint32
	hashVersion byte
	hashSigned  bool
}

// info is what Info returns and nothing here uses.
type info struct {
	uuid     [16]byte
	label    string
	warnings []string
}

// Info describes a file system.
type Info struct {
	UUID        [16]byte
	Label       string
	BlockSize   int // bytes, 1024 to 65536
	Blocks      uint64
	Inodes      uint32
	InodeSize   int // bytes, 128 to the block size
	Groups      uint32
	Features    []string // as e2fsprogs names and orders them
	MaxFileSize int64    // bytes; fscrypt derives from it how many bytes a DUN has
	// StableInodes: inode numbers never change, so IV_INO_LBLK policies may use them.
	StableInodes bool
	Encrypt      bool     // there may be encrypted files
	Checksums    bool     // all metadata has checksums
	Warnings     []string // what e2fsck should look at; nothing that keeps files from being read
}

// Info returns what a user or fscrypt may want to know.
func (f *FS) Info() Info {
	features := featureNames(f.compat, compatNames, 'C')
	features = append(features, featureNames(f.incompat, incompatNames, 'I')...)
	features = append(features, featureNames(f.ro, roNames, 'R')...)
	return Info{
		UUID: f.uuid, Label: f.label, BlockSize: f.blockSize, Blocks: f.blocks, Inodes: f.inodes, InodeSize: f.inodeSize,
		Groups: f.groups, Features: features, MaxFileSize: f.maxFileSize(), Warnings: slices.Clone(f.warnings),
		StableInodes: f.compat&compatStableInodes != 0, Encrypt: f.incompat&incompatEncrypt != 0, Checksums: f.checksums(),
	}
}

func (s *super) checksums() bool { return s.ro&roMetadataCsum != 0 }

// maxFileSize is the size up to which Linux lets a file grow: 2³²-1 blocks, and
// without huge_file no more than can be counted in 2³²-1 sectors.
func (s *super) maxFileSize() int64 {
	n := int64(1<<32-1) << s.blockBits
	if s.ro&roHugeFile == 0 {
		n = min(n, (1<<32-1)>>(s.blockBits-9)<<s.blockBits)
	}
	return n
}

func (s *super) parse(b []byte, size int64) error {
	if le16(b, 0x38) != superMagic {
		return ErrNotExt4
	}
	if rev := le32(b, 0x4c); rev > 1 {
		return fmt.Errorf("revision %d: %w", rev, ErrUnsupported)
	} else if rev == 1 {
		s.compat, s.incompat, s.ro = le32(b, 0x5c), le32(b, 0x60), le32(b, 0x64)
		s.inodeSize, s.firstInode = int(le16(b, 0x58)), le32(b, 0x54)
	} else {
		s.inodeSize, s.firstInode = 128, 11
	}
	// Before the features: a damaged word should not look like a new feature. Whether
	// there is a checksum is among them, so a kind without which the sum is nothing decides.
	if s.checksums() {
		if kind := b[0x175]; kind != 1 {
			return fmt.Errorf("checksums of kind %d: %w", kind, ErrUnsupported)
		}
		if got, want := crc(^uint32(0), b[:0x3fc]), le32(b, 0x3fc); got != want {
			return damaged("checksum %08x, computed %08x", want, got)
		}
	}
	if unknown := s.incompat &^ incompatKnown; unknown != 0 {
		return fmt.Errorf("feature %s: %w", strings.Join(featureNames(unknown, incompatNames, 'I'), ", "), ErrUnsupported)
	}
	copy(s.uuid[:], b[0x68:])
	s.label = string(bytes.TrimRight(b[0x78:0x88], "\x00"))
	s.seed = crc(^uint32(0), s.uuid[:])
	if s.incompat&incompatSeed != 0 {
		s.seed = le32(b, 0x270)
	}
	if err := s.geometry(b, size); err != nil {
		return err
	}
	s.journal = le32(b, 0xe0)
	s.backups = [2]uint32{le32(b, 0x24c), le32(b, 0x250)}
	for i := range s.hashSeed {
		s.hashSeed[i] = le32(b, 0xec+4*i)
	}
	s.hashVersion = b[0xfc]
	s.hashSigned = le32(b, 0x160)&2 == 0
	state := le16(b, 0x3a)
	for _, w := range []struct {
		set  bool
		text string
	}{
		{state&1 == 0, "was not unmounted cleanly"},
		{state&2 != 0, "errors were found while it was mounted"},
		{le32(b, 0xe8) != 0, "files that were deleted while open are still there"},
		{s.incompat&incompatRecover != 0, "the journal was not replayed: metadata may be old"},
	} {
		if w.set {
			s.warnings = append(s.warnings, w.text)
		}
	}
	return nil
}

// geometry takes and checks sizes and counts.
func (s *super) geometry(b []byte, size int64) error {
	logBlock := le32(b, 0x18)
	if logBlock > 6 {
		return damaged("block size 2^(10+%d) is not 1024 to 65536", logBlock)
	}
	s.blockBits = uint(10 + logBlock)
	s.blockSize = 1 << s.blockBits
	logCluster := le32(b, 0x1c)
	clusters := le32(b, 0x24)
	if s.ro&roBigalloc == 0 {
		logCluster = logBlock
	} else if logCluster < logBlock || logCluster > 20 {
		return damaged("cluster size 2^(10+%d) with blocks of 2^(10+%d)", logCluster, logBlock)
	}
	s.clusterBits = uint(logCluster - logBlock)

	s.inodes, s.firstBlock = le32(b, 0), le32(b, 0x14)
	s.blocks = uint64(le32(b, 4))
	s.descSize = 32
	if s.incompat&incompat64bit != 0 {
		s.blocks = wide(le32(b, 4), le32(b, 0x150))
		s.descSize = int(le16(b, 0xfe))
		if s.descSize < 64 || s.descSize > s.blockSize || bits.OnesCount(uint(s.descSize)) != 1 {
			return damaged("group descriptors of %d bytes", s.descSize)
		}
	}
	if want := uint32(1024 >> s.blockBits); s.firstBlock != want && (s.firstBlock != 0 || s.clusterBits == 0) {
		return damaged("first block %d with blocks of %d bytes", s.firstBlock, s.blockSize)
	}
	if s.blocks <= uint64(s.firstBlock)+1 || s.blocks > uint64(size)>>s.blockBits {
		return damaged("%d blocks of %d bytes on a device of %d bytes: is it whole?", s.blocks, s.blockSize, size)
	}
	s.perGroup, s.inodesPer = le32(b, 0x20), le32(b, 0x28)
	if s.ro&roBigalloc == 0 {
		clusters = s.perGroup
	}
	if s.perGroup < 256 || s.perGroup%8 != 0 || uint64(clusters) > uint64(8*s.blockSize) ||
		uint64(clusters)<<s.clusterBits != uint64(s.perGroup) {
		return damaged("%d blocks, %d clusters in a group", s.perGroup, clusters)
	}
	if s.inodeSize < 128 || s.inodeSize > s.blockSize || bits.OnesCount(uint(s.inodeSize)) != 1 {
		return damaged("inodes of %d bytes", s.inodeSize)
	}
	if s.inodesPer < uint32(s.blockSize/s.inodeSize) || s.inodesPer > uint32(8*s.blockSize) {
		return damaged("%d inodes in a group", s.inodesPer)
	}
	groups := (s.blocks - uint64(s.firstBlock) + uint64(s.perGroup) - 1) / uint64(s.perGroup)
	if groups*uint64(s.inodesPer) != uint64(s.inodes) {
		return damaged("%d inodes, not %d in each of %d groups", s.inodes, s.inodesPer, groups)
	}
	s.groups = uint32(groups)
	if s.firstInode < 11 || s.firstInode > s.inodes {
		return damaged("first inode %d of %d", s.firstInode, s.inodes)
	}
	s.firstMetaBG, s.reservedGDT = le32(b, 0x104), uint32(le16(b, 0xce))
	if s.incompat&incompatMetaBG != 0 && uint64(s.firstMetaBG) > uint64(s.descBlocks()) {
		return damaged("first meta block group %d", s.firstMetaBG)
	}
	if s.reservedGDT > uint32(s.blockSize/4) {
		return damaged("%d blocks kept for group descriptors", s.reservedGDT)
	}
	return nil
}
