package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

// Fscrypt is the body of POST /v1/devices/NAME/fscrypt/OP: what to do with the file
// system on a device, which is opened for this call alone, and closed, with its keys
// evicted, before the answer ends. OP is ls, cat, status, export or explain.
//
// The bytes of the keys come by one descriptor, one key after the other.
//
// The answer of ls, cat and export is a stream; see FscryptSink. A client that goes
// away ends the call.
type Fscrypt struct {
	// Paths count from the root of the file system, whether they begin with / or not.
	// Names on a medium are any bytes, so they are base64 in JSON. None: the root.
	// All but cat take one.
	Paths     [][]byte     `json:"paths,omitempty"`
	Keys      []FscryptKey `json:"keys,omitempty"`
	Recursive bool         `json:"recursive,omitempty"` // ls: all that is beneath too
	Brief     bool         `json:"brief,omitempty"`     // ls: names and types, without the facts of each file
	Offset    int64        `json:"offset,omitempty"`    // explain: in the file, in bytes
	Unclean   bool         `json:"unclean,omitempty"`   // read a file system that was not unmounted
}

// FscryptKey describes a master key without a byte of it.
type FscryptKey struct {
	Source     string `json:"source"`               // for people
	Size       int    `json:"size"`                 // bytes: 16 to 64; of a wrapped key up to 128
	Descriptor string `json:"descriptor,omitempty"` // 16 hex digits: that of v1 policies, if it is not the hash of the key
	Wrapped    bool   `json:"wrapped,omitempty"`    // by the hardware of the daemon's emulated engines
}

// MaxFscryptKeys is how many keys a call may bring.
const MaxFscryptKeys = 64

// FscryptEntry is one file. Names that are not valid UTF-8 are in PathBytes too.
type FscryptEntry struct {
	Path      string    `json:"path"` // from the root of the file system, without a leading /
	PathBytes []byte    `json:"path_base64,omitempty"`
	Type      string    `json:"type"` // file, directory, symlink, fifo, socket, char-device or block-device
	Mode      uint32    `json:"mode"` // permissions: the lower twelve bits
	UID       uint32    `json:"uid"`
	GID       uint32    `json:"gid"`
	Links     uint32    `json:"links"`
	Size      int64     `json:"size"`     // bytes
	Modified  time.Time `json:"modified"` // within the years 0 to 9999: the nearest
	Inode     uint64    `json:"inode"`
	Target    string    `json:"target,omitempty"` // of a symlink
	Encrypted bool      `json:"encrypted"`
	Key       string    `json:"key,omitempty"`     // identifier or descriptor of the master key of an encrypted file
	Locked    bool      `json:"locked,omitempty"`  // that key is not there
	Problem   string    `json:"problem,omitempty"` // why facts are missing
}

