// Package dm holds mapped devices: a Table of rows, each a Target, behind a
// device whose table can be replaced while it is in use.
//
// A mapped device has a live table and an inactive one. Load fills the
// inactive slot, Resume moves it to the live one; Suspend closes the gate
// through which every request enters. The requests that wait there are
// goroutines, in the order in which the gate wakes them; they and all later
// ones are mapped by whatever table is live when they enter, each by one
// table from its first byte to its last.
//
// Whether an encryption context is served by an engine beneath or by the
// fallback is decided after the gate, for each row that a request touches,
// from the table that will serve it.
//
// Lock order:
//
//	Mapped.control, a token: one of load, clear, suspend, resume, remove at a time
//	  Mapped.gate
//	  graph.mu: handles, parents, names, inactive tables of all mapped devices
//	    Mapped.events.mu, also under the lock of a leaf's engine, whose events come with it
package dm
