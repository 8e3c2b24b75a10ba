package ext4_test

// The rules of the format, and how each is broken: see TestDamage.

// in is a change of the superblock, sealed.
func in(change func(e *editor)) func(*editor) {
	return func(e *editor) { change(e); e.sealSuper() }
}

func sb32(off int, v uint32) func(*editor) { return in(func(e *editor) { e.put32(super+off, v) }) }
func sb16(off int, v uint16) func(*editor) { return in(func(e *editor) { e.put16(super+off, v) }) }
func sbOr(off int, v uint32) func(*editor) { return in(func(e *editor) { e.or32(super+off, v) }) }

var superRules = []rule{
	{name: "magic", change: sb16(0x38, 0xef54), want: "no ext2, ext3 or ext4"},
	{name: "checksum", change: func(e *editor) { e.flip(super + 0x78) }, want: "superblock: checksum"},
	{name: "kind of checksum", change: in(func(e *editor) { e.put(super+0x175, 2) }), want: "checksums of kind 2"},
	{name: "revision", change: sb32(0x4c, 2), want: "revision 2"},
	{name: "compression", change: sbOr(0x60, 1), want: "feature compression"},
	{name: "journal device", change: sbOr(0x60, 8), want: "feature journal_dev"},
	{name: "dirdata", change: sbOr(0x60, 0x1000), want: "feature dirdata"},
	{name: "unknown features", change: sbOr(0x60, 0x80000020), want: "feature FEATURE_I5, FEATURE_I31"},
	{name: "needs recovery", change: sbOr(0x60, 4), want: "journal was not replayed"},
	{name: "block size", change: sb32(0x18, 7), want: "block size"},
	{name: "largest block size", change: sb32(0x18, ^uint32(0)), want: "block size"},
	{name: "other block size", change: sb32(0x18, 2), want: "first block 1 with blocks of 4096"},
	{name: "first block 0", change: sb32(0x14, 0), want: "first block 0"},
	{name: "first block 2", change: sb32(0x14, 2), want: "first block 2"},
	{name: "no blocks", change: sb32(4, 0), want: "is it whole"},
	{name: "blocks beyond", change: sb32(4, 50000), want: "is it whole"},
	{name: "many blocks", change: sb32(0x150, ^uint32(0)), want: "is it whole"},
	{name: "blocks in no group", change: sb32(0x20, 0), want: "0 blocks, 0 clusters"},
	{name: "few blocks in a group", change: sb32(0x20, 128), want: "128 blocks"},
	{name: "odd blocks in a group", change: sb32(0x20, 8191), want: "8191 blocks"},
	{name: "many blocks in a group", change: sb32(0x20, 1<<31), want: "blocks, "},
	{name: "inodes in no group", change: sb32(0x28, 0), want: "0 inodes in a group"},
	{name: "many inodes in a group", change: sb32(0x28, ^uint32(0)), want: "inodes in a group"},
	{name: "inodes in all groups", change: in(func(e *editor) { e.put32(super, e.get32(super)+1) }), want: "inodes, not"},
	{name: "inode size 0", change: sb16(0x58, 0), want: "inodes of 0 bytes"},
	{name: "inode size 192", change: sb16(0x58, 192), want: "inodes of 192 bytes"},
	{name: "inode size 32768", change: sb16(0x58, 32768), want: "inodes of 32768 bytes"},
	{name: "descriptors of 32 bytes", change: sb16(0xfe, 32), want: "group descriptors of 32"},
	{name: "descriptors of 96 bytes", change: sb16(0xfe, 96), want: "group descriptors of 96"},
	{name: "descriptors of 2048 bytes", change: sb16(0xfe, 2048), want: "group descriptors of 2048"},
	{name: "first inode 2", change: sb32(0x54, 2), want: "first inode 2"},
	{name: "first inode beyond", change: sb32(0x54, ^uint32(0)), want: "first inode"},
	{name: "blocks kept", change: sb16(0xce, 65535), want: "blocks kept"},
	{name: "meta block groups", change: in(func(e *editor) { e.or32(super+0x60, 0x10); e.put32(super+0x104, 1000) }), want: "first meta block group"},
	{name: "journal is a file", change: sb32(0xe0, 12), want: "journal: inode 12 is not a reserved"},
	{name: "journal is another inode", change: sb32(0xe0, 1), want: "journal: "},
	{name: "metadata_csum taken away", change: in(func(e *editor) { e.put32(super+0x64, e.get32(super+0x64)&^0x400|0x10) }), want: "group descriptor 0: checksum"},
	{name: "extents taken away", change: in(func(e *editor) { e.put32(super+0x60, e.get32(super+0x60)&^0x40) }), want: "mapped by extents, a feature"},
	{name: "inline data taken away", change: in(func(e *editor) { e.put32(super+0x60, e.get32(super+0x60)&^0x8000) }), want: "inline data, a feature"},
	{name: "ea_inode taken away", change: in(func(e *editor) { e.put32(super+0x60, e.get32(super+0x60)&^0x400) }), want: "has no ea_inode"},
	{name: "another seed", change: in(func(e *editor) { e.put(super+0x68, 1, 2, 3) }), want: "checksum"},
}

