// Package distributor owns the way of a remote write from an HTTP body to an ingester: decoding, validation, limits,
// the cache of known series and the answer to the sender. It keeps no samples, and it refuses by name what can never
// be stored while the rest goes on. Read package ingester next for who stores a batch.
package distributor

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/duramenpb"
)

// Pusher stores batches. An error means that nothing is known of the batch and the sender has to send it again; r is
// complete otherwise. The Pusher may keep label sets and histograms of the batch, and nothing else, beyond its return.
type Pusher interface {
	Push(ctx context.Context, tenantID string, b *duramenpb.Batch, r *duramenpb.PushResult) error
}

// Limits answers with a tenant's limits. They are asked for, never copied; a number of 0 means no limit.
type Limits interface {
	// Epoch changes whenever a limit of the tenant changes: verdicts on labels are kept until then.
	Epoch(tenantID string) uint64
	// IngestionRate is in samples a second, IngestionBurst in samples.
	IngestionRate(tenantID string) float64
	IngestionBurst(tenantID string) int
	MaxLabelNames(tenantID string) int
	// MaxLabelNameLength and MaxLabelValueLength are in bytes.
	MaxLabelNameLength(tenantID string) int
	MaxLabelValueLength(tenantID string) int
	// MaxRequestBytes bounds a decoded body.
	MaxRequestBytes(tenantID string) int
	MaxHistogramBuckets(tenantID string) int
	// FutureTolerance is how far ahead of the clock a sample may be.
	FutureTolerance(tenantID string) time.Duration
}

// maxFutureTolerance holds whatever the limits say: one sample far ahead would make all real ones too old.
const maxFutureTolerance = 30 * time.Minute

// Distributor takes remote writes. It is safe for concurrent use, runs no goroutine and needs no closing.
type Distributor struct {
	cfg    Config
	pusher Pusher
	limits Limits
	log    *slog.Logger
	now    func() time.Time

	hasher   *hasher
	tenants  tenants
	inflight atomic.Int64 // bytes reserved by requests
	pool     requestPool
	metrics  *metrics
}

// New checks cfg and allocates; it starts nothing. A nil reg works.
func New(
	cfg Config, push Pusher, limits Limits, log *slog.Logger, reg prometheus.Registerer,
) (*Distributor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Distributor{
		cfg:    cfg,
		pusher: push,
		limits: limits,
		log:    log.With("component", "distributor"),
		now:    time.Now,
		hasher: newHasher(),
	}
	d.tenants = tenants{
		budget: cfg.SeriesCacheBytes, byID: map[string]*tenantState{},
		metrics: func() *metrics { return d.metrics },
	}
	d.metrics = newMetrics(reg, d)
	return d, nil
}

func (d *Distributor) maxRequestBytes(tenantID string) int {
	if n := d.limits.MaxRequestBytes(tenantID); n > 0 {
		return min(n, hardMaxRequestBytes)
	}
	return hardMaxRequestBytes
}

func (d *Distributor) newestTimestamp(tenantID string, now time.Time) int64 {
	return now.Add(min(d.limits.FutureTolerance(tenantID), maxFutureTolerance)).UnixMilli()
}
