// Package loadplan says which samples a run of load consists of: the tenants, the pods that are alive at each scrape, and
// the requests that carry them. It is pure: whoever knows a Config knows every sample of the run, and nothing here sends,
// remembers or asks. Read package loadgen next for the sender, and loadverify for the proof that it was kept.
package loadplan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// RunLabel is the label that all series of a run bear, with the run's name as value. What bears it and was not sent was
// invented.
const RunLabel = "load_run"

// maxPods bounds the table of pods of a tenant: 10 million are 500 million series and 80 MB of table.
const maxPods = 10_000_000

// Config identifies a run. Two runs of one Config are the same samples.
type Config struct {
	// Seed decides names and values.
	Seed uint64 `json:"seed"`
	// Tenants write series of their own each. The one tenant "" is for servers without tenants.
	Tenants []string `json:"tenants"`
	// Series is how many series each tenant has alive at a time, whole pods of seriesgen.SeriesPerPod.
	Series int `json:"series"`
	// Start is the begin of the first scrape in milliseconds since the Unix epoch, Interval the time between two scrapes
	// and Scrapes their number.
	Start    int64         `json:"start"`
	Interval time.Duration `json:"interval_ns"`
	Scrapes  int           `json:"scrapes"`
	// Histograms turns four series of each pod into native histograms.
	Histograms bool `json:"histograms"`
	// Churn is the share of pods that are replaced by new ones in an hour, one after another.
	Churn float64 `json:"churn"`
	// PerRequest is the number of samples in a request, whole pods.
	PerRequest int `json:"per_request"`
	// Protocols are the versions of remote write that requests use by turns.
	Protocols []remotewrite.Version `json:"protocols"`
	// Unnamed leaves RunLabel off, for measurements that are compared with others. Such a run cannot be verified.
	Unnamed bool `json:"unnamed,omitempty"`
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	tenants := slices.Clone(c.Tenants)
	slices.Sort(tenants)
	switch {
	case len(tenants) == 0:
		return fmt.Errorf("no tenants: name at least one")
	case len(slices.Compact(tenants)) != len(c.Tenants):
		return fmt.Errorf("tenants %v: each must occur once", c.Tenants)
	case c.Series < seriesgen.SeriesPerPod || c.Series%seriesgen.SeriesPerPod != 0:
		return fmt.Errorf("%d series: set a multiple of %d, the series of one pod", c.Series, seriesgen.SeriesPerPod)
	case c.PerRequest < seriesgen.SeriesPerPod || c.PerRequest%seriesgen.SeriesPerPod != 0:
		return fmt.Errorf("%d samples a request: set a multiple of %d, the series of one pod", c.PerRequest, seriesgen.SeriesPerPod)
	case c.Interval < time.Millisecond || c.Interval%time.Millisecond != 0:
		return fmt.Errorf("interval %s: set whole milliseconds", c.Interval)
	case c.Scrapes <= 0 || int64(c.Scrapes) > math.MaxInt64/4/int64(c.Interval):
		return fmt.Errorf("%d scrapes every %s: the end must be after the start, and within a century", c.Scrapes, c.Interval)
	case c.Churn < 0 || c.Churn > 100 || math.IsNaN(c.Churn):
		return fmt.Errorf("churn %v: set the share of series replaced in an hour, 0 to 100", c.Churn)
	case len(c.Protocols) == 0:
		return fmt.Errorf("no protocol: name 1, 2 or both")
	}
	for _, v := range c.Protocols {
		if v != remotewrite.V1 && v != remotewrite.V2 {
			return fmt.Errorf("protocol %d: there are 1 and 2", v)
		}
	}
	return nil
}

// Run returns the name of the run, the value of RunLabel. It is made of everything that decides which samples there are,
// so that two runs share a name only if they are the same.
func (c *Config) Run() string {
	same := *c
	same.Tenants, same.PerRequest, same.Protocols = nil, 0, nil
	data, err := json.Marshal(same)
	if err != nil {
		panic("BUG: own config does not marshal: " + err.Error()) // no NaN passes Validate
	}
	sum := sha256.Sum256(data)
	return strconv.FormatUint(c.Seed, 10) + "-" + hex.EncodeToString(sum[:4])
}

// Layout says where each sample of a run has its place: in which scrape, pod and request. It costs nothing to make.
type Layout struct {
	cfg         Config
	pods        int   // alive at a time
	allPods     int   // that ever live
	perRequest  int   // pods
	replacement int64 // nanoseconds between two pods that are replaced, 0 for never
}

// NewLayout checks cfg.
func NewLayout(cfg Config) (*Layout, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Layout{cfg: cfg, pods: cfg.Series / seriesgen.SeriesPerPod, perRequest: cfg.PerRequest / seriesgen.SeriesPerPod}
	if cfg.Churn > 0 {
		p.replacement = max(1, int64(float64(time.Hour)/(cfg.Churn*float64(p.pods))))
	}
	p.allPods = p.firstPod(cfg.Scrapes-1) + p.pods
	if p.allPods > maxPods {
		return nil, fmt.Errorf("%d series for each tenant in the whole run: %d are the most", p.allPods*seriesgen.SeriesPerPod,
			maxPods*seriesgen.SeriesPerPod)
	}
	return p, nil
}

// Config returns what it was made of.
func (p *Layout) Config() Config { return p.cfg }

