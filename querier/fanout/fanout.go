package fanout

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/ring"
)

// Rings is where the cluster is seen. Ring is never nil.
type Rings interface {
	Ring() *ring.Ring
}

// Members gives a way to ask an ingester of the ring. It is asked for each call, and connects to nobody by itself.
type Members interface {
	Member(m ring.Member) Member
}

// Member is one ingester. Errors that wrap duramenpb.ErrAway say that it did not answer, all others are its own. The end
// of a context ends a call at once. Safe for concurrent use.
type Member interface {
	// Plan says what a Select would say beside its answer, at little cost.
	Plan(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (duramenpb.Held, error)
	// Select opens an answer, which ends when its context does or when it is closed.
	Select(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
		matchers ...*labels.Matcher) (duramenpb.Selection, error)
	LabelValues(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, name string,
		hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, duramenpb.Held, error)
	LabelNames(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.LabelHints,
		matchers ...*labels.Matcher) ([]string, duramenpb.Held, error)
	Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher) (
		[]exemplar.QueryResult, error)
	Metadata(ctx context.Context, tenantID, family string) ([]duramenpb.Metadata, error)
	HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error)
	UserStats(ctx context.Context, tenantID string) (duramenpb.UserStats, error)
}

// Fanout reads recent samples from all ingesters of as many zones as a quorum takes. Safe for concurrent use.
type Fanout struct {
	cfg        Config
	rings      Rings
	members    Members
	zone       string // of this process, asked first; "" is none
	now        func() time.Time
	log        *slog.Logger
	metrics    *metrics
	health     *health
	departures departures
	disputes   disputes
	turn       atomic.Uint64 // which zone is asked beside the own one
	calls      sync.WaitGroup
}

var (
	_ querier.Recent = (*Fanout)(nil)
	_ querier.Extras = (*Fanout)(nil)
)

// New returns a Fanout over the ingesters of the ring. zone is this process' own, "" when it has none. It asks nobody yet.
func New(
	cfg Config, rings Rings, members Members, zone string, now func() time.Time, log *slog.Logger,
	reg prometheus.Registerer,
) (*Fanout, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Fanout{
		cfg: cfg, rings: rings, members: members, zone: zone, now: now, log: log, metrics: newMetrics(reg),
		health: newHealth(),
	}, nil
}

// Close waits for calls of which nobody wants the answer any more. No query may run then.
func (f *Fanout) Close() error {
	f.calls.Wait()
	return nil
}

// held is what those who have answered say together, and the ring of those who have left.
func (f *Fanout) held(r *ring.Ring, replies []reply[duramenpb.Held]) duramenpb.Held {
	all := duramenpb.Held{Floor: r.Floor(f.now()), Departures: f.departures.count(r)}
	for _, m := range replies {
		all.Floor = max(all.Floor, m.value.Floor)
		all.DeletedVersion = max(all.DeletedVersion, m.value.DeletedVersion)
	}
	return all
}

// Querier implements querier.Recent.
func (f *Fanout) Querier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	storage.Querier, duramenpb.Held, error,
) {
	s, held, err := f.open(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return nil, held, err
	}
	return &sampleQuerier{s}, held, nil
}

// ChunkQuerier implements querier.Recent.
func (f *Fanout) ChunkQuerier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	storage.ChunkQuerier, duramenpb.Held, error,
) {
	s, held, err := f.open(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return nil, held, err
	}
	return &chunkQuerier{s}, held, nil
}

// open asks a quorum what it holds.
func (f *Fanout) open(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	*session, duramenpb.Held, error,
) {
	began := time.Now()
	s := &session{f: f, tenantID: tenantID, view: view, mint: mint, maxt: maxt, every: f.disputes.open(tenantID, f.now())}
	plan := question[duramenpb.Held]{
		what: "plan", mint: mint, every: s.every,
		ask: func(ctx context.Context, m Member) (duramenpb.Held, error) {
			return m.Plan(ctx, tenantID, view, mint, maxt)
		},
		limit: planTimeout, timed: true,
		probe: func(ctx context.Context, m Member) error {
			_, err := m.Plan(ctx, tenantID, view, mint, maxt)
			return err
		},
	}
	got, err := gatherPatiently(ctx, f, plan)
	f.metrics.openSeconds.Observe(time.Since(began).Seconds())
	if err != nil {
		return nil, duramenpb.Held{Floor: math.MinInt64}, fmt.Errorf("plan with ingesters: %w", err)
	}
	s.ring, s.zones, s.probe = got.ring, got.zones, plan.probe
	return s, f.held(got.ring, got.replies), nil
}
