// Package seriesgen makes seeded series that look like those of a Kubernetes cluster, and the remote write requests that
// carry them. Every sample is a pure function of seed, series and scrape, so that whoever sent it can say years later
// what must be there; nothing is remembered and nothing is random twice. Read package e2e next for the ledgers built on
// it, and bench/ingest for the load.
package seriesgen

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// SeriesPerPod is the number of series that one pod exposes; series i belongs to pod i / SeriesPerPod.
const SeriesPerPod = len(catalogue)

// Config says which series there are and when they are scraped.
type Config struct {
	// Seed decides every name and value. Two generators of one Config are equal.
	Seed uint64
	// Series is how many series there are, a multiple of SeriesPerPod for whole pods.
	Series int
	// Start is the begin of scrape 0 in milliseconds since the Unix epoch.
	Start int64
	// Interval is the time between two scrapes; each pod has its own fixed offset within it.
	Interval time.Duration
	// Histograms turns four series of each pod into native histograms: integer, float, custom buckets of both kinds.
	Histograms bool
	// Extra labels are added to every series, so that several generators can share a tenant.
	Extra map[string]string
}

// Generator makes the series of one Config. It is immutable but for caches and safe for concurrent use.
type Generator struct {
	cfg  Config
	pods []atomic.Pointer[pod] // built when they are first needed

	mu     sync.Mutex
	frames map[int]*frame // what all 2.0 requests of one span share, by its first series, see AppendRequest2
}

// pod is what the series of one pod share.
type pod struct {
	offset int64                // milliseconds after the scrape's begin
	labels [][]labels.Label     // of each series, sorted
	raw    [SeriesPerPod][]byte // of each series: its labels as fields of a remote write 1.0 TimeSeries
}

// New checks cfg. The labels of a pod are built when they are first asked for; see Prepare.
func New(cfg Config) (*Generator, error) {
	if cfg.Series <= 0 || cfg.Interval < time.Millisecond {
		return nil, fmt.Errorf("seriesgen: %d series every %s; both must be positive", cfg.Series, cfg.Interval)
	}
	return &Generator{
		cfg: cfg, frames: map[int]*frame{},
		pods: make([]atomic.Pointer[pod], (cfg.Series+SeriesPerPod-1)/SeriesPerPod),
	}, nil
}

// pod returns the pod of a series. Two callers may build it at the same time: the results are equal.
func (g *Generator) pod(series int) *pod {
	at := &g.pods[series/SeriesPerPod]
	p := at.Load()
	if p == nil {
		p = newPod(g.cfg, series/SeriesPerPod)
		at.Store(p)
	}
	return p
}

// Prepare builds the labels of the series [from, to), which takes about a microsecond and 600 bytes for each series.
func (g *Generator) Prepare(from, to int) {
	for p := from / SeriesPerPod; p*SeriesPerPod < to; p++ {
		g.pod(p * SeriesPerPod)
	}
}

// Forget drops what is kept for the series [from, to), of pods that lie in it whole; it is built again when somebody
// asks. Callers that pass over many series once keep their memory bounded with it.
func (g *Generator) Forget(from, to int) {
	for p := (from + SeriesPerPod - 1) / SeriesPerPod; (p+1)*SeriesPerPod <= to; p++ {
		g.pods[p].Store(nil)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := from; s < to; s++ {
		delete(g.frames, s)
	}
}

func newPod(cfg Config, p int) *pod {
	h := mix(cfg.Seed, uint64(p))
	target := targetLabels(h, p)
	for name, value := range cfg.Extra {
		target = append(target, labels.Label{Name: name, Value: value})
	}
	made := &pod{offset: int64(h % uint64(cfg.Interval.Milliseconds())), labels: make([][]labels.Label, SeriesPerPod)}
	for slot := range catalogue {
		m := &catalogue[slot]
		lset := append([]labels.Label{{Name: labels.MetricName, Value: m.name}}, target...)
		lset = append(lset, m.extra...)
		sort.Slice(lset, func(i, j int) bool { return lset[i].Name < lset[j].Name })
		made.labels[slot] = lset
		made.raw[slot] = appendLabels1(nil, lset)
	}
	return made
}

// Series returns how many series there are.
func (g *Generator) Series() int { return g.cfg.Series }

// Labels returns the label set of a series.
func (g *Generator) Labels(series int) labels.Labels {
	return labels.New(g.pod(series).labels[series%SeriesPerPod]...)
}

// Pod returns the value of the label "pod" that the series bears, unique to its SeriesPerPod series.
func (g *Generator) Pod(series int) string {
	for _, l := range g.pod(series).labels[0] {
		if l.Name == "pod" {
			return l.Value
		}
	}
	return ""
}

// Find returns the series that bears exactly these labels.
func (g *Generator) Find(lset labels.Labels) (series int, ok bool) {
	name := lset.Get("pod")
	p, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil || p < 0 || p >= len(g.pods) {
		return 0, false
	}
	metric := lset.Get(labels.MetricName)
	for slot := range catalogue {
		series := p*SeriesPerPod + slot
		if catalogue[slot].name == metric && series < g.cfg.Series && labels.Equal(lset, g.Labels(series)) {
			return series, true
		}
	}
	return 0, false
}

// Names returns the names of all metrics, sorted, each once.
func Names() []string {
	names := make([]string, 0, len(catalogue))
	for i := range catalogue {
		names = append(names, catalogue[i].name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Time returns when the series is scraped for the scrape-th time, in milliseconds since the Unix epoch.
func (g *Generator) Time(series, scrape int) int64 {
	return g.cfg.Start + int64(scrape)*g.cfg.Interval.Milliseconds() + g.pod(series).offset
}

// targetLabels returns what every series of pod p bears: the labels of a scrape by the Prometheus operator.
func targetLabels(h uint64, p int) []labels.Label {
	app := apps[h%uint64(len(apps))]
	node := mix(h, 1) % 250
	address := fmt.Sprintf("10.%d.%d.%d", 16+node%8, p/250%250, p%250)
	return []labels.Label{
		{Name: "cluster", Value: "prod-eu1"},
		{Name: "container", Value: app},
		{Name: "endpoint", Value: "http"},
		{Name: "instance", Value: address + ":8080"},
		{Name: "job", Value: app},
		{Name: "namespace", Value: namespaces[mix(h, 2)%uint64(len(namespaces))]},
		{Name: "node", Value: "ip-10-12-" + strconv.FormatUint(node, 10) + "-17.ec2.internal"},
		{Name: "pod", Value: fmt.Sprintf("%s-%010x-%05d", app, mix(h, 3)&0xffffffffff, p)},
		{Name: "prometheus", Value: "k8s"},
		{Name: "service", Value: app},
	}
}

// mix is a step of splitmix64: cheap, and good enough that neighbouring inputs share nothing.
func mix(a, b uint64) uint64 {
	z := a + (b+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