// group is a change of a descriptor, sealed.
func group(n int, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) { change(e, e.desc(n)); e.sealDesc(n) }
}

var groupRules = []rule{
	{name: "checksum", change: func(e *editor) { e.flip(e.desc(0) + 0x0c) }, want: "group descriptor 0: checksum"},
	{name: "no inode table", change: group(0, func(e *editor, at int) { e.put32(at+8, 0) }), want: "inode table at block 0"},
	{name: "inode table on the superblock", change: group(0, func(e *editor, at int) { e.put32(at+8, 1) }), want: "inode table at block 1 "},
	{name: "inode table at the end", change: group(0, func(e *editor, at int) { e.put32(at+8, 49151) }), want: "inode table at block 49151"},
	{name: "inode table far away", change: group(1, func(e *editor, at int) { e.put32(at+0x28, 1<<20) }), want: "is outside of the file system"},
	{name: "block bitmap outside", change: group(1, func(e *editor, at int) { e.put32(at, ^uint32(0)) }), want: "block bitmap"},
	{name: "one block for two bitmaps", change: group(1, func(e *editor, at int) { e.put32(at+4, e.get32(at)) }), want: "has two uses"},
	{name: "one inode table for two groups", change: group(1, func(e *editor, at int) { e.put32(at+8, e.get32(e.desc(0)+8)) }), want: "has two uses"},
	{name: "more unused inodes than there are", change: group(0, func(e *editor, at int) { e.put16(at+0x1c, 65535) }), want: "are unused"},
	{name: "inodes never written", change: group(0, func(e *editor, at int) { e.put16(at+0x12, uint16(e.get16(at+0x12)|1)) }), want: "inode 2: inode is not in use"},
	{name: "inodes unused", change: group(0, func(e *editor, at int) { e.put16(at+0x1c, uint16(e.get32(super+0x28)-14)) }), want: "inode is not in use"},
}

// inode is a change of the inode of a file, sealed.
func inode(name string, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, at := e.file(name)
		change(e, at-0x28)
		e.sealInode(n)
	}
}

func flags(name string, set uint32) func(*editor) {
	return inode(name, func(e *editor, at int) { e.or32(at+0x20, set) })
}

