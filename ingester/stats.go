package ingester

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/duramendb/duramen/duramenpb"
)

// TenantStats is one line of the index page and one entry of GET /ingester/tenants.
type TenantStats struct {
	Tenant string `json:"tenant"`
	// State is closed, opening, open, reopening or closing.
	State string `json:"state"`
	// Damaged is set when a log or a block was found damaged and set aside; see the log and the folder.
	Damaged bool `json:"damaged"`
	// Series is how many series are in memory.
	Series uint64 `json:"series"`
	// SamplesPerSecond is over the last whole minute.
	SamplesPerSecond float64 `json:"samples_per_second"`
	// LastAppend and LastFlush are zero when unknown: a restart forgets them.
	LastAppend time.Time `json:"last_append,omitzero"`
	LastFlush  time.Time `json:"last_flush,omitzero"`
	// OldestInMemory is the time of the oldest sample that is in no block yet, zero when there is none or when it is
	// unknown, for the tenant is not open.
	OldestInMemory time.Time `json:"oldest_in_memory,omitzero"`
	// LocalBlocks are on this disk, UnshippedBlocks of them not in the bucket.
	LocalBlocks     int `json:"local_blocks"`
	UnshippedBlocks int `json:"unshipped_blocks"`
}

// TenantStats returns all tenants by name. It opens none.
func (i *Ingester) TenantStats() []TenantStats {
	all := i.tenants.all()
	out := make([]TenantStats, 0, len(all))
	for _, t := range all {
		out = append(out, t.stats(i.now()))
	}
	slices.SortFunc(out, func(a, b TenantStats) int { return cmp.Compare(a.Tenant, b.Tenant) })
	return out
}

// UserStats returns how much a tenant writes. It opens no tenant: a closed one has no series in memory.
//
// Kinds of errors: Unavailable while starting or stopping, Gone for a tenant that is to be deleted.
func (i *Ingester) UserStats(_ context.Context, tenantID string) (duramenpb.UserStats, error) {
	if err := i.serving(); err != nil {
		return duramenpb.UserStats{}, err
	}
	if err := i.dooms.refuse(tenantID); err != nil {
		return duramenpb.UserStats{}, err
	}
	t, err := i.tenants.get(tenantID, false)
	if err != nil || t == nil {
		return duramenpb.UserStats{}, err
	}
	s := t.stats(i.now())
	return duramenpb.UserStats{Series: s.Series, SamplesPerSecond: s.SamplesPerSecond}, nil
}

func (t *tenantDB) stats(now time.Time) TenantStats {
	s := TenantStats{Tenant: t.id, State: t.currentState().String(), SamplesPerSecond: t.rate.perSecond(now)}
	s.LastAppend = t.rate.lastAdd()
	l := t.tryAcquire()
	if l == nil {
		return s
	}
	defer l.release()
	blocks := l.db.Blocks()
	s.Series = l.db.Head().NumSeries()
	s.LocalBlocks, s.UnshippedBlocks = len(blocks), len(l.blocks.unshipped(blocks))
	s.OldestInMemory = l.oldestInMemory()
	s.Damaged = len(l.report.LostWAL) > 0 || len(l.report.Quarantined) > 0
	if ms := l.lastFlush.Load(); ms != 0 {
		s.LastFlush = time.UnixMilli(ms)
	}
	return s
}

// oldestInMemory returns the time of the oldest sample that is in no block, or zero.
func (l *life) oldestInMemory() time.Time {
	head, oldest := l.db.Head(), int64(math.MaxInt64)
	if l.highest.Load() >= head.MinTime() {
		oldest = head.MinTime()
	}
	if l.oooPending.Load() {
		oldest = min(oldest, head.MinOOOTime())
	}
	if oldest == math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMilli(oldest).UTC()
}

func (t *tenantDB) currentState() tenantState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// sampleRate counts samples by the minute of the clock. Safe for concurrent use.
type sampleRate struct {
	mu       sync.Mutex
	minute   int64 // of current, since the Unix epoch
	current  int
	previous int
	last     time.Time
}

func (r *sampleRate) add(n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	r.current += n
	r.last = now
}

// perSecond returns the rate of the minute before this one, or of this one while it is the first.
func (r *sampleRate) perSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn(now)
	if r.previous == 0 {
		return float64(r.current) / max(1, float64(now.Unix()%60))
	}
	return float64(r.previous) / 60
}

func (r *sampleRate) lastAdd() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *sampleRate) turn(now time.Time) {
	minute := now.Unix() / 60
	if minute == r.minute {
		return
	}
	r.previous = 0
	if minute == r.minute+1 {
		r.previous = r.current
	}
	r.minute, r.current = minute, 0
}
