package ingestrpc

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/peerconn"
)

// Dial returns the connection to an address for one call; release ends its use. That a peer is away is no error of it.
type Dial func(address string) (conn grpc.ClientConnInterface, release func(), err error)

// ReadClient reads from ingesters of other processes. Safe for concurrent use.
type ReadClient struct {
	cfg     ReadClientConfig
	dial    Dial
	log     *slog.Logger
	metrics *readClientMetrics
}

// NewReadClient returns a client that calls over connections of dial. It starts nothing, and nothing is to be closed.
func NewReadClient(cfg ReadClientConfig, dial Dial, log *slog.Logger, reg prometheus.Registerer) (*ReadClient, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &ReadClient{cfg: cfg, dial: dial, log: log, metrics: newReadClientMetrics(reg)}, nil
}

// Reader returns the ingester at address that keeps what it has in the storage with that identity. It connects when it is
// asked. Whoever else answers at the address counts as away: an ingester that came back with another disk holds nothing of
// what is asked, and says so, and may be asked before the ring tells of it. An empty identity is anyone's.
func (c *ReadClient) Reader(address, storageID string) *Reader { return &Reader{c, address, storageID} }

// Reader reads from an ingester of another process, as LocalReader does from one of this. Safe for concurrent use.
//
// An error that is duramenpb.ErrAway, of kind Unavailable, says that the ingester did not answer, or not to the end.
// Others are the ingester's and have its kind, or are those of the context. Nothing is ever returned in part.
type Reader struct {
	client    *ReadClient
	address   string
	storageID string
}

// Plan says what a Select would say beside its answer, and keeps nothing open.
func (r *Reader) Plan(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	held duramenpb.Held, err error,
) {
	request := newReadRequest(view, mint, maxt)
	return r.ask(ctx, methodPlan, tenantID, request, noItems)
}

// Select returns the series that match all matchers, and what the ingester owes of them to view. hints may be nil; its
// times, which may be narrower than mint and maxt, decide then. With the Func "series" they come without chunks.
//
// The ingester holds back cuts of the tenant while the series come. What was not read yet takes about a quarter of a MiB
// here, and less than a MiB there. The labels are copies; chunks hold the memory of the frames in which they came.
func (r *Reader) Select(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
	matchers ...*labels.Matcher,
) (duramenpb.Selection, error) {
	request := newReadRequest(view, mint, maxt, matchers)
	request.SelectHints = hints
	call, err := r.begin(ctx, methodSelect, tenantID, request)
	if err != nil {
		return duramenpb.Selection{}, err
	}
	return duramenpb.Selection{Held: call.held, Series: newSeriesSet(call), Close: call.close}, nil
}

// LabelValues returns the values of a label of series that match all matchers, in order. hints may be nil.
func (r *Reader) LabelValues(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, name string, hints *storage.LabelHints,
	matchers ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	request := newReadRequest(view, mint, maxt, matchers)
	request.Name, request.LabelHints = []byte(name), hints
	return r.labels(ctx, methodLabelValues, tenantID, request)
}

// LabelNames is LabelValues for the names of labels.
func (r *Reader) LabelNames(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.LabelHints,
	matchers ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	request := newReadRequest(view, mint, maxt, matchers)
	request.LabelHints = hints
	return r.labels(ctx, methodLabelNames, tenantID, request)
}

func (r *Reader) labels(ctx context.Context, method, tenantID string, request *readRequest) (
	values []string, held duramenpb.Held, err error,
) {
	held, err = r.ask(ctx, method, tenantID, request, func(kind byte, frame []byte) (items int, err error) {
		if kind != frameValues {
			return 0, errFrame(kind)
		}
		before := len(values)
		values, err = decodeValues(values, frame)
		return len(values) - before, err
	})
	if err != nil {
		return nil, duramenpb.Held{}, err
	}
	return values, held, nil
}