var inodeRules = []rule{
	{name: "checksum", change: func(e *editor) { _, at := e.file("f4096"); e.flip(at - 0x28 + 2) }, want: "checksum"},
	{name: "upper half of the checksum", change: func(e *editor) { _, at := e.file("f4096"); e.flip(at - 0x28 + 0x82) }, want: "checksum"},
	{name: "no type", change: inode("f4096", func(e *editor, at int) { e.put16(at, 0o644) }), want: "has no type"},
	{name: "unknown type", change: inode("f4096", func(e *editor, at int) { e.put16(at, 0x3000) }), want: "has no type"},
	{name: "another type", change: inode("f4096", func(e *editor, at int) { e.put16(at, 0x1000) }), want: "a regular file, and inode"},
	{name: "no links", change: inode("f4096", func(e *editor, at int) { e.put16(at+0x1a, 0) }), want: "not in use"},
	{name: "extra fields", change: inode("f4096", func(e *editor, at int) { e.put16(at+0x80, 132) }), want: "132 bytes of extra fields"},
	{name: "odd extra fields", change: inode("f4096", func(e *editor, at int) { e.put16(at+0x80, 30) }), want: "30 bytes of extra fields"},
	{name: "many extra fields", change: inode("f4096", func(e *editor, at int) { e.put16(at+0x80, 65532) }), want: "65532 bytes of extra fields"},
	{name: "size", change: inode("f4096", func(e *editor, at int) { e.put32(at+0x6c, 1<<31) }), want: "a size of"},
	{name: "size past what blocks can number", change: inode("f4096", func(e *editor, at int) { e.put32(at+0x6c, 1<<10) }), want: "a size of"},
	{name: "encrypted", change: flags("f4096", 0x800), want: "is encrypted, a feature"},
	{name: "casefolded", change: flags("one", 0x40000000), want: "is casefolded, a feature"},
	{name: "verity", change: flags("f4096", 0x100000), want: "is verity, a feature"},
	{name: "inline data and extents", change: flags("f4096", 0x10000000), want: "inline data together"},
	{name: "an attribute's inode", change: flags("f4096", 0x200000), want: "holds an extended attribute, not a file"},
	{name: "attributes outside", change: inode("f4096", func(e *editor, at int) { e.put32(at+0x68, 60000) }), want: "attributes: block 60000"},
	{name: "attributes far outside", change: inode("f4096", func(e *editor, at int) { e.put16(at+0x76, 65535) }), want: "attributes: block"},
	{name: "empty directory", change: inode("one", func(e *editor, at int) { e.put32(at+4, 0) }), want: "a directory of 0 bytes"},
	{name: "part of a block", change: inode("one", func(e *editor, at int) { e.put32(at+4, 1000) }), want: "a directory of 1000 bytes"},
	{name: "large directory", change: inode("one", func(e *editor, at int) { e.put32(at+4, 4096) }), want: "is a hole"},
	{name: "an index that is not there", change: flags("one", 0x1000), want: "index: root", own: "/one"},
	{name: "empty link", change: inode("link58", func(e *editor, at int) { e.put32(at+4, 0) }), want: "symbolic link of 0 bytes"},
	{name: "long link", change: inode("link500", func(e *editor, at int) { e.put32(at+4, 1025) }), want: "symbolic link of 1025"},
	{name: "zero in a link", change: inode("link58", func(e *editor, at int) { e.put(at+0x28+5, 0) }), want: "target with a zero byte"},
	{name: "inline data without its attribute", change: inode("f100", func(e *editor, at int) { e.put(at+0x28+60+0x1c+0x1c+4+1+4+15, 'x'); e.put(attrOf(e, at)+16, 'x') }), want: "inline data: attribute"},
	{name: "inline directory's parent", change: inode("few", func(e *editor, at int) { e.put32(at+0x28, 7) }), want: "the parent is inode 7"},
	{name: "inline directory's other parent", change: inode("few", func(e *editor, at int) { e.put32(at+0x28, 11) }), want: "\"..\" is inode 11"},
	{name: "inline directory's entry", change: inode("few", func(e *editor, at int) { e.put16(at+0x28+8, 0) }), want: "an entry of 0 bytes"},
	{name: "inline directory's length", change: inode("few", func(e *editor, at int) { e.put32(at+4, 30) }), want: "a directory of 30 bytes"},
	{name: "inline directory's size", change: inode("few", func(e *editor, at int) { e.put32(at+4, 3000) }), want: "bytes of 3000"},
}

// attrOf is where the first attribute in an inode begins.
func attrOf(e *editor, at int) int { return at + 128 + e.get16(at+0x80) + 4 }

