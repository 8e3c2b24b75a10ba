// Package control is the daemon's control protocol and its client: HTTP with
// JSON bodies over a Unix socket.
//
// Key bytes are in no body. A request that brings a key carries a descriptor
// from which the daemon reads them (SCM_RIGHTS, with the first byte of the
// request); see Client.AddKey.
//
// Every call that changes something returns when the change is true. It ends
// early when the client goes away or the time in the query parameter
// "timeout" (a Go duration) is over, with everything as it was before.
//
// GET /v1/events is answered by a JSON value a line, for as long as the client
// listens; see Client.Events.
package control

import "time"

// An Error is the body of every answer that is not 2xx.
type Error struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"` // the way out, for people
	Status  int    `json:"-"`              // HTTP
}

func (e *Error) Error() string { return e.Message }

// Changed is the answer to a request that changed something.
type Changed struct {
	Warnings []string `json:"warnings,omitempty"`
}

// Version is the answer of GET /v1/version.
type Version struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	State   string `json:"state"` // directory

	KeyMemory KeyMemory `json:"key_memory"`
}

// KeyMemory tells where a daemon keeps key bytes. All figures are bytes.
type KeyMemory struct {
	Policy    string `json:"policy"`     // best, locked or insecure
	Hidden    int64  `json:"hidden"`     // locked, and readable by the daemon only (memfd_secret)
	Locked    int64  `json:"locked"`     // never swapped (mlock)
	Ordinary  int64  `json:"ordinary"`   // may be swapped: under the policy insecure only
	HasHidden bool   `json:"has_hidden"` // whether the kernel offers hidden memory

	// Process is all that the daemon has locked, as the kernel counts it; -1 if it
	// does not tell. Limit is how much that may be, RLIMIT_MEMLOCK; -1: no limit.
	Process int64 `json:"process_locked"`
	Limit   int64 `json:"limit"`
}

