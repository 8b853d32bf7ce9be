package gateway

import (
	"encoding/json"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// protocolVersion is the only one that this build speaks.
const protocolVersion = 1

// request opens a stream. Its tenant is in the call's metadata.
type request struct {
	Version int `json:"version"`
	// Blocks are entries of a manifest, without their sources.
	Blocks []manifest.Block `json:"blocks"`
	// MinTime and MaxTime are both inclusive, in milliseconds since the Unix epoch.
	MinTime  int64               `json:"min_time"`
	MaxTime  int64               `json:"max_time"`
	Matchers []duramenpb.Matcher `json:"matchers,omitempty"`

	// SelectHints and More, the series that may be sent at first, are a Select's.
	SelectHints *storage.SelectHints `json:"select_hints,omitempty"`
	More        int                  `json:"more,omitempty"`

	// LabelName, for its values, or LabelNames, and LabelHints are those of the other two.
	LabelName  []byte              `json:"label_name,omitempty"`
	LabelNames bool                `json:"label_names,omitempty"`
	LabelHints *storage.LabelHints `json:"label_hints,omitempty"`
}

func newRequest(blocks []manifest.Block, mint, maxt int64, matchers []*labels.Matcher) *request {
	r := &request{
		Version: protocolVersion, MinTime: mint, MaxTime: maxt, Blocks: make([]manifest.Block, len(blocks)),
		Matchers: duramenpb.Matchers(matchers),
	}
	for i, b := range blocks {
		b.Sources = nil // hundreds for a compacted block, and nothing to a reader
		r.Blocks[i] = b
	}
	return r
}

// decodeRequest reads and checks the first frame of a stream.
func decodeRequest(frame []byte) (*request, []*labels.Matcher, error) {
	if len(frame) == 0 || frame[0] != frameOpen {
		return nil, nil, errkind.New(errkind.Invalid, "the first frame is no request")
	}
	var r request
	if err := json.Unmarshal(frame[1:], &r); err != nil {
		return nil, nil, errkind.New(errkind.Invalid, "decode the request: %w", err)
	}
	switch {
	case r.Version != protocolVersion:
		return nil, nil, errkind.New(errkind.Unavailable, "protocol version %d is not known here, only %d", r.Version,
			protocolVersion)
	case len(r.Blocks) == 0:
		return nil, nil, errkind.New(errkind.Invalid, "the request names no block")
	case r.More < 0:
		return nil, nil, errkind.New(errkind.Invalid, "the request wants %d series", r.More)
	}
	seen := make(map[ulid.ULID]struct{}, len(r.Blocks))
	for _, b := range r.Blocks {
		if _, twice := seen[b.ULID]; twice {
			return nil, nil, errkind.New(errkind.Invalid, "the request names block %s twice", b.ULID)
		}
		seen[b.ULID] = struct{}{}
	}
	matchers, err := duramenpb.ParseMatchers(r.Matchers)
	if err != nil {
		return nil, nil, errkind.Wrap(errkind.Invalid, err)
	}
	return &r, matchers, nil
}

func blockIDs(blocks []manifest.Block) []ulid.ULID {
	ids := make([]ulid.ULID, len(blocks))
	for i := range blocks {
		ids[i] = blocks[i].ULID
	}
	return ids
}