// root is a change of the root of the extents of a file, sealed.
func root(name string, change func(e *editor, at int)) func(*editor) {
	return inode(name, func(e *editor, at int) { change(e, at+0x28) })
}

// node is a change of the block of extents that an entry of the root of fragments
// names, sealed; leaf of the one that its first entry names.
func node(entry int, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, at := e.file("fragments")
		b := int(e.get32(at+12*(entry+1)+4)) * block
		change(e, b)
		e.sealNode(n, b)
	}
}

func leaf(change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, at := e.file("fragments")
		b := int(e.get32(at+12+4)) * block
		for e.get16(b+6) > 0 {
			b = int(e.get32(b+12+4)) * block
		}
		change(e, b)
		e.sealNode(n, b)
	}
}

var extentRules = []rule{
	{name: "magic", change: root("f4096", func(e *editor, at int) { e.put16(at, 0) }), want: "root: magic 0000"},
	{name: "depth", change: root("fragments", func(e *editor, at int) { e.put16(at+6, 6) }), want: "depth 6"},
	{name: "no depth", change: root("fragments", func(e *editor, at int) { e.put16(at+6, 0) }), want: "extent tree: root"},
	{name: "entries", change: root("f4096", func(e *editor, at int) { e.put16(at+2, 5) }), want: "5 entries of 4"},
	{name: "room", change: root("f4096", func(e *editor, at int) { e.put16(at+4, 5) }), want: "entries of 5, 4 fit"},
	{name: "no room", change: root("f4096", func(e *editor, at int) { e.put16(at+4, 0) }), want: "of 0, 4 fit"},
	{name: "no extents below", change: root("fragments", func(e *editor, at int) { e.put16(at+2, 0) }), want: "is empty"},
	{name: "no blocks", change: root("f4096", func(e *editor, at int) { e.put16(at+16, 0) }), want: "an extent of no blocks"},
	{name: "block 0", change: root("f4096", func(e *editor, at int) { e.put32(at+20, 0) }), want: "blocks 0 to"},
	{name: "superblock", change: root("f4096", func(e *editor, at int) { e.put32(at+20, 1) }), want: "blocks 1 to"},
	{name: "outside", change: root("f4096", func(e *editor, at int) { e.put32(at+20, 49150) }), want: "are not of the file system"},
	{name: "far outside", change: root("f4096", func(e *editor, at int) { e.put16(at+18, 65535) }), want: "are not of the file system"},
	{name: "group descriptors", change: root("f4096", func(e *editor, at int) { e.put32(at+20, 2) }), want: "hold metadata"},
	{name: "inode table", change: root("f4096", func(e *editor, at int) { e.put32(at+20, e.get32(e.desc(0)+8)+3) }), want: "hold metadata"},
	{name: "last block of the inode table", change: root("f1025", func(e *editor, at int) {
		e.put32(at+20, e.get32(e.desc(5)+8)+e.get32(super+0x28)/4-1) // data follows that of the last group
	}), want: "hold metadata"},
	{name: "bitmap", change: root("f4096", func(e *editor, at int) { e.put32(at+20, e.get32(e.desc(2)+4)-1) }), want: "hold metadata"},
	{name: "into a copy of the superblock", change: root("f4096", func(e *editor, at int) { e.put32(at+20, 8191) }), want: "blocks 8191 to 8194 hold metadata"},
	{name: "journal", change: root("f4096", func(e *editor, at int) { e.put32(at+20, uint32(journal(e))) }), want: "hold metadata"},
	{name: "behind the last block", change: root("f4096", func(e *editor, at int) { e.put32(at+12, ^uint32(0)-1) }), want: "is not before block"},
	{name: "overlap", change: leaf(func(e *editor, at int) { e.put16(at+16, 9) }), want: "is not behind that before it"},
	{name: "order", change: leaf(func(e *editor, at int) { e.put32(at+24, 0) }), want: "is not behind that before it"},
	{name: "leaf begins elsewhere", change: leaf(func(e *editor, at int) { e.put32(at+12, 1) }), want: "begins with block 1, not 0"},
	{name: "leaf passes its end", change: leaf(func(e *editor, at int) { e.put16(at+12*e.get16(at+2)+4, 30000) }), want: "is not before block"},
	{name: "leaf is empty", change: leaf(func(e *editor, at int) { e.put16(at+2, 0) }), want: "is empty"},
	{name: "leaf's entries", change: leaf(func(e *editor, at int) { e.put16(at+2, 85) }), want: "85 entries of"},
	{name: "leaf's room", change: leaf(func(e *editor, at int) { e.put16(at+4, 85) }), want: "of 85, 84 fit"},
	{name: "leaf's magic", change: leaf(func(e *editor, at int) { e.put16(at, 0xf30b) }), want: "magic f30b"},
	{name: "leaf's depth", change: leaf(func(e *editor, at int) { e.put16(at+6, 1) }), want: "depth 1, not 0"},
	{name: "node's checksum", change: func(e *editor) {
		leaf(func(*editor, int) {})(e)
		_, at := e.file("fragments")
		e.flip(int(e.get32(at+16))*block + 20)
	}, want: "checksum"},
	{name: "node is its own child", change: node(0, func(e *editor, at int) { e.put32(at+16, uint32(at/block)) }), want: "extent tree: block"},
	{name: "node outside", change: root("fragments", func(e *editor, at int) { e.put32(at+16, 60000) }), want: "are not of the file system"},
	{name: "node far outside", change: root("fragments", func(e *editor, at int) { e.put16(at+20, 1) }), want: "are not of the file system"},
	{name: "node is an inode table", change: root("fragments", func(e *editor, at int) { e.put32(at+16, e.get32(e.desc(0)+8)) }), want: "hold metadata"},
	{name: "node is data", change: root("fragments", func(e *editor, at int) { n, _ := e.file("f70000"); e.put32(at+16, uint32(e.at(n, 0)/block)) }), want: "extent tree: block"},
}