// Tenants returns the names of the tenants; a tenant's place in them is its number everywhere else.
func (p *Layout) Tenants() []string { return p.cfg.Tenants }

// Pods returns how many pods of a tenant ever live.
func (p *Layout) Pods() int { return p.allPods }

// Chunks returns how many chunks the series of a tenant are cut into. A request carries one scrape of one chunk.
func (p *Layout) Chunks() int { return (p.allPods + p.perRequest - 1) / p.perRequest }

// Chunk returns the chunk that a pod belongs to.
func (p *Layout) Chunk(pod int) int { return pod / p.perRequest }

// firstPod returns the oldest pod that is alive at a scrape. Pods are replaced in the order of their numbers.
func (p *Layout) firstPod(scrape int) int {
	if p.replacement == 0 {
		return 0
	}
	return int(int64(scrape) * int64(p.cfg.Interval) / p.replacement)
}

// Alive returns the scrapes [from, to) at which a pod is alive.
func (p *Layout) Alive(pod int) (from, to int) {
	from = sort.Search(p.cfg.Scrapes, func(s int) bool { return p.firstPod(s)+p.pods > pod })
	to = sort.Search(p.cfg.Scrapes, func(s int) bool { return p.firstPod(s) > pod })
	return from, to
}

// AliveChunks returns the chunks [from, to) of which series are alive at a scrape.
func (p *Layout) AliveChunks(scrape int) (from, to int) {
	first := p.firstPod(scrape)
	return p.Chunk(first), p.Chunk(first+p.pods-1) + 1
}

// Span returns the series [from, to) of a chunk that are alive at a scrape.
func (p *Layout) Span(chunk, scrape int) (from, to int) {
	first := p.firstPod(scrape)
	from = max(first, chunk*p.perRequest)
	to = max(from, min(first+p.pods, (chunk+1)*p.perRequest))
	return from * seriesgen.SeriesPerPod, to * seriesgen.SeriesPerPod
}

// Version returns the protocol of a request.
func (p *Layout) Version(chunk, scrape int) remotewrite.Version {
	return p.cfg.Protocols[(chunk+scrape)%len(p.cfg.Protocols)]
}

// Begin returns when a scrape begins, in milliseconds since the Unix epoch. Its samples lie in [Begin(scrape),
// Begin(scrape+1)).
func (p *Layout) Begin(scrape int) int64 {
	return p.cfg.Start + int64(scrape)*p.cfg.Interval.Milliseconds()
}

// PerScrape returns the samples of one scrape of one tenant.
func (p *Layout) PerScrape() int { return p.pods * seriesgen.SeriesPerPod }

// Requests returns how many requests carry the whole run.
func (p *Layout) Requests() int {
	n := 0
	for scrape := range p.cfg.Scrapes {
		from, to := p.AliveChunks(scrape)
		n += (to - from) * len(p.cfg.Tenants)
	}
	return n
}

// Samples returns the samples of the whole run.
func (p *Layout) Samples() int64 {
	return int64(p.PerScrape()) * int64(p.cfg.Scrapes) * int64(len(p.cfg.Tenants))
}

// Plan is a Layout with the generators of its series. It is safe for concurrent use.
type Plan struct {
	*Layout
	gens []*seriesgen.Generator // by tenant
}

// New checks cfg. It builds no series yet.
func New(cfg Config) (*Plan, error) {
	layout, err := NewLayout(cfg)
	if err != nil {
		return nil, err
	}
	p := &Plan{Layout: layout}
	extra := map[string]string{RunLabel: cfg.Run()}
	if cfg.Unnamed {
		extra = nil
	}
	for i := range cfg.Tenants {
		gen, err := seriesgen.New(seriesgen.Config{
			// Each tenant has its own names and values, so that a sample in the wrong tenant is seen.
			Seed: cfg.Seed + uint64(i)*0x9e3779b97f4a7c15, Series: p.allPods * seriesgen.SeriesPerPod,
			Start: cfg.Start, Interval: cfg.Interval, Histograms: cfg.Histograms, Extra: extra,
		})
		if err != nil {
			return nil, err
		}
		p.gens = append(p.gens, gen)
	}
	return p, nil
}

// Generator makes the series of a tenant.
func (p *Plan) Generator(tenant int) *seriesgen.Generator { return p.gens[tenant] }

// AppendRequest appends the request for a chunk at a scrape, not yet compressed.
func (p *Plan) AppendRequest(dst []byte, tenant, chunk, scrape int) []byte {
	from, to := p.Span(chunk, scrape)
	if p.Version(chunk, scrape) == remotewrite.V1 {
		return p.gens[tenant].AppendRequest1(dst, scrape, from, to)
	}
	return p.gens[tenant].AppendRequest2(dst, scrape, from, to)
}

// Prepare builds the series of a chunk ahead of its first request.
func (p *Plan) Prepare(tenant, chunk int) { p.gens[tenant].Prepare(p.chunkSeries(chunk)) }

// Forget drops the series of a chunk after its last request. They are built again when somebody asks.
func (p *Plan) Forget(tenant, chunk int) { p.gens[tenant].Forget(p.chunkSeries(chunk)) }

func (p *Plan) chunkSeries(chunk int) (from, to int) {
	return chunk * p.perRequest * seriesgen.SeriesPerPod, min((chunk+1)*p.perRequest, p.allPods) * seriesgen.SeriesPerPod
}
