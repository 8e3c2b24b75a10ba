// Package dmcrypt has the ciphers of dm-crypt's tables: a cipher string such as
// "aes-cbc-plain64" or "capi:xts(serpent)-plain64" is parsed to a Spec, and a Spec
// with a key is a Cipher over runs of sectors.
//
// It is here for media that exist. Some of the ciphers have fast packages of their
// own (xts, essiv, adiantum, hctr2, sm4xts), which serve whole runs; new media are better served by these. What of the
// others is weak stays so: ECB shows equal blocks, a null IV equal sectors, plain
// repeats after 2 TiB, eboiv and tcw let who can write plaintext choose what is
// encrypted.
//
// AES, SM4, Camellia and Serpent run in constant time. Twofish is that of golang.org/x/crypto,
// whose tables depend on the key: who shares the processor's caches may learn of it.
// Every schedule is in memory outside the Go heap that is locked and left out of
// core dumps, until Wipe erases it.
package dmcrypt

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxSpec is the longest cipher string in bytes: more than twice what the kernel's
// names of algorithms can be.
const MaxSpec = 256

// A Spec is a parsed cipher string. The zero Spec is none.
type Spec struct {
	block  string // of blocks
	chain  string // of chains
	keys   int    // a power of two: the sector's number chooses among them
	iv     string // of ivs; "" where the chain takes none
	hash   string // of essiv
	stream int    // rounds of XChaCha in adiantum
}

// chains are the modes of operation by the kernel's name, with the bytes of their
// initialisation vector.
var chains = map[string]int{"cbc": 16, "xts": 16, "lrw": 16, "ecb": 0, "adiantum": 32, "hctr2": 32}

// authenticated are algorithms of the kernel that dm-crypt takes with dm-integrity.
var authenticated = []string{"gcm", "rfc4106", "ccm", "rfc4309", "authenc", "rfc7539", "aegis128", "morus640", "morus1280"}

// maxKeys bounds the number of keys of one cipher, of which the loop-AES formats
// have 64; each is a schedule in locked memory.
const maxKeys = 1024

// Parse parses the cipher argument of a crypt row: the old form
// cipher[:keys]-chain-iv[:options] with its abbreviations, or the kernel's own name
// of an algorithm, capi:chain(cipher)-iv[:options]. Authenticated encryption is
// refused, as is everything that this package does not have.
func Parse(s string) (Spec, error) {
	if len(s) > MaxSpec {
		return Spec{}, fmt.Errorf("a cipher of %d characters: %d are the most", len(s), MaxSpec)
	}
	var p Spec
	var err error
	if name, ok := strings.CutPrefix(s, "capi:"); ok {
		p, err = parseNew(name)
	} else {
		p, err = parseOld(s)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Spec{}, fmt.Errorf("cipher %q: %w", s, err)
	}
	return p, nil
}

// parseOld parses cipher[:keys]-chain-iv[:options]. A cipher alone, and one with
// "plain", mean what they meant before chains had names.
func parseOld(s string) (Spec, error) {
	if strings.ContainsAny(s, "()") {
		return Spec{}, errors.New("parentheses are for the form that begins with capi:")
	}
	name, rest, more := strings.Cut(s, "-")
	name, count, counted := strings.Cut(name, ":")
	p := Spec{keys: 1}
	if counted {
		n, err := strconv.ParseUint(count, 10, 32)
		if err != nil || n == 0 || n > maxKeys || n&(n-1) != 0 {
			return p, fmt.Errorf("%q keys are not a power of two up to %d", count, maxKeys)
		}
		p.keys = int(n)
	}
	chain, iv, given := strings.Cut(rest, "-")
	if !more || chain == "plain" && !given {
		chain, iv, given = "cbc", "plain", true
	}
	if chain != "ecb" && !given {
		return p, fmt.Errorf("chain %q needs an IV mode, as in %s-%s-plain64", chain, name, chain)
	}
	if err := p.setCipher(chain, name); err != nil {
		return p, err
	}
	return p, p.setIV(iv)
}

// parseNew parses chain(cipher)-iv[:options] from the right, or with the chain
// within essiv(...,hash).
func parseNew(s string) (Spec, error) {
	p := Spec{keys: 1}
	end := strings.LastIndexByte(s, ')')
	if end < 0 {
		return p, errors.New("not an algorithm of the form chain(cipher)")
	}
	name, rest := s[:end+1], s[end+1:]
	hash := ""
	if inner, ok := strings.CutPrefix(name, "essiv("); ok {
		inner = inner[:len(inner)-1]
		at := strings.LastIndexByte(inner, ',')
		if at < 0 {
			return p, errors.New("essiv names no hash")
		}
		name, hash = inner[:at], inner[at+1:]
	}
	chain, cipher, ok := strings.Cut(name, "(")
	if slices.Contains(authenticated, chain) {
		return p, p.setCipher(chain, cipher)
	}
	cipher, ok2 := strings.CutSuffix(cipher, ")")
	if !ok || !ok2 || strings.ContainsAny(cipher, "()") {
		return p, fmt.Errorf("%q is not an algorithm of the form chain(cipher)", name)
	}
	if err := p.setCipher(chain, cipher); err != nil {
		return p, err
	}
	iv, given := strings.CutPrefix(rest, "-")
	switch {
	case !given && rest != "":
		return p, fmt.Errorf("%q after the algorithm is not an IV mode", rest)
	case !given && p.chain != "ecb":
		return p, fmt.Errorf("%s needs an IV mode, as in %s-plain64", name, name)
	case hash != "":
		if iv != "plain64" {
			return p, fmt.Errorf("essiv over IV mode %q: it is plain64 that has a use", iv)
		}
		iv = "essiv:" + hash
	}
	err := p.setIV(iv)
	if p.iv == "lmk" {
		p.keys = 64 // the kernel's new form has no other place for it
	}
	return p, err
}

