package promql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/tenant"
)

const tenantID = "promql"

// stack is a whole Duramen in process that looks like a Prometheus storage to the test scripts.
//
// A script's load becomes one commit: its samples are sorted by time, the older half is sent and flushed into the
// bucket, then the newer half is sent. The querier's clock is set so that its cut lies between the halves: what is
// older comes from blocks, what is newer from the head.
type stack struct {
	storage.SampleAndChunkQueryable
	t        testing.TB
	ingester *ingester.Ingester
	life     *service.Service // the ingester's
	write    http.Handler
	store    *localstore.Store
	cut      int64 // milliseconds since the Unix epoch
	closed   bool
}

// newStack starts a stack with or without start timestamps; every read of the bucket adds to reads.
func newStack(t testing.TB, startTimestamps bool, reads *atomic.Int64) *stack {
	s := &stack{t: t}
	log := slog.New(slog.DiscardHandler)
	bkt := bucket.Bucket(bucket.NewInMemory())
	owner := manifest.NewOwner(bkt, time.Now, log, nil)
	values := tenant.DefaultValues()
	// Scripts load series again from time zero without clearing what is there.
	values.OutOfOrderWindow = 100 * 365 * 24 * time.Hour
	limits := tenant.StaticLimits(values)

	var icfg ingester.Config
	setDefaults(t, &icfg)
	icfg.Dir, icfg.StartTimestamps = t.TempDir(), startTimestamps
	var err error
	s.ingester, err = ingester.New(icfg, bkt, owner, limits, time.Now, log, nil)
	require.NoError(t, err)
	s.life = s.ingester.Service()
	require.NoError(t, s.life.Start(context.Background()))

	var scfg localstore.Config
	setDefaults(t, &scfg)
	scfg.DiskCache.MaxBytes = 0
	s.store, err = localstore.Open(scfg, t.TempDir(), countingBucket{bkt, reads}, nil, limits, time.Now, log, nil)
	require.NoError(t, err)

	var qcfg querier.Config
	setDefaults(t, &qcfg)
	q, err := querier.New(qcfg, s.ingester, s.ingester, s.store.Reader, owner, limits, s.queryClock, log, nil)
	require.NoError(t, err)
	s.SampleAndChunkQueryable = asTenant{q.Queryable()}

	var dcfg distributor.Config
	setDefaults(t, &dcfg)
	d, err := distributor.New(dcfg, s.ingester, limits, log, nil)
	require.NoError(t, err)
	s.write = tenant.Middleware(true, d.Handler())
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// countingBucket counts the ranged reads of chunks.
type countingBucket struct {
	bucket.Bucket
	reads *atomic.Int64
}

func (b countingBucket) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	b.reads.Add(1)
	return b.Bucket.GetRange(ctx, key, off, length)
}

// queryClock puts the querier's cut, 11 h before now, at s.cut.
func (s *stack) queryClock() time.Time { return time.UnixMilli(s.cut).Add(11 * time.Hour) }

func (s *stack) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.life.Stop(), s.store.Close())
}

// StartTime is part of storage.Storage; no script asks for it.
func (*stack) StartTime() (int64, error) { return 0, errors.New("not asked for by scripts") }

// Appender is part of storage.Storage; scripts load through AppenderV2.
func (*stack) Appender(context.Context) storage.Appender {
	panic("BUG: scripts load through AppenderV2")
}

func (s *stack) AppenderV2(context.Context) storage.AppenderV2 { return &load{stack: s} }

// load collects the samples of one load command.
type load struct {
	stack   *stack
	samples []loaded
}

type loaded struct {
	lset  labels.Labels
	st, t int64
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

func (l *load) Append(_ storage.SeriesRef, lset labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AOptions) (storage.SeriesRef, error) {
	l.samples = append(l.samples, loaded{lset, st, t, v, h, fh})
	return 0, nil
}

func (*load) Rollback() error { return nil }

func (l *load) Commit() error {
	if len(l.samples) == 0 {
		return nil
	}
	slices.SortStableFunc(l.samples, func(a, b loaded) int { return int(a.t - b.t) })
	half := len(l.samples) / 2
	for half < len(l.samples) && half > 0 && l.samples[half].t == l.samples[half-1].t {
		half++ // the cut lies between two times
	}
	if half == len(l.samples) {
		half = len(l.samples) / 2
	}
	if err := l.stack.push(l.samples[:half]); err != nil {
		return err
	}
	if half > 0 {
		if _, err := l.stack.ingester.Flush(context.Background(), tenantID, true); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	l.stack.cut = l.samples[half].t
	return l.stack.push(l.samples[half:])
}

// push sends samples as one remote write 2.0 request.
func (s *stack) push(samples []loaded) error {
	if len(samples) == 0 {
		return nil
	}
	symbols := writev2.NewSymbolTable()
	var req writev2.Request
	for _, l := range samples {
		ts := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(l.lset, nil)}
		switch {
		case l.fh != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromFloatHistogram(l.st, l.t, l.fh)}
		case l.h != nil:
			ts.Histograms = []writev2.Histogram{writev2.FromIntHistogram(l.st, l.t, l.h)}
		default:
			ts.Samples = []writev2.Sample{{Timestamp: l.t, Value: l.v, StartTimestamp: l.st}}
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = symbols.Symbols()
	body, err := req.Marshal()
	if err != nil {
		return err
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/push", bytes.NewReader(snappy.Encode(nil, body)))
	r.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set(tenant.HeaderName, tenantID)
	w := httptest.NewRecorder()
	s.write.ServeHTTP(w, r)
	if w.Code/100 != 2 {
		return fmt.Errorf("remote write answered %d: %s", w.Code, w.Body)
	}
	return nil
}

// asTenant gives the context of every call a tenant, which scripts know nothing of.
type asTenant struct {
	storage.SampleAndChunkQueryable
}

func (q asTenant) Querier(mint, maxt int64) (storage.Querier, error) {
	inner, err := q.SampleAndChunkQueryable.Querier(mint, maxt)
	return tenantQuerier{inner}, err
}

type tenantQuerier struct{ storage.Querier }

func (q tenantQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(tenant.WithID(ctx, tenantID), sorted, hints, ms...)
}

func (q tenantQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelValues(tenant.WithID(ctx, tenantID), name, hints, ms...)
}

func (q tenantQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelNames(tenant.WithID(ctx, tenantID), hints, ms...)
}