func journal(e *editor) int {
	at := e.inode(8) + 0x28
	return int(e.get32(at+20)) + 1
}

// names is a change of a block with names, sealed; at is that of an entry.
func names(entry int, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, _ := e.file("one")
		b := e.at(n, 0)
		at := b
		for range entry {
			at += e.get16(at + 4)
		}
		change(e, at)
		e.sealLeaf(n, b)
	}
}

var dirRules = []rule{
	{name: "checksum", change: func(e *editor) { n, _ := e.file("one"); e.flip(e.at(n, 0) + 40) }, want: "checksum"},
	{name: "no checksum", change: func(e *editor) { n, _ := e.file("one"); e.put(e.at(n, 0)+block-5, 0) }, want: "has no checksum"},
	{name: "entry of 0 bytes", change: names(3, func(e *editor, at int) { e.put16(at+4, 0) }), want: "an entry of 0 bytes"},
	{name: "entry of 8 bytes", change: names(3, func(e *editor, at int) { e.put16(at+4, 8) }), want: "an entry of 8 bytes"},
	{name: "entry of 22 bytes", change: names(3, func(e *editor, at int) { e.put16(at+4, 22) }), want: "an entry of 22 bytes"},
	{name: "entry past the end", change: names(3, func(e *editor, at int) { e.put16(at+4, 1024) }), want: "an entry of 1024 bytes"},
	{name: "entry into the tail", change: names(2, func(e *editor, at int) { e.put16(at+4, block-24) }), want: "an entry of 1000 bytes"},
	{name: "long name", change: names(3, func(e *editor, at int) { e.put(at+6, 255) }), want: "a name of 255 bytes"},
	{name: "no name", change: names(3, func(e *editor, at int) { e.put(at+6, 0) }), want: "without a name"},
	{name: "inode outside", change: names(3, func(e *editor, at int) { e.put32(at, 5000000) }), want: "inode 5000000 is not one of a file"},
	{name: "reserved inode", change: names(3, func(e *editor, at int) { e.put32(at, 8) }), want: "inode 8 is not one of a file"},
	{name: "unused inode", change: names(3, func(e *editor, at int) { e.put32(at, e.get32(super)) }), want: "not in use"},
	{name: "type", change: names(3, func(e *editor, at int) { e.put(at+7, 8) }), want: "of type 8"},
	{name: "another type", change: names(3, func(e *editor, at int) { e.put(at+7, 1) }), want: "a regular file, and inode"},
	{name: "slash", change: names(3, func(e *editor, at int) { e.put(at+9, '/') }), want: "cannot be"},
	{name: "zero in a name", change: names(3, func(e *editor, at int) { e.put(at+9, 0) }), want: "cannot be"},
	{name: "second dot", change: names(3, func(e *editor, at int) { e.put(at+6, 1); e.put(at+8, '.') }), want: "a second entry \".\""},
	{name: "no dot", change: names(0, func(e *editor, at int) { e.put(at+8, 'x') }), want: "is not the entry \".\""},
	{name: "dot elsewhere", change: names(0, func(e *editor, at int) { e.put32(at, 2) }), want: "\".\" is inode 2"},
	{name: "no dots", change: names(1, func(e *editor, at int) { e.put32(at, 0) }), want: "is not the entry \"..\""},
	{name: "dots elsewhere", change: names(1, func(e *editor, at int) { e.put32(at, 11) }), want: "\"..\" is inode 11"},
	{name: "directory with two names", change: names(3, func(e *editor, at int) { n, _ := e.file("d1"); e.put32(at, n); e.put(at+7, 2) }), want: "another name", own: "/one/" + manyName(1)},
	{name: "directory within itself", change: names(3, func(e *editor, at int) { n, _ := e.file("one"); e.put32(at, n); e.put(at+7, 2) }), want: "another name", own: "/one/" + manyName(1)},
	{name: "root within", change: names(3, func(e *editor, at int) { e.put32(at, 2); e.put(at+7, 2) }), want: "another name", own: "/one/" + manyName(1)},
	{name: "one block twice", change: func(e *editor) {
		n, at := e.file("lost+found")
		b := uint32(e.at(n, 0) / block)
		e.put32(at-0x28+4, 2*block)
		e.put16(at+2, 2)
		e.put(at+12, 0, 0, 0, 0, 1, 0, 0, 0)
		e.put32(at+20, b)
		e.put(at+24, 1, 0, 0, 0, 1, 0, 0, 0)
		e.put32(at+32, b)
		e.sealInode(n)
	}, want: "for the second time"},
}

