package replicate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// maxReplicas bounds the copies of a series; no cluster comes near it.
const maxReplicas = 16

// Replicator stores batches on a quorum of the replicas of each series. To the distributor it looks like one ingester:
// the references that it gives are handles of its own tables. It is safe for concurrent use and runs no goroutine but for
// what late members ask for again, which Close waits for.
type Replicator struct {
	cfg    Config
	rings  Rings
	peers  Peers
	limits Limits
	log    *slog.Logger
	now    func() time.Time

	tables   tables
	pushes   pushPool
	sections sectionPool
	decoders decoderPool
	metrics  *metrics

	inflight  atomic.Int64 // bytes of sections
	lateBytes atomic.Int64 // bytes of those that outlived their pushes

	current atomic.Pointer[view]
	viewing sync.Mutex // serialises changes of current, numbers and late
	numbers map[string]uint32
	late    []*atomic.Int64 // by number

	closing sync.Mutex
	closed  bool
	open    int // pushes and late sections
	idle    chan struct{}
}

// New checks cfg and allocates; it starts nothing. A nil reg works.
func New(
	cfg Config, rings Rings, peers Peers, limits Limits, now func() time.Time, log *slog.Logger, reg prometheus.Registerer,
) (*Replicator, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Replicator{
		cfg: cfg, rings: rings, peers: peers, limits: limits, now: now,
		log: log.With("component", "replicate"), numbers: map[string]uint32{},
		tables: tables{budget: cfg.TableBytes, byID: map[string]*table{}},
	}
	r.metrics = newMetrics(reg, r)
	return r, nil
}

// Push stores b on a quorum of each series' replicas and fills res, which is complete when the error is nil: each sample
// is on a quorum of its replicas, or refused by name by so many that it never can be, or belongs to a series whose handle
// is not known any more. With an error nothing is known of the batch; sending it again is safe. Label sets are kept,
// nothing else of the batch is used once Push returned.
//
// It returns as soon as all samples are decided. Members that are slower get theirs all the same, within
// Config.LateTimeout. Kinds of errors: Unavailable without a quorum, or when too much is on its way.
func (r *Replicator) Push(ctx context.Context, tenantID string, b *duramenpb.Batch, res *duramenpb.PushResult) error {
	res.Reset()
	if !r.begin() {
		return unavailable(errClosed)
	}
	defer r.end()
	ctx, span := tracing.Start(ctx, "replicate.push")
	p := r.pushes.get(r, tenantID, b)
	err := p.run(ctx, res)
	p.endSpan(span, res, err)
	r.metrics.count(res, err)
	r.pushes.put(p)
	return err
}

// Close refuses pushes and waits for those that run, and until all late members have answered or Config.LateTimeout is
// over.
func (r *Replicator) Close() error {
	r.closing.Lock()
	r.closed = true
	if r.open > 0 && r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.closing.Unlock()
	if idle != nil {
		<-idle
	}
	return nil
}

// begin counts a push or a late section; end has to be called if it returns true.
func (r *Replicator) begin() bool {
	r.closing.Lock()
	defer r.closing.Unlock()
	if r.closed {
		return false
	}
	r.open++
	return true
}

// outlive counts n late sections of a push that has begun.
func (r *Replicator) outlive(n int) {
	r.closing.Lock()
	r.open += n
	r.closing.Unlock()
}

func (r *Replicator) end() {
	r.closing.Lock()
	r.open--
	if r.open == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
	r.closing.Unlock()
}

func unavailable(err error) error { return errkind.Wrap(errkind.Unavailable, err) }