// Create is the body of POST /v1/devices: either Table, or Backend with the
// rest.
type Create struct {
	Name     string `json:"name"`
	UUID     string `json:"uuid,omitempty"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Table    string `json:"table,omitempty"`
	Backend  string `json:"backend,omitempty"` // URI
	Size     int64  `json:"size,omitempty"`    // bytes; 0: what the medium has
	Engine   string `json:"engine,omitempty"`

	Immutable bool `json:"immutable,omitempty"` // with Table: it stays until the device is removed
}

// Load is the body of POST /v1/devices/NAME/load and /reload.
type Load struct {
	Table    string `json:"table"`
	ReadOnly bool   `json:"read_only,omitempty"`
	NoFlush  bool   `json:"no_flush,omitempty"` // reload only
	Revoke   bool   `json:"revoke,omitempty"`   // reload only: evict wrapped keys that the table cannot serve
}

// Suspend is the body of POST /v1/devices/NAME/suspend.
type Suspend struct {
	NoFlush bool `json:"no_flush,omitempty"`
}

// Rename is the body of POST /v1/devices/NAME/rename.
type Rename struct {
	Name string `json:"name"`
}

// Remove is the body of POST /v1/devices/NAME/remove.
type Remove struct {
	Force    bool `json:"force,omitempty"`
	Deferred bool `json:"deferred,omitempty"`
}

// Message is the body of POST /v1/devices/NAME/message.
type Message struct {
	Sector int64    `json:"sector"`
	Words  []string `json:"words"`
}

// Device is the answer of GET /v1/devices/NAME, and an element of that of
// GET /v1/devices.
type Device struct {
	Name           string   `json:"name"`
	UUID           string   `json:"uuid,omitempty"`
	State          string   `json:"state"` // active, suspended, or no table
	Problem        string   `json:"problem,omitempty"`
	ReadOnly       bool     `json:"read_only"`
	Immutable      bool     `json:"immutable,omitempty"`
	Size           int64    `json:"size"` // bytes
	Live           bool     `json:"live_table"`
	Inactive       bool     `json:"inactive_table"`
	Rows           int      `json:"rows"`
	Open           int      `json:"open_count"`
	Holders        []string `json:"holders,omitempty"`
	Event          uint64   `json:"event"`
	DeferredRemove bool     `json:"deferred_remove,omitempty"`
	InFlight       int64    `json:"requests_in_flight"`
	Waiting        int64    `json:"requests_waiting"`

	Backend string `json:"backend,omitempty"` // of a leaf
	Engine  string `json:"engine,omitempty"`
	Config  bool   `json:"from_config,omitempty"` // declared by the configuration

	LogicalBlock  int               `json:"logical_block"`  // bytes
	PhysicalBlock int               `json:"physical_block"` // bytes
	Requests      map[string]uint64 `json:"requests,omitempty"`
	Bytes         map[string]uint64 `json:"bytes,omitempty"`
	Served        *Served           `json:"served,omitempty"`
	Under         []Dep             `json:"under,omitempty"`
}

// Served says who transformed the data of a device's reads and writes that came to it
// with an encryption context.
type Served struct {
	Device   string `json:"device,omitempty"`
	Native   uint64 `json:"native"`   // engines beneath
	Fallback uint64 `json:"fallback"` // software, at least a part of the request
}

// A Dep is something that a device stands on.
type Dep struct {
	Name   string `json:"name"`
	Device bool   `json:"device"` // a device of the daemon, not a URI
}

// Text is the answer of GET /v1/devices/NAME/table and /status.
type Text struct {
	Text string `json:"text"`
}

// EventNumber is the answer of GET /v1/devices/NAME/wait?event=N.
type EventNumber struct {
	Event uint64 `json:"event"`
}

// Crypto is the answer of GET /v1/devices/NAME/crypto.
type Crypto struct {
	Device   string    `json:"device"`
	Native   []Config  `json:"native"`   // what engines beneath serve
	Software []Config  `json:"software"` // what the fallback serves
	Engines  []Keyslot `json:"engines"`  // beneath the device, then the fallback
	Served   []Served  `json:"served"`   // the device and those beneath it
}

// Config is a line of a profile: everything up to DUNBytes.
type Config struct {
	Mode      string `json:"mode"`
	KeyType   string `json:"key_type"`
	DataUnit  int    `json:"data_unit"` // bytes
	DUNBytes  int    `json:"dun_bytes"` // the most
	Numbering string `json:"numbering,omitempty"`
}

// Keyslot describes the keyslots of one engine.
type Keyslot struct {
	Engine      string `json:"engine"`
	Device      string `json:"device,omitempty"` // the leaf; "" for the fallback
	Slots       int    `json:"slots"`
	Busy        int    `json:"busy"`
	Quarantined int    `json:"quarantined"`
	Programs    uint64 `json:"programs"`
	Evictions   uint64 `json:"evictions"`
	Failures    uint64 `json:"failures"`
	Waits       uint64 `json:"waits"`
	Resets      uint64 `json:"resets"`
	Keys        []Slot `json:"keys"`
}

// Slot is a keyslot that holds a key.
type Slot struct {
	Slot        int    `json:"slot"`
	Key         string `json:"key"`
	ID          uint64 `json:"id"`
	Requests    int64  `json:"requests"`
	Quarantined string `json:"quarantined,omitempty"`
}

// AddKey describes the key of POST /v1/keys; its bytes come by descriptor, but with
// Again.
type AddKey struct {
	Name     string `json:"name"`
	Mode     string `json:"mode"`
	Type     string `json:"type,omitempty"`      // raw, or wrapped by the hardware of the engines; "": raw
	DataUnit int    `json:"data_unit,omitempty"` // bytes; 0: 4096
	DUNBytes int    `json:"dun_bytes,omitempty"` // 0: as many as the mode has, at most 8
	Source   string `json:"source"`              // for people
	File     string `json:"file,omitempty"`      // absolute path to read the key from after a restart
	From     string `json:"from,omitempty"`      // another source to read it from then, as "keyway key add --from" takes it, with absolute paths
	Again    bool   `json:"again,omitempty"`     // read a missing key from its own source now; all else but the name is empty
	Auto     bool   `json:"auto,omitempty"`      // forget it when the last table gives it back
	Weak     bool   `json:"weak,omitempty"`      // take an XTS key with equal halves
}

// Key is an element of the answer of GET /v1/keys, and the answer of GET
// /v1/keys/NAME. Its counts begin when it is added.
type Key struct {
	Name     string `json:"name"`
	Mode     string `json:"mode"`
	Type     string `json:"type"` // raw or wrapped
	DataUnit int    `json:"data_unit"`
	DUNBytes int    `json:"dun_bytes"`
	Source   string `json:"source"`
	State    string `json:"state"` // present, missing, or evicting
	Problem  string `json:"problem,omitempty"`
	Users    int    `json:"users"`

	InUse     int64  `json:"requests"`  // that use it now
	Native    uint64 `json:"native"`    // requests that engines served
	Fallback  uint64 `json:"fallback"`  // and software in their place
	Waits     uint64 `json:"waits"`     // requests that had to wait for a keyslot
	Programs  uint64 `json:"programs"`  // of keyslots
	Evictions uint64 `json:"evictions"` // from keyslots
	Config    bool   `json:"from_config,omitempty"`
}

// Wrap is the body of POST /v1/wrap: what the hardware of the emulated engines shall
// do. The key comes by descriptor.
type Wrap struct {
	Op string `json:"op"` // generate, import (of a raw key) or prepare (of a long-term one)
}

// Wrapped is the answer of POST /v1/wrap: a key that only the hardware can open.
type Wrapped struct {
	Hardware string `json:"hardware"` // its name
	Key      []byte `json:"key"`
}

// EvictKey is the body of POST /v1/keys/NAME/evict.
type EvictKey struct {
	IfIdle bool `json:"if_idle,omitempty"` // refuse while a table or a request uses the key
	Force  bool `json:"force,omitempty"`   // do not wait for requests, and forget the key whatever places say
}

// Eviction is its answer: the receipt. Status 200 means gone from everywhere;
// otherwise Error tells the first place where it is not.
type Eviction struct {
	Key      string   `json:"key"`
	Places   []Place  `json:"places"`
	Error    string   `json:"error,omitempty"`
	Hint     string   `json:"hint,omitempty"`
	Devices  []string `json:"devices,omitempty"` // that cannot work without it
	Warnings []string `json:"warnings,omitempty"`
}

// Place is one line of a receipt.
type Place struct {
	Holder string `json:"holder"`
	Detail string `json:"detail,omitempty"`
	Gone   bool   `json:"gone"`
	Error  string `json:"error,omitempty"`
}

// Export is the body of POST /v1/exports, and an element of the answer of
// GET /v1/exports.
type Export struct {
	Name     string `json:"name"` // by which clients ask for it
	Device   string `json:"device"`
	NBD      string `json:"nbd"` // unix:PATH or tcp:HOST:PORT
	ReadOnly bool   `json:"read_only,omitempty"`
	TLS      *TLS   `json:"tls,omitempty"`

	// In answers only.
	URI         string       `json:"uri,omitempty"`
	State       string       `json:"state,omitempty"` // serving, or why not
	Config      bool         `json:"from_config,omitempty"`
	Connections []Connection `json:"connections,omitempty"`
}

// TLS names the PEM files of an export.
type TLS struct {
	Cert       string `json:"cert"`
	Key        string `json:"key"`
	CA         string `json:"ca,omitempty"`          // that signed the clients' certificates
	ClientAuth bool   `json:"client_auth,omitempty"` // clients must show one
}

// Connection is a client of an export.
type Connection struct {
	Peer         string    `json:"peer"`
	Since        time.Time `json:"since"`
	Style        string    `json:"replies"`
	TLS          bool      `json:"tls"`
	InFlight     int       `json:"in_flight"`
	Reads        uint64    `json:"reads"`
	Writes       uint64    `json:"writes"`
	BytesRead    uint64    `json:"bytes_read"`
	BytesWritten uint64    `json:"bytes_written"`
	Errors       uint64    `json:"errors"`
}

// RemoveExport is the body of POST /v1/exports/remove.
type RemoveExport struct {
	Name string `json:"name"`
	NBD  string `json:"nbd,omitempty"` // where, if several have the name
}
