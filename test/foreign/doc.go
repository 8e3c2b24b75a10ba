// Package foreign holds tests only: they start the real keyway binary and drive
// it with clients that are not ours (libnbd, QEMU, fio, a Linux kernel), kill it,
// and reload tables under it.
//
// A missing tool skips a test, except in CI (CI=true or KEYWAY_CI=1), where it is
// a failure; scripts/install-tools installs all of them. KEYWAY_SOAK=10m lengthens
// the endurance tests (and TestThousandReloadsUnderLoad ends after no less), KEYWAY_RACE=1 builds the binary with the race detector,
// KEYWAY_BINARY=path tests a given one, KEYWAY_CONTROL=1 repeats the client tests
// against nbdkit to tell a broken test from a broken server.
package foreign