// index is a change of the root of the index of a large directory, and below of its
// first node, sealed.
func index(change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, _ := e.file("many")
		at := e.at(n, 0)
		change(e, at)
		e.sealIndex(n, at, 32)
	}
}

func below(change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		n, _ := e.file("many")
		at := e.at(n, uint64(e.get32(e.at(n, 0)+36)))
		change(e, at)
		e.sealIndex(n, at, 8)
	}
}

var indexRules = []rule{
	{name: "header", change: index(func(e *editor, at int) { e.put32(at+24, 1) }), want: "root: header"},
	{name: "hash", change: index(func(e *editor, at int) { e.put(at+28, 3) }), want: "hash of kind 3"},
	{name: "hash of encrypted and casefolded", change: index(func(e *editor, at int) { e.put(at+28, 6) }), want: "hash of kind 6"},
	{name: "length of the header", change: index(func(e *editor, at int) { e.put(at+29, 9) }), want: "root: header"},
	{name: "levels", change: index(func(e *editor, at int) { e.put(at+30, 2) }), want: "3 levels"},
	{name: "flags", change: index(func(e *editor, at int) { e.put(at+31, 1) }), want: "root: header"},
	{name: "limit", change: index(func(e *editor, at int) { e.put16(at+32, 124) }), want: "entries of 124, 123 fit"},
	{name: "no entries", change: index(func(e *editor, at int) { e.put16(at+34, 0) }), want: "0 entries"},
	{name: "many entries", change: index(func(e *editor, at int) { e.put16(at+34, 124) }), want: "124 entries"},
	{name: "checksum", change: func(e *editor) { n, _ := e.file("many"); e.flip(e.at(n, 0) + 36) }, want: "index: root: checksum"},
	{name: "block outside", change: index(func(e *editor, at int) { e.put32(at+36, 9999) }), want: "block 9999 of"},
	{name: "loop", change: index(func(e *editor, at int) { e.put32(at+36, 0) }), want: "block 0 for the second time"},
	{name: "a node twice", change: index(func(e *editor, at int) { e.put32(at+44, e.get32(at+36)) }), want: "for the second time"},
	{name: "a block of names is no node", change: index(func(e *editor, at int) { e.put32(at+36, 1) }), want: "is not a node"},
	{name: "hashes", change: below(func(e *editor, at int) { e.put32(at+16, ^uint32(0)) }), want: "are not between"},
	{name: "a node's limit", change: below(func(e *editor, at int) { e.put16(at+8, 100) }), want: "entries of 100, 126 fit"},
	{name: "a node's count", change: below(func(e *editor, at int) { e.put16(at+10, 0) }), want: "0 entries"},
	{name: "a node's checksum", change: func(e *editor) {
		below(func(*editor, int) {})(e)
		n, _ := e.file("many")
		e.flip(e.at(n, uint64(e.get32(e.at(n, 0)+36))) + 12)
	}, want: "checksum"},
	{name: "a leaf that is the root", change: below(func(e *editor, at int) { e.put32(at+12, 0) }), want: "block 0 for the second time"},
	{name: "a leaf outside", change: below(func(e *editor, at int) { e.put32(at+12, 0x0fffffff) }), want: "block 268435455 of"},
	{name: "dots in the root", change: index(func(e *editor, at int) { e.put16(at+16, 500) }), want: "second entry ends"},
}

