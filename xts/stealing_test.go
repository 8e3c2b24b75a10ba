package xts

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"keyway/internal/dataunit/dataunittest"
)

// stealNaively is IEEE 1619-2018, 5.3.2 and 5.4.2, over naiveXTS: nobody may
// optimise it. A single block under the tweak of block j is what naiveXTS makes of
// the last of j+1 blocks.
func stealNaively(dst, src, key []byte, tweak [2]uint64, decrypt bool) {
	single := func(block []byte, j int) []byte {
		unit := append(make([]byte, 16*j), block...)
		naiveXTS(unit, bytes.Clone(unit), key, len(unit), tweak, decrypt)
		return unit[16*j:]
	}
	m, b := len(src)/16, len(src)%16
	for j := range m {
		copy(dst[16*j:], single(src[16*j:][:16], j))
	}
	if b == 0 {
		return
	}
	first, second := m-1, m
	if decrypt {
		first, second = m, m-1
	}
	cc := single(src[16*(m-1):][:16], first)
	pp := append(bytes.Clone(src[16*m:]), cc[b:]...)
	copy(dst[16*(m-1):], single(pp, second))
	copy(dst[16*m:], cc[:b])
}

func TestStealingEqualsNaiveReferenceAtEveryLength(t *testing.T) {
	const unit = 512
	key, src := mix(3, 64), mix(7, unit)
	tweak := [2]uint64{math.MaxUint64, 5}
	each(t, func(t *testing.T, name string) {
		c := mustOpen(t, name, key, unit)
		var lengths []int
		for n := 16; n <= 300; n++ {
			lengths = append(lengths, n)
		}
		for n := 480; n <= unit; n++ {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			want, tail := make([]byte, n), []byte{0x5a, 0x5a, 0x5a}
			stealNaively(want, src[:n], key, tweak, false)
			got := append(make([]byte, n), tail...)
			plain := bytes.Clone(src[:n])
			c.EncryptStealing(got, plain, tweak)
			dataunittest.Diff(t, fmt.Sprintf("%d bytes encrypted", n), got, append(want, tail...))
			dataunittest.Diff(t, "source", plain, src[:n])

			back := make([]byte, n)
			stealNaively(back, want, key, tweak, true)
			dataunittest.Diff(t, "the reference decrypts what it encrypted", back, plain)
			c.DecryptStealing(got[:n], got[:n], tweak)
			dataunittest.Diff(t, fmt.Sprintf("%d bytes decrypted in place", n), got, append(plain, tail...))
		}
	})
}

// The kernel's xts(aes) answers EINVAL to data units of 1 and of 15 bytes.
func TestStealingNeedsOneBlockAndAtMostADataUnit(t *testing.T) {
	c := mustOpen(t, Implementation(), mix(1, 32), 512)
	buf := make([]byte, 1024)
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		f()
	}
	for _, n := range []int{0, 1, 15, 513} {
		panics(fmt.Sprint("encryption of ", n, " bytes"), func() { c.EncryptStealing(buf, buf[:n], [2]uint64{}) })
		panics(fmt.Sprint("decryption of ", n, " bytes"), func() { c.DecryptStealing(buf, buf[:n], [2]uint64{}) })
	}
	panics("short output", func() { c.EncryptStealing(buf[:16], buf[:17], [2]uint64{}) })
	c.Wipe()
	panics("use after wipe", func() { c.EncryptStealing(buf, buf[:17], [2]uint64{}) })
	panics("use after wipe", func() { c.DecryptStealing(buf, buf[:17], [2]uint64{}) })
}
