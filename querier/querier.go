package querier

import (
	"context"
	"log/slog"
	"time"

	"github.com/grafana/regexp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/service"
)

// Recent answers from what ingesters hold. For a view it owes every sample with t ≥ view.Cut and, at any t, every
// sample that manifest view.Version does not list; more is welcome, the merge is exact. The querier that it returns is
// used by one goroutine and closed by it; Held says whether the answer still completes the view.
type Recent interface {
	Querier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
		storage.Querier, duramenpb.Held, error)
	ChunkQuerier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
		storage.ChunkQuerier, duramenpb.Held, error)
}

// Store answers from exactly the given blocks, without what those of the hidden deletions mean that concern a block, or
// with an error. It keeps to [mint, maxt] whatever the hints say.
type Store interface {
	Querier(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) (storage.Querier, error)
	ChunkQuerier(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) (
		storage.ChunkQuerier, error)
}

// Manifests says which blocks a tenant has and what was deleted of them. Current is the newest version known, and asks the bucket for one only when
// none is; Refresh asks it for newer ones.
type Manifests interface {
	// Known is the manifest that is in memory, or nil. It asks nobody.
	Known(tenant string) *manifest.Manifest
	// Unlisted names a complete block of a tenant without a manifest that nobody has looked at yet, the zero ULID for none.
	Unlisted(ctx context.Context, tenant string) (ulid.ULID, error)
	Current(ctx context.Context, tenant string) (*manifest.Manifest, error)
	Refresh(ctx context.Context, tenant string) (*manifest.Manifest, error)

	// Delete, CancelDeletion and HastenDeletions record what the administration API is asked for.
	Delete(ctx context.Context, tenant string, d manifest.Deletion) (manifest.Deletion, error)
	CancelDeletion(ctx context.Context, tenant string, id uint64) error
	HastenDeletions(ctx context.Context, tenant string, ids ...uint64) error
}

// Querier plans and runs queries. It is safe for concurrent use; what Queryable returns is not.
type Querier struct {
	cfg      Config
	recent   Recent
	extras   Extras
	store    Store
	versions *versions
	limits   Limits
	now      func() time.Time
	log      *slog.Logger
	metrics  *metrics
	floors   *floors
	hides    *hides
	// departures are those of the members behind recent.
	departures departures
	parser     parser.Parser
	features   features.Collector
	anyOrigin  *regexp.Regexp
	started    time.Time
	classes    classes
	engine     *promql.Engine // of large queries
	small      *promql.Engine
	slots      *slots
	large      *slots
	reads      *slots // of remote reads; nil does not bound them
}

// Service polls the manifests of tenants that are queried. Without it each query looks for itself.
func (q *Querier) Service() *service.Service {
	return service.NewService("querier", service.Phases{Running: q.versions.run})
}

// New checks cfg and builds the engine. It starts nothing.
func New(
	cfg Config, recent Recent, extras Extras, store Store, manifests Manifests, limits Limits, now func() time.Time,
	log *slog.Logger, reg prometheus.Registerer,
) (*Querier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	// Duration expressions are on in Prometheus too, whatever it calls them.
	p := parser.NewParser(parser.Options{
		EnableExperimentalFunctions: cfg.EnablePromQLExperimentalFunctions,
		ExperimentalDurationExpr:    true,
	})
	registry := newFeatures(p, cfg.UseStartTimestamps, cfg.EnableAdminAPI)
	q := &Querier{
		cfg: cfg, recent: recent, extras: extras, store: store, limits: limits, now: now,
		log:     log,
		metrics: m, floors: newFloors(), hides: newHides(), parser: p, features: registry,
		versions:  newVersions(manifests, newRemembered(cfg.Dir, log), now, m.versions),
		slots:     newSlots("queries", cfg.MaxConcurrent, limits, m.slots(m.running)),
		reads:     newReadSlots(cfg.RemoteReadConcurrentLimit, limits, m),
		anyOrigin: regexp.MustCompile("^(?s:.*)$"), // CORS as Prometheus' default
		started:   now().UTC(),
		classes:   newClasses(cfg.MemoryBytes, cfg.MaxConcurrent),
	}
	q.engine = q.newEngine(q.classes.large)
	q.small = q.engine
	if q.classes.small > 0 {
		q.small = q.newEngine(q.classes.small)
		q.large = newSlots("large queries", q.classes.largeSlots, limits, m.slots(m.large))
	}
	return q, nil
}

// newEngine returns an engine whose queries hold so many bytes of samples at most; 0 leaves it to the settings.
func (q *Querier) newEngine(bytes int64) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:        q.log,
		MaxSamples:    samplesIn(bytes, q.cfg.MaxSamples),
		Timeout:       q.cfg.Timeout,
		LookbackDelta: q.cfg.LookbackDelta,
		// One minute is Prometheus' default evaluation interval.
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		UseStartTimestamps:       q.cfg.UseStartTimestamps,
		Parser:                   q.parser,
		FeatureRegistry:          q.features,
	})
}

func newReadSlots(n int, limits Limits, m *metrics) *slots {
	if n == 0 {
		return nil
	}
	return newSlots("remote reads", n, limits, m.slots(m.reads))
}

// Engine returns the PromQL engine that the HTTP API uses. By itself it does not bound how many queries run.
func (q *Querier) Engine() *promql.Engine { return q.engine }