// attrs is a change of the block with attributes, sealed; entry the place of one.
func attrs(entry int, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) {
		_, at := e.file("f70000")
		b := int(e.get32(at-0x28+0x68)) * block
		p := b + 32
		for range entry {
			p += 16 + (int(e.img[p])+3)&^3
		}
		if entry < 0 {
			p = b
		}
		change(e, p)
		e.sealAttrs(b)
	}
}

// big is the place of the entry of an attribute with an inode of its own.
func big(e *editor) (entry int, value uint32) {
	_, at := e.file("f1025")
	at -= 0x28
	for p := attrOf(e, at); e.get32(p) != 0; p += 16 + (int(e.img[p])+3)&^3 {
		if v := e.get32(p + 4); v != 0 {
			return p, v
		}
	}
	e.t.Fatal("no attribute with an inode")
	return 0, 0
}

func bigRule(change func(e *editor, entry int, value uint32)) func(*editor) {
	return func(e *editor) {
		p, v := big(e)
		n, _ := e.file("f1025")
		change(e, p, v)
		e.sealInode(n)
		e.sealInode(v)
	}
}

var attrRules = []rule{
	{name: "checksum", change: func(e *editor) { _, at := e.file("f70000"); e.flip(int(e.get32(at-0x28+0x68))*block + 60) }, want: "attributes: block"},
	{name: "magic", change: attrs(-1, func(e *editor, at int) { e.put32(at, 0) }), want: "magic 00000000"},
	{name: "blocks", change: attrs(-1, func(e *editor, at int) { e.put32(at+8, 2) }), want: "2 blocks"},
	{name: "inode table", change: inode("f70000", func(e *editor, at int) { e.put32(at+0x68, e.get32(e.desc(0)+8)) }), want: "hold metadata"},
	{name: "no end", change: attrs(0, func(e *editor, at int) {
		for p := at; p < at&^(block-1)+block; p += 20 { // names up to the end of the block
			e.put(p, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		}
	}), want: "attributes: block"},
	{name: "long name", change: attrs(1, func(e *editor, at int) { e.put(at, 255) }), want: "attributes: block"},
	{name: "value outside", change: attrs(0, func(e *editor, at int) { e.put16(at+2, 1020) }), want: "at byte 1020"},
	{name: "value over names", change: attrs(0, func(e *editor, at int) { e.put16(at+2, 40) }), want: "at byte 40"},
	{name: "value of 2 GiB", change: attrs(0, func(e *editor, at int) { e.put32(at+8, 1<<31) }), want: "a value of 2147483648 bytes"},
	{name: "value of 8 MiB", change: attrs(0, func(e *editor, at int) { e.put32(at+8, 1<<23) }), want: "a value of 8388608 bytes"},
	{name: "twice", change: attrs(1, func(e *editor, at int) { e.put(at+16, e.img[at-4:][:1]...) }), want: "is there twice"},
	{name: "zero in a name", change: attrs(0, func(e *editor, at int) { e.put(at+16, 0) }), want: "zero byte"},
	{name: "value outside of the inode", change: inode("f100", func(e *editor, at int) { e.put16(attrOf(e, at)+2, 2000) }), want: "attributes: in the inode"},
	{name: "no end in the inode", change: inode("f100", func(e *editor, at int) { e.put(attrOf(e, at), 250) }), want: "attributes: in the inode"},
	{name: "inode outside", change: bigRule(func(e *editor, p int, _ uint32) { e.put32(p+4, 1<<30) }), want: "inode 1073741824 is not one of a file"},
	{name: "reserved inode", change: bigRule(func(e *editor, p int, _ uint32) { e.put32(p+4, 2) }), want: "inode 2 is not one of a file"},
	{name: "inode of a file", change: bigRule(func(e *editor, p int, _ uint32) { n, _ := e.file("f4096"); e.put32(p+4, n) }), want: "holds no attribute"},
	{name: "unused inode", change: bigRule(func(e *editor, p int, _ uint32) { e.put32(p+4, e.get32(super)) }), want: "not in use"},
	{name: "size", change: bigRule(func(e *editor, p int, _ uint32) { e.put32(p+8, 1<<24) }), want: "not 16777216"},
	{name: "size of both", change: bigRule(func(e *editor, p int, v uint32) { e.put32(p+8, 70000); e.put32(e.inode(v)+4, 70000) }), want: "hash"},
	{name: "hash", change: bigRule(func(e *editor, p int, v uint32) { e.flip(int(e.get32(e.inode(v)+0x28+20)) * block) }), want: "hash"},
}

// pointer is a change of the block map of a file.
func pointer(name string, change func(e *editor, at int)) func(*editor) {
	return func(e *editor) { _, at := e.file(name); change(e, at) }
}

var pointerRules = []rule{
	{name: "outside", change: pointer("f4096", func(e *editor, at int) { e.put32(at, 60000) }), want: "block map: block 0 of the file: blocks 60000"},
	{name: "superblock", change: pointer("f4096", func(e *editor, at int) { e.put32(at+4, 1) }), want: "block map: block 1 of the file"},
	{name: "inode table", change: pointer("f4096", func(e *editor, at int) { e.put32(at+8, e.get32(e.desc(0)+8)) }), want: "hold metadata"},
	{name: "tree outside", change: pointer("f70000", func(e *editor, at int) { e.put32(at+48, ^uint32(0)) }), want: "block map: block 12"},
	{name: "in the tree", change: pointer("f70000", func(e *editor, at int) { e.put32(int(e.get32(at+48))*block+8, 60000) }), want: "block map: block 14"},
	{name: "three levels", change: pointer("sparse", func(e *editor, at int) { e.put32(at+56, e.get32(e.desc(0)+8)) }), want: "hold metadata"},
	{name: "size", change: pointer("sparse", func(e *editor, at int) { e.put32(at-0x28+0x6c, 100) }), want: "more than its block map can hold"},
	{name: "hole in a directory", change: pointer("one", func(e *editor, at int) { e.put32(at, 0) }), want: "is a hole"},
	{name: "one block twice", change: pointer("lost+found", func(e *editor, at int) { e.put32(at+4, e.get32(at)) }), want: "for the second time"},
	{name: "entry", change: pointer("one", func(e *editor, at int) { e.put16(int(e.get32(at))*block+4, 0) }), want: "an entry of 0 bytes"},
}
