// Package keyslot manages the keyslots of inline encryption engines, and puts
// an engine in front of a device.
//
// An engine has few slots and many keys want them. The Manager programs a key
// when a request needs it, keeps the slot while requests use it, and takes
// the slot that was released longest ago when another key comes. Requests,
// evictions and resets that must wait stand in one queue, are served in order
// and can be cancelled. A manager with no slots passes keys through to
// whatever its owner stands on.
//
// Over is the one wrapper that encrypts: an inline engine in front of a leaf
// and the blk-crypto fallback of a mapped device are the same code with
// different engines.
//
// Lock order: Manager.mu and Key.mu are never held together, and the engine
// is called with neither; Manager.calling keeps its calls apart.
package keyslot
