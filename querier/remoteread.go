package querier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// maxReadRequestBytes bounds a request of remote read when decompressed. Prometheus sends one query of some hundred
// bytes; a hostile request takes about fifty times its size when decoded.
const maxReadRequestBytes = 1 << 20

// remoteRead answers Prometheus' remote read.
//
// The protocol's messages are Prometheus' own, the handler is not: Prometheus' appends the text of a late error to what
// it has streamed, which a client can take for the end of a whole answer, and gives all errors the status 500.
func (q *Querier) remoteRead(w http.ResponseWriter, r *http.Request) {
	out := &readAnswer{w: w}
	defer out.breakOff() // also when something panics
	err := q.answerRead(out, r)
	if err == nil {
		out.complete = true
		return
	}
	kind := errkind.Of(err)
	q.metrics.errors.WithLabelValues(kind.String()).Inc()
	if out.sent == 0 {
		out.complete = true
		askToWait(w.Header(), err)
		http.Error(w, err.Error(), kind.HTTPStatus())
		return
	}
	// The client learns only that the answer broke off, so the reason is said here.
	id, _ := tenant.FromContext(r.Context())
	q.log.Warn("remote read broke off in the middle of its answer", "tenant", id, "kind", kind.String(), "err", err)
	panic(http.ErrAbortHandler)
}

func (q *Querier) answerRead(out *readAnswer, r *http.Request) error {
	req, err := decodeReadRequest(r.Body)
	if err != nil {
		return errkind.Wrap(errkind.Invalid, err)
	}
	form, err := remote.NegotiateResponseType(req.AcceptedResponseTypes)
	if err != nil {
		return errkind.Wrap(errkind.Invalid, err)
	}
	if err := checkReadRegexes(req.Queries); err != nil {
		return err
	}
	ctx := r.Context()
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return err
	}
	kind := q.kindOfRead(id, req.Queries)
	if q.reads != nil {
		release, err := q.reads.take(ctx, id, kind)
		if err != nil {
			return err
		}
		defer release()
	}
	if form != prompb.ReadRequest_STREAMED_XOR_CHUNKS {
		return q.readWhole(ctx, out, req.Queries, id, kind)
	}
	return q.again(ctx, func() bool { return out.sent == 0 }, func(ctx context.Context) error {
		return q.streamChunks(ctx, out, req.Queries)
	})
}

// decodeReadRequest reads a message that is compressed with snappy.
func decodeReadRequest(body io.Reader) (*prompb.ReadRequest, error) {
	most := snappy.MaxEncodedLen(maxReadRequestBytes)
	compressed, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	size, err := snappy.DecodedLen(compressed)
	if err != nil {
		return nil, err
	}
	if size > maxReadRequestBytes || len(compressed) > most {
		return nil, fmt.Errorf("the request has more than %d bytes", maxReadRequestBytes)
	}
	raw, err := snappy.Decode(nil, compressed)
	if err != nil {
		return nil, err
	}
	req := &prompb.ReadRequest{}
	if err := req.Unmarshal(raw); err != nil {
		return nil, err
	}
	return req, nil
}

// readSelection is what one query of a request selects.
type readSelection struct {
	mint, maxt int64
	hints      *storage.SelectHints
	matchers   []*labels.Matcher
}

// selectionOf reads a query. Hints narrow its range, as at Prometheus, and never widen it; hints whose times are both
// zero are those of a client that did not set them.
func selectionOf(query *prompb.Query) (readSelection, error) {
	matchers, err := remote.FromLabelMatchers(query.Matchers)
	if err != nil {
		return readSelection{}, errkind.Wrap(errkind.Invalid, err)
	}
	s := readSelection{mint: query.StartTimestampMs, maxt: query.EndTimestampMs, matchers: matchers}
	if h := query.Hints; h != nil {
		if h.StartMs != 0 || h.EndMs != 0 {
			s.mint, s.maxt = max(s.mint, h.StartMs), min(s.maxt, h.EndMs)
		}
		s.hints = &storage.SelectHints{
			Start: s.mint, End: s.maxt, Step: h.StepMs, Range: h.RangeMs, Func: h.Func, Grouping: h.Grouping, By: h.By,
		}
	}
	return s, nil
}

