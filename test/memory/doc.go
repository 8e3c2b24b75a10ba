// Package memory looks for key bytes in the whole memory of another process, as an
// attacker with root would: through /proc/PID/mem, mapping by mapping with the
// stacks of all threads, and in a core file with their registers.
//
// A Set knows what keys look like when software has them in hand: the bytes, the
// round keys of each cipher by its standard, what derives a key from a passphrase.
// All of that comes from references in this package, in package naive and in the
// libraries of Go, and from nothing that the product is made of. A Set finds any
// run of eight bytes of any of it, at any alignment, in one pass.
//
// The tests scan keyway, and to show that the scanner sees, nbdkit and qemu-nbd.
package memory
