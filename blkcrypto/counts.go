package blkcrypto

import "sync/atomic"

// Counts is what was done with a key since it was made.
type Counts struct {
	Engine, Software uint64 // requests that engines served, and software in their place
	Waits            uint64 // requests that had to wait for a keyslot
	Programs         uint64 // of keyslots, of engines and of the fallback, resets included
	Evictions        uint64 // of keyslots that held it; being replaced by another key is none
}

// Add adds other, of another key.
func (c *Counts) Add(other Counts) {
	c.Engine += other.Engine
	c.Software += other.Software
	c.Waits += other.Waits
	c.Programs += other.Programs
	c.Evictions += other.Evictions
}

// slotCounts are the counts of Counts that keyslots make, off the path of requests
// whose key is in one.
type slotCounts struct{ waits, programs, evictions atomic.Uint64 }

// CountWait counts a request that waits for a keyslot.
func (k *Key) CountWait() { k.slots.waits.Add(1) }

// CountProgram counts a keyslot that k was put into.
func (k *Key) CountProgram() { k.slots.programs.Add(1) }

// CountEviction counts a keyslot that k was taken out of.
func (k *Key) CountEviction() { k.slots.evictions.Add(1) }

// Counts returns what was done with k so far.
func (k *Key) Counts() Counts {
	c := Counts{Waits: k.slots.waits.Load(), Programs: k.slots.programs.Load(), Evictions: k.slots.evictions.Load()}
	c.Engine, c.Software = k.ServedBy()
	return c
}
