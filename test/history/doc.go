// Package history runs random histories of whole stacks against a reference
// model: devices of up to four levels over a few shared leaves, tables that are
// loaded, replaced, suspended and removed, keys that are started, used and
// evicted, engines that are narrow, fail and are reset, and crashes.
//
// The model says what lies on every leaf, from tables and ciphers of its own
// (package naive), what a read may return, which requests must succeed, and with
// what the others fail. A history is a seed: everything in it follows from that.
// One that fails is run again with steps left out until no step can be spared.
//
// There are three kinds. Sequential ones take one step after the other, and are
// exact. In concurrent ones steps overlap: each is a goroutine in a synctest
// bubble, and the next begins when all others are blocked, so that a seed gives
// the same interleaving of everything that waits. Twins are sequential ones that
// are run several times, on stacks that differ in what must not matter.
//
// The files, from the bottom: cipher and versions are the model of one leaf;
// device, place and judge that of the stack. engine and leaf are what the product
// gets to stand on, world is its environment. steps, fill and request, tables and
// control, removal, keys and crash are what may happen, settle is what is checked when nothing is under way, and
// run carries it all out.
package history
