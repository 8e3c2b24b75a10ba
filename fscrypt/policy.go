package fscrypt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Sizes on disk and in ioctls, in bytes.
const (
	PolicyV1Size  = 12
	PolicyV2Size  = 24
	ContextV1Size = 28
	ContextV2Size = 40

	DescriptorSize = 8
	IdentifierSize = 16
	NonceSize      = 16
)

// Flags of a policy.
type Flags uint8

const (
	// PadMask are the bits that say to which multiple names are padded: 4, 8, 16 or
	// 32 bytes for 0 to 3.
	PadMask Flags = 0x03
	// DirectKey: one key for all files, which put their nonces into the IVs.
	DirectKey Flags = 0x04
	// InoLblk64: one key for all files of a file system; IVs are made of the inode
	// number and the data unit's.
	InoLblk64 Flags = 0x08
	// InoLblk32: as InoLblk64, with a hash of the inode number added to the data
	// unit's, modulo 2^32.
	InoLblk32 Flags = 0x10

	perModeKey = DirectKey | InoLblk64 | InoLblk32
	inoLblk    = InoLblk64 | InoLblk32
)

// Padding is the multiple that names are padded to, in bytes.
func (f Flags) Padding() int { return 4 << (f & PadMask) }

// String names the flags but the padding's, joined by a bar: "IV_INO_LBLK_64".
func (f Flags) String() string {
	var s []string
	for _, n := range []struct {
		bit  Flags
		name string
	}{{DirectKey, "DIRECT_KEY"}, {InoLblk64, "IV_INO_LBLK_64"}, {InoLblk32, "IV_INO_LBLK_32"}} {
		if f&n.bit != 0 {
			s = append(s, n.name)
			f &^= n.bit
		}
	}
	if f &^= PadMask; f != 0 {
		s = append(s, fmt.Sprintf("0x%02x", uint8(f)))
	}
	return strings.Join(s, "|")
}

// A Policy says how the files below a directory are encrypted, and with which master
// key. Policies are compared with ==: a file whose policy is not that of its
// directory has been put there from outside (the kernel refuses it).
type Policy struct {
	Version         int // 1 or 2
	Contents, Names Mode
	Flags           Flags
	Log2DataUnit    uint8 // v2: 0 for the file system's block size, else 9 to 16
	Key             KeySpec
}

// A KeySpec names a master key: by the descriptor of a v1 policy or the identifier
// of a v2 policy. It is comparable.
type KeySpec struct {
	Version int
	ID      [IdentifierSize]byte // v1: DescriptorSize bytes and zeroes
}

// DescriptorSpec is the name of a v1 policy's master key.
func DescriptorSpec(d [DescriptorSize]byte) (s KeySpec) {
	s.Version = 1
	copy(s.ID[:], d[:])
	return s
}

// IdentifierSpec is the name of a v2 policy's master key.
func IdentifierSpec(id [IdentifierSize]byte) KeySpec { return KeySpec{2, id} }

// Bytes returns the descriptor or identifier.
func (s KeySpec) Bytes() []byte {
	if s.Version == 1 {
		return append([]byte(nil), s.ID[:DescriptorSize]...)
	}
	return append([]byte(nil), s.ID[:]...)
}

// String is the descriptor or identifier in hexadecimal, as fscryptctl shows it.
func (s KeySpec) String() string { return hex.EncodeToString(s.Bytes()) }

// A Context is what an inode stores: the policy, and a nonce of its own.
type Context struct {
	Policy Policy
	Nonce  [NonceSize]byte
}

// ParsePolicy reads a policy as the ioctls pass it: struct fscrypt_policy_v1 or
// fscrypt_policy_v2, of exactly its size. It is checked as by Check.
func ParsePolicy(b []byte) (Policy, error) {
	p, rest, err := parse("policy", b, 0, PolicyV1Size, PolicyV2Size)
	if err == nil && len(rest) > 0 {
		panic("fscrypt: a policy has a nonce")
	}
	return p, err
}

// ParseContext reads a context as inodes store it (ext4: extended attribute "c" of
// index 9), of exactly the size of its version. The policy is checked as by Check.
func ParseContext(b []byte) (Context, error) {
	p, nonce, err := parse("context", b, 1, ContextV1Size, ContextV2Size)
	if err != nil {
		return Context{}, err
	}
	return Context{p, [NonceSize]byte(nonce)}, nil
}

// parse reads what policies and contexts have in common. first is the number of the
// first version, which contexts and policies count differently.
func parse(of string, b []byte, first byte, sizeV1, sizeV2 int) (p Policy, rest []byte, err error) {
	fail := func(field, format string, a ...any) (Policy, []byte, error) {
		return Policy{}, nil, &FieldError{of, field, fmt.Sprintf(format, a...)}
	}
	if len(b) == 0 {
		return fail("", "no bytes")
	}
	want := sizeV2
	switch b[0] {
	case first:
		p.Version, want = 1, sizeV1
	case 2:
		p.Version = 2
	default:
		return fail("version", "%d is unknown: %d and 2 are", b[0], first)
	}
	of = fmt.Sprintf("%s v%d", of, p.Version)
	if len(b) != want {
		return fail("", "%d bytes: must be %d", len(b), want)
	}
	p.Contents, p.Names, p.Flags = Mode(b[1]), Mode(b[2]), Flags(b[3])
	if p.Version == 1 {
		p.Key, rest = DescriptorSpec([DescriptorSize]byte(b[4:])), b[4+DescriptorSize:]
	} else {
		p.Log2DataUnit = b[4]
		if b[5]|b[6]|b[7] != 0 {
			return fail("__reserved", "%x: must be zero", b[5:8])
		}
		p.Key, rest = IdentifierSpec([IdentifierSize]byte(b[8:])), b[8+IdentifierSize:]
	}
	return p, rest, p.check(of)
}

// Bytes is the inverse of ParsePolicy.
func (p Policy) Bytes() []byte { return p.append(0) }

// Bytes is the inverse of ParseContext.
func (c Context) Bytes() []byte { return append(c.Policy.append(1), c.Nonce[:]...) }

func (p Policy) append(first byte) []byte {
	b := []byte{2, byte(p.Contents), byte(p.Names), byte(p.Flags)}
	if p.Version == 1 {
		b[0] = first
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(p.Log2DataUnit))
	}
	return append(b, p.Key.Bytes()...)
}

// String tells everything of the policy in a line.
func (p Policy) String() string {
	s := fmt.Sprintf("v%d, contents %v, names %v padded to %d", p.Version, p.Contents, p.Names, p.Flags.Padding())
	if f := p.Flags.String(); f != "" {
		s += ", " + f
	}
	if p.Log2DataUnit != 0 {
		s += fmt.Sprintf(", %d-byte data units", 1<<p.Log2DataUnit)
	}
	return s + ", key " + p.Key.String()
}