// Exemplars returns those with mint ≤ t ≤ maxt, in milliseconds, of the series that match all matchers of one of the
// sets, by series.
func (r *Reader) Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher) (
	[]exemplar.QueryResult, error,
) {
	found := []exemplar.QueryResult{}
	request := newReadRequest(duramenpb.View{}, mint, maxt, matchers...)
	_, err := r.ask(ctx, methodExemplars, tenantID, request, func(kind byte, frame []byte) (items int, err error) {
		if kind != frameExemplars {
			return 0, errFrame(kind)
		}
		found, items, err = decodeExemplars(found, frame)
		return items, err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Metadata returns that of one metric family or, when it is empty, of all of them by name; of each family the one that
// was told last comes first.
func (r *Reader) Metadata(ctx context.Context, tenantID, family string) (found []duramenpb.Metadata, err error) {
	request := &readRequest{Name: []byte(family)}
	_, err = r.ask(ctx, methodMetadata, tenantID, request, func(kind byte, frame []byte) (items int, err error) {
		if kind != frameMetadata {
			return 0, errFrame(kind)
		}
		before := len(found)
		found, err = decodeMetadata(found, frame)
		return len(found) - before, err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// HeadStats says what the series in memory consist of, with the limit largest of each list.
func (r *Reader) HeadStats(ctx context.Context, tenantID string, limit int) (stats duramenpb.HeadStats, err error) {
	request := &readRequest{Limit: limit}
	numbers := false
	_, err = r.ask(ctx, methodHeadStats, tenantID, request, func(kind byte, frame []byte) (items int, err error) {
		switch {
		case kind == frameHead && !numbers:
			numbers = true
			return 0, decodeHead(&stats, frame)
		case kind == frameCounts:
			return decodeCounts(&stats, frame)
		}
		return 0, errFrame(kind)
	})
	if err == nil && !numbers {
		err = broken(ctx, ctx, r.address, errShort)
	}
	if err != nil {
		return duramenpb.HeadStats{}, err
	}
	return stats, nil
}

// UserStats says how much the tenant writes there.
func (r *Reader) UserStats(ctx context.Context, tenantID string) (stats duramenpb.UserStats, err error) {
	numbers := false
	_, err = r.ask(ctx, methodUserStats, tenantID, &readRequest{}, func(kind byte, frame []byte) (items int, err error) {
		if kind != frameUser || numbers {
			return 0, errFrame(kind)
		}
		numbers = true
		stats, err = decodeUser(frame)
		return 0, err
	})
	if err == nil && !numbers {
		err = broken(ctx, ctx, r.address, errShort)
	}
	if err != nil {
		return duramenpb.UserStats{}, err
	}
	return stats, nil
}

// noItems is the take of an answer that is done when it is opened.
func noItems(kind byte, _ []byte) (int, error) { return 0, errFrame(kind) }

func errFrame(kind byte) error { return fmt.Errorf("a frame of kind %d was not expected", kind) }

// ask makes a call and gives take the frames of the answer, without their first byte, until it is whole. take returns how
// many items there were in each. An error means that what take got is not whole.
func (r *Reader) ask(
	ctx context.Context, method, tenantID string, request *readRequest, take func(kind byte, frame []byte) (int, error),
) (duramenpb.Held, error) {
	call, err := r.begin(ctx, method, tenantID, request)
	if err != nil {
		return duramenpb.Held{}, err
	}
	defer call.close()
	items := 0
	for {
		frame, err := call.receive()
		if err != nil {
			return duramenpb.Held{}, err
		}
		if frame[0] == frameDone {
			done, err := decodeDone(frame[1:])
			if err == nil && done.items != items {
				err = fmt.Errorf("%d of %d items came", items, done.items)
			}
			return call.held, call.end(err)
		}
		n, err := take(frame[0], frame[1:])
		if err != nil {
			return duramenpb.Held{}, call.end(err)
		}
		items += n
	}
}

// PoolDial returns a Dial over the connections of pool. A peer that fails is not called: that it is away is known.
func PoolDial(pool *peerconn.Pool) Dial {
	return func(address string) (grpc.ClientConnInterface, func(), error) {
		if pool.Failing(address) {
			return nil, nil, errFailing
		}
		conn, err := pool.Get(address)
		if err != nil {
			return nil, nil, err
		}
		return conn, conn.Release, nil
	}
}