// sendSamples answers with all samples in one message, which is built in memory. The limit counts over all queries.
func (q *Querier) sendSamples(ctx context.Context, out *readAnswer, queries []*prompb.Query) error {
	left := q.cfg.RemoteReadSampleLimit
	if left == 0 {
		left = math.MaxInt
	}
	var body []byte
	memory := &held{most: seatOf(ctx).bytes()} // of all queries together
	for _, query := range queries {
		message, n, err := q.readSamples(ctx, query, left, memory)
		if err != nil {
			return err
		}
		left -= n
		body = append(body, message...)
	}
	if snappy.MaxEncodedLen(len(body)) < 0 {
		return errkind.New(errkind.Invalid, "the answer has %d bytes, more than snappy takes; ask for less, or accept "+
			"streamed chunks", len(body))
	}
	return out.sendWhole("application/x-protobuf", "snappy", snappy.Encode(nil, body))
}

// readSamples returns the answer to one query, as a message that joins those of others by appending, and the number of
// its samples, which is at most left. The message is complete before the querier closes, in whose memory labels may lie.
func (q *Querier) readSamples(
	ctx context.Context, query *prompb.Query, left int, memory *held,
) ([]byte, int, error) {
	s, err := selectionOf(query)
	if err != nil {
		return nil, 0, err
	}
	set, hides := storage.EmptySeriesSet(), func() bool { return false }
	if s.mint <= s.maxt {
		querier, err := q.Queryable().Querier(s.mint, s.maxt)
		if err != nil {
			return nil, 0, err
		}
		defer q.closeRead(ctx, querier)
		set = &heldSet{SeriesSet: timedSeries{querier.Select(ctx, false, s.hints, s.matchers...), ctx}, held: memory}
		if two, ok := querier.(*sampleQuerier); ok {
			hides = func() bool { return !two.tiers.hidden.Empty() && (s.hints == nil || s.hints.Func != listsSeries) }
		}
	}
	result, warnings, err := remote.ToQueryResult(set, max(left, 1)) // to it, 0 is no limit
	q.logWarnings(ctx, "read", warnings)
	var over remote.HTTPError // what Prometheus' codec says to the limit, and to nothing else
	switch {
	case errors.As(err, &over):
		return nil, 0, q.errReadLimit()
	case err != nil:
		return nil, 0, err
	}
	if hides() {
		result.Timeseries = slices.DeleteFunc(result.Timeseries, func(ts *prompb.TimeSeries) bool {
			return len(ts.Samples)+len(ts.Histograms) == 0 // all is deleted
		})
	}
	n := 0
	for _, series := range result.Timeseries {
		n += len(series.Samples) + len(series.Histograms)
	}
	if n > left {
		return nil, 0, q.errReadLimit()
	}
	message, err := (&prompb.ReadResponse{Results: []*prompb.QueryResult{result}}).Marshal()
	return message, n, err
}

func (q *Querier) errReadLimit() error {
	return errkind.New(errkind.Invalid, "exceeded sample limit (%d), which is querier.remote_read_sample_limit; "+
		"ask for less, or accept streamed chunks", q.cfg.RemoteReadSampleLimit)
}

// streamChunks answers with a frame for each series, in the order of labels, while it reads them.
func (q *Querier) streamChunks(ctx context.Context, out *readAnswer, queries []*prompb.Query) error {
	out.w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
	frames, pool := remote.NewChunkedWriter(out, out), &sync.Pool{}
	for i, query := range queries {
		if err := q.streamQuery(ctx, frames, int64(i), query, pool); err != nil {
			return err
		}
	}
	return out.flush()
}

func (q *Querier) streamQuery(
	ctx context.Context, frames io.Writer, index int64, query *prompb.Query, pool *sync.Pool,
) error {
	s, err := selectionOf(query)
	if err != nil || s.mint > s.maxt {
		return err
	}
	querier, err := q.Queryable().ChunkQuerier(s.mint, s.maxt)
	if err != nil {
		return err
	}
	defer q.closeRead(ctx, querier)
	set := timedChunks{querier.Select(ctx, true, s.hints, s.matchers...), ctx}
	warnings, err := remote.StreamChunkedReadResponses(
		frames, index, set, nil, q.cfg.RemoteReadMaxBytesInFrame, pool)
	q.logWarnings(ctx, "read", warnings)
	return err
}

// kindOfRead is the kind of slot that a remote read takes.
func (q *Querier) kindOfRead(tenantID string, queries []*prompb.Query) int {
	cut, _ := q.cut(tenantID)
	for _, query := range queries {
		if query.StartTimestampMs < cut {
			return storeSlot
		}
	}
	return recentSlot
}