func (p *Spec) setCipher(chain, cipher string) error {
	switch {
	case slices.Contains(authenticated, chain):
		return fmt.Errorf("%s is authenticated encryption, whose tags need integrity metadata beside the sectors: not there", chain)
	case chains[chain] == 0 && chain != "ecb":
		return fmt.Errorf("no chain %q (there are: %s)", chain, names(chains))
	}
	p.chain = chain
	if chain == "adiantum" {
		stream, block, _ := strings.Cut(cipher, ",")
		switch stream {
		case "xchacha12":
			p.stream = 12
		case "xchacha20":
			p.stream = 20
		}
		if p.stream == 0 || block != "aes" {
			return fmt.Errorf("adiantum is over xchacha12,aes or xchacha20,aes, not over %q", cipher)
		}
		p.block = block
		return nil
	}
	if _, ok := blocks[cipher]; !ok {
		return fmt.Errorf("no block cipher %q (there are: %s)", cipher, names(blocks))
	}
	if chain == "hctr2" && cipher != "aes" {
		return fmt.Errorf("hctr2 is over aes here, not over %s", cipher)
	}
	p.block = cipher
	return nil
}

// fastESSIV reports whether package essiv has the cipher.
func (p Spec) fastESSIV() bool {
	return p.block == "aes" && p.chain == "cbc" && p.iv == "essiv" && p.hash == "sha256" && p.keys == 1
}

// setIV takes the IV mode with its options. A chain without IV ignores it.
func (p *Spec) setIV(s string) error {
	if chains[p.chain] == 0 {
		return nil
	}
	mode, option, given := strings.Cut(s, ":")
	if mode == "random" {
		return errors.New("IV mode random keeps IVs beside the sectors, in integrity metadata, which is not there")
	}
	if _, ok := ivs[mode]; !ok {
		return fmt.Errorf("no IV mode %q (there are: %s)", mode, names(ivs))
	}
	p.iv = mode
	switch {
	case mode != "essiv" && given && option != "":
		return fmt.Errorf("IV mode %s takes no option %q", mode, option)
	case mode == "essiv":
		if _, ok := hashes[option]; !ok {
			return fmt.Errorf("no hash %q for essiv (there are: %s)", option, names(hashes))
		}
		p.hash = option
	}
	return nil
}

// check refuses what does not fit together.
func (p *Spec) check() error {
	switch p.iv {
	case "eboiv", "elephant", "lmk", "tcw":
		if p.chain != "cbc" {
			return fmt.Errorf("IV mode %s goes with cbc, not with %s", p.iv, p.chain)
		}
	case "essiv":
		if n := hashes[p.hash].size; !fits(hashedSizes(p.block), n) {
			return fmt.Errorf("essiv: the %d bytes of %s are no key of %s", n, p.hash, p.block)
		}
		switch p.chain {
		case "adiantum", "hctr2":
			return fmt.Errorf("essiv makes an IV of one block, and %s takes 32 bytes", p.chain)
		case "lrw":
			return errors.New("essiv encrypts the number, and lrw is for numbers that are public")
		}
	}
	if p.block == "cipher_null" && p.chain != "ecb" {
		return errors.New("cipher_null goes with ecb")
	}
	if p.iv == "elephant" && p.keys != 1 {
		return errors.New("elephant has one key")
	}
	return nil
}

// String is the cipher in the old form, in full: two strings that mean the same
// cipher give the same.
func (p Spec) String() string {
	var b strings.Builder
	if p.chain == "adiantum" {
		fmt.Fprintf(&b, "xchacha%d,", p.stream)
	}
	b.WriteString(p.block)
	if p.keys > 1 {
		fmt.Fprintf(&b, ":%d", p.keys)
	}
	b.WriteString("-" + p.chain)
	if p.iv != "" {
		b.WriteString("-" + p.iv)
	}
	if p.hash != "" {
		b.WriteString(":" + p.hash)
	}
	return b.String()
}

// Keyless reports whether the cipher takes no key: cipher_null.
func (p Spec) Keyless() bool { return p.block == "cipher_null" }

// CheckSector refuses a sector size, in bytes, that the cipher does not take.
func (p Spec) CheckSector(size int) error {
	if size < 512 || size > 4096 || size&(size-1) != 0 {
		return fmt.Errorf("a sector of %d bytes is not 512, 1024, 2048 or 4096", size)
	}
	if size != 512 && (p.iv == "lmk" || p.iv == "tcw") {
		return fmt.Errorf("IV mode %s is for sectors of 512 bytes, not %d", p.iv, size)
	}
	return nil
}
