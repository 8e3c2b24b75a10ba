// Package block holds the one interface that everything with blocks speaks:
// backends, targets, mapped devices, engines and exports are all Devices, and
// stacking one on another is a nested call.
//
// A Request is a value and Do is synchronous: one goroutine carries a request
// from the wire to the medium and back, and when Do has returned nothing
// below refers to the request's memory. A caller that must not wait sets
// NoWait and gets ErrWouldBlock instead.
//
// Offsets and lengths are bytes everywhere; 512-byte sectors exist only in
// table and status text.
package block
