package ingestrpc

import (
	"encoding/json"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// readVersion is the only version of the protocol of reads that this build speaks.
const readVersion = 1

const (
	// readService and the methods make the paths of the calls.
	readService = "duramen.IngesterRead"

	methodPlan        = "Plan"
	methodSelect      = "Select"
	methodLabelValues = "LabelValues"
	methodLabelNames  = "LabelNames"
	methodExemplars   = "Exemplars"
	methodMetadata    = "Metadata"
	methodHeadStats   = "HeadStats"
	methodUserStats   = "UserStats"
)

// readRequest is the first and only frame of a client. Its tenant is in the call's metadata. It is JSON, because there is
// one a call, and fields of newer versions must not confuse older servers.
type readRequest struct {
	Version int `json:"version"`
	// ViewVersion and ViewCut are a duramenpb.View.
	ViewVersion uint64 `json:"view_version,omitempty"`
	ViewCut     int64  `json:"view_cut,omitempty"`
	// MinTime and MaxTime are both inclusive, in milliseconds since the Unix epoch.
	MinTime int64 `json:"min_time,omitempty"`
	MaxTime int64 `json:"max_time,omitempty"`
	// Matchers are one set, but for exemplars, of which each that any set matches is wanted.
	Matchers [][]duramenpb.Matcher `json:"matchers,omitempty"`

	SelectHints *storage.SelectHints `json:"select_hints,omitempty"`
	LabelHints  *storage.LabelHints  `json:"label_hints,omitempty"`
	// Name is that of a label or of a metric family.
	Name []byte `json:"name,omitempty"`
	// Limit is how long lists of statistics may be.
	Limit int `json:"limit,omitempty"`
}

// newReadRequest returns a request for what view leaves to an ingester.
func newReadRequest(view duramenpb.View, mint, maxt int64, sets ...[]*labels.Matcher) *readRequest {
	r := &readRequest{ViewVersion: view.Version, ViewCut: view.Cut, MinTime: mint, MaxTime: maxt}
	for _, set := range sets {
		r.Matchers = append(r.Matchers, duramenpb.Matchers(set))
	}
	return r
}

func (r *readRequest) view() duramenpb.View {
	return duramenpb.View{Version: r.ViewVersion, Cut: r.ViewCut}
}

func (r *readRequest) frame() ([]byte, error) {
	r.Version = readVersion
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a request to an ingester: %w", err)
	}
	return data, nil
}

// decodeReadRequest reads and checks a request. sets are its matchers.
func decodeReadRequest(frame []byte) (r *readRequest, sets [][]*labels.Matcher, err error) {
	r = &readRequest{}
	if err := json.Unmarshal(frame, r); err != nil {
		return nil, nil, errkind.New(errkind.Invalid, "decode the request: %w", err)
	}
	if r.Version != readVersion {
		return nil, nil, errkind.New(errkind.Unavailable, "protocol version %d is not known here, only %d", r.Version,
			readVersion)
	}
	for _, set := range r.Matchers {
		matchers, err := duramenpb.ParseMatchers(set)
		if err != nil {
			return nil, nil, errkind.Wrap(errkind.Invalid, err)
		}
		sets = append(sets, matchers)
	}
	return r, sets, nil
}

// only returns the matchers of a request that has one set of them, or none.
func only(sets [][]*labels.Matcher) []*labels.Matcher {
	if len(sets) == 0 {
		return nil
	}
	return sets[0]
}