// FscryptProblem is a file, or all that is beneath a directory, that could not be read.
type FscryptProblem struct {
	Path  string `json:"path"`
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

// FscryptSink takes the stream of an answer, in order. An error of one of its
// functions ends the call and is what it returns.
type FscryptSink struct {
	// Data takes contents, or a piece of a tar archive. The bytes are valid until it
	// returns.
	Data    func(p []byte) error
	Entry   func(e FscryptEntry) error
	Problem func(p FscryptProblem) error // the call goes on with the rest
}

// FscryptTotals is how the answer of cat and export ends: what was read.
type FscryptTotals struct {
	Files    int64 `json:"files"`
	Bytes    int64 `json:"bytes"` // of contents
	Problems int64 `json:"problems"`
}

// FscryptStatus is the answer of status.
type FscryptStatus struct {
	Device     string          `json:"device,omitempty"`
	FileSystem string          `json:"file_system"` // ext4 or f2fs
	UUID       string          `json:"uuid"`
	Label      string          `json:"label,omitempty"`
	BlockSize  int             `json:"block_size"` // bytes
	Size       int64           `json:"size"`       // bytes, of the file system
	Features   []string        `json:"features"`
	Warnings   []string        `json:"warnings,omitempty"`
	Policies   []FscryptPolicy `json:"policies"` // in use, or that of the path
	Keys       []FscryptGiven  `json:"keys"`     // that came with the call
	Path       *FscryptEntry   `json:"path,omitempty"`
	Plain      int64           `json:"not_encrypted"` // files of any type
	Problems   []string        `json:"problems,omitempty"`
}

// FscryptPolicy is an encryption policy of a file system, and who serves it.
type FscryptPolicy struct {
	Version  int      `json:"version"`
	Contents string   `json:"contents"` // modes
	Names    string   `json:"names"`
	Flags    []string `json:"flags"`
	Padding  int      `json:"padding"`   // of names, bytes
	DataUnit int      `json:"data_unit"` // bytes
	Key      string   `json:"key"`       // identifier (v2) or descriptor (v1), hex
	Present  bool     `json:"present"`   // the key came with the call
	Source   string   `json:"source,omitempty"`
	Files    int64    `json:"files"` // of any type, that have it
	First    string   `json:"first"` // path of the first of them

	// With the key:
	Config  *Config `json:"config,omitempty"`  // of the keys of contents
	PerFile bool    `json:"per_file"`          // each file has its own
	Service string  `json:"service,omitempty"` // engine, software or nobody: who decrypts contents, as the device stands
	Why     string  `json:"why,omitempty"`     // no engine does
	Problem string  `json:"problem,omitempty"` // why the key does not serve the policy
}

// FscryptGiven is a key that came with a call.
type FscryptGiven struct {
	Source     string `json:"source"`
	Identifier string `json:"identifier"`           // v2
	Descriptor string `json:"descriptor,omitempty"` // v1
	Wrapped    bool   `json:"wrapped,omitempty"`
	Policies   int    `json:"policies"` // of the file system, that it is for
}

// FscryptExplanation is the answer of explain: the way of the block of a file.
type FscryptExplanation struct {
	File      FscryptEntry   `json:"file"`
	Policy    *FscryptPolicy `json:"policy,omitempty"`
	Offset    int64          `json:"offset"`                  // in the file, bytes
	Extent    int64          `json:"extent_offset"`           // where the run of blocks that holds it begins in the file
	Length    int64          `json:"extent_length"`           // bytes
	Hole      bool           `json:"hole,omitempty"`          // reads as zeros, and has no place
	Inline    bool           `json:"inline,omitempty"`        // the contents are in the inode
	DeviceOff int64          `json:"device_offset,omitempty"` // bytes, of Offset
	Key       string         `json:"key,omitempty"`
	DUN       string         `json:"dun,omitempty"`
	Way       *Explanation   `json:"way,omitempty"` // none for a hole
}

// FscryptList lists a directory, or one file. keys holds the bytes of the keys and
// stays the caller's; nil: there are none.
func (c *Client) FscryptList(ctx context.Context, name string, r Fscrypt, keys *os.File, s FscryptSink) error {
	return c.fscrypt(ctx, name, "ls", r, keys, s, nil)
}

// FscryptCat reads files, one after the other.
func (c *Client) FscryptCat(ctx context.Context, name string, r Fscrypt, keys *os.File, s FscryptSink) (t FscryptTotals, err error) {
	return t, c.fscrypt(ctx, name, "cat", r, keys, s, &t)
}

// FscryptExport reads all that is beneath a directory, or one file, as a tar archive.
func (c *Client) FscryptExport(ctx context.Context, name string, r Fscrypt, keys *os.File, s FscryptSink) (t FscryptTotals, err error) {
	return t, c.fscrypt(ctx, name, "export", r, keys, s, &t)
}

// FscryptStatus describes the file system, or one file of it.
func (c *Client) FscryptStatus(ctx context.Context, name string, r Fscrypt, keys *os.File) (x FscryptStatus, err error) {
	return x, c.call(ctx, http.MethodPost, device(name, "/fscrypt/status"), nil, r, &x, descriptor(keys))
}

// FscryptExplain says where a byte of a file lies, and who decrypts it.
func (c *Client) FscryptExplain(ctx context.Context, name string, r Fscrypt, keys *os.File) (x FscryptExplanation, err error) {
	return x, c.call(ctx, http.MethodPost, device(name, "/fscrypt/explain"), nil, r, &x, descriptor(keys))
}

func (c *Client) fscrypt(ctx context.Context, name, op string, r Fscrypt, keys *os.File, s FscryptSink, result any) error {
	begin := time.Now()
	resp, err := c.send(ctx, http.MethodPost, device(name, "/fscrypt/"+op), nil, r, descriptor(keys))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := readStream(resp.Body, s, result); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errCut) && c.Timeout > 0 && time.Since(begin) >= c.Timeout {
			return &Error{Message: fmt.Sprintf("not done within %v", c.Timeout), Status: http.StatusGatewayTimeout}
		}
		return c.explainStream(err)
	}
	return nil
}

func descriptor(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}
