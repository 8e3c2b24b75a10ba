package control

import (
	"context"
	"net/url"
	"strconv"
)

// Explain is the query of GET /v1/devices/NAME/explain: sector=, and, if they are
// set, key=, dun=, write=1 and skip_default_key=1.
type Explain struct {
	Sector int64
	Write  bool
	Key    string // of the key store, under the config that it was added with; "": the request has no context
	DUN    string // of the data unit that holds the sector; "": counted from the start of the device
	Marked bool   // default-key leaves the request alone
}

// Explanation is its answer: the way of a request, as it is at this moment.
type Explanation struct {
	Device  string          `json:"device"`
	Sector  int64           `json:"sector"`
	Op      string          `json:"op"`
	Offset  int64           `json:"offset"` // bytes: of the data unit, or the block, that holds the sector
	Length  int64           `json:"length"`
	Steps   []ExplainStep   `json:"steps"`
	Ciphers []ExplainCipher `json:"ciphers"`          // that data passes on its way down
	Medium  *ExplainMedium  `json:"medium,omitempty"` // none: the request gets to none, or nobody can tell to which
	Waits   []string        `json:"suspended,omitempty"`
	Fails   string          `json:"fails,omitempty"`
}

// ExplainStep is what one device does.
type ExplainStep struct {
	Device    string           `json:"device"`
	Sector    int64            `json:"sector"`
	Suspended bool             `json:"suspended,omitempty"`
	Row       int              `json:"row,omitempty"` // from 1
	Rows      int              `json:"rows,omitempty"`
	Start     int64            `json:"row_start"`  // sectors
	Length    int64            `json:"row_length"` // sectors
	Target    string           `json:"target,omitempty"`
	Mapping   string           `json:"mapping,omitempty"` // in the target's words
	Carries   *ExplainContext  `json:"carries,omitempty"` // the context with which the request comes
	Marked    bool             `json:"skip_default_key,omitempty"`
	Decision  *ExplainDecision `json:"decision,omitempty"`
	Adds      *ExplainContext  `json:"adds,omitempty"` // the context that the target gives it
	To        []ExplainPlace   `json:"to,omitempty"`
	Unknown   bool             `json:"to_one_of,omitempty"` // the target does not tell where: all that is beneath
}

// ExplainContext is an encryption context at the sector.
type ExplainContext struct {
	Key    string `json:"key"`
	ID     uint64 `json:"id"`
	Config Config `json:"config"`
	DUN    string `json:"dun"`
	Within int    `json:"within_data_unit"` // bytes
}

// ExplainDecision says who serves a context, and why no engine beneath does.
type ExplainDecision struct {
	By     string `json:"by"` // engine, beneath, fallback or nobody
	Engine string `json:"engine,omitempty"`
	Slot   *int   `json:"slot,omitempty"` // that holds the key
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"` // a word
	Why    string `json:"why,omitempty"`    // the same for people
}

// ExplainCipher is one encryption that data passes.
type ExplainCipher struct {
	ExplainContext
	By     string `json:"by"` // engine, fallback or nobody
	Device string `json:"device"`
	Engine string `json:"engine"`
}

// ExplainPlace is a position on something beneath.
type ExplainPlace struct {
	Device string `json:"device"`
	Sector int64  `json:"sector"`
}

// ExplainMedium is where the bytes lie.
type ExplainMedium struct {
	Device  string `json:"device"`
	Backend string `json:"backend"`
	Offset  int64  `json:"offset"`  // bytes
	Content string `json:"content"` // ciphertext, plaintext, or as sent: by who says that it is encrypted already
}

// Explain says where a request for a sector goes, and why.
func (c *Client) Explain(ctx context.Context, name string, e Explain) (x Explanation, err error) {
	q := url.Values{"sector": {strconv.FormatInt(e.Sector, 10)}}
	for k, v := range map[string]string{"key": e.Key, "dun": e.DUN} {
		if v != "" {
			q.Set(k, v)
		}
	}
	for k, v := range map[string]bool{"write": e.Write, "skip_default_key": e.Marked} {
		if v {
			q.Set(k, "1")
		}
	}
	return x, c.get(ctx, device(name, "/explain"), q, &x)
}
