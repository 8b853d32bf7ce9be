package replicate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ distributor.Pusher = (*Replicator)(nil)
	_ Limits             = (*tenant.Limits)(nil)
)

// store is an ingester without a TSDB: it believes nothing, and remembers what it was sent under which labels.
type store struct {
	mu          sync.Mutex
	incarnation uint64
	nextRef     uint64
	byRef       map[uint64]string
	byLabels    map[string]uint64
	held        map[string]map[int64]int // how often each sample came
	metadata    map[string]bool
	wrong       []string // samples that came under the labels of another series
	byReference int
	exemplars   int

	refuses func(series string, t int64) bool
}

func newStore(life uint64) *store {
	s := &store{held: map[string]map[int64]int{}, metadata: map[string]bool{}}
	s.reopen(life)
	return s
}

// reopen begins another life: all references are void, and given again to others.
func (s *store) reopen(life uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.incarnation, s.nextRef = life, life%7+1
	s.byRef, s.byLabels = map[uint64]string{}, map[string]uint64{}
}

// forget drops every series of which the reference is a multiple of n, as the garbage collection of a head does.
func (s *store) forget(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, l := range s.byRef {
		if ref%n == 0 {
			delete(s.byRef, ref)
			delete(s.byLabels, l)
		}
	}
}

// push stores a section. Each sample's value has to be that of its series.
func (s *store) push(section []byte) (*duramenpb.PushResult, error) {
	header, err := duramenpb.ParseSectionHeader(section)
	if err != nil {
		return nil, err
	}
	var d duramenpb.SectionDecoder
	b := &duramenpb.Batch{Incarnation: header.Incarnation}
	if err := d.Decode(section, b); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &duramenpb.PushResult{Incarnation: s.incarnation}
	f, h := 0, 0
	for i := range b.Series {
		in := &b.Series[i]
		r.Refs = append(r.Refs, 0)
		name := in.Labels.String()
		if in.Ref != 0 {
			known, ok := s.byRef[in.Ref]
			if b.Incarnation != s.incarnation || !ok {
				r.Stale = append(r.Stale, i)
				f, h = in.FloatsEnd, in.HistogramsEnd
				continue
			}
			name = known
			s.byReference++
		}
		if s.byLabels[name] == 0 {
			s.byLabels[name], s.byRef[s.nextRef] = s.nextRef, name
			s.nextRef++
		}
		r.Refs[i] = s.byLabels[name]
		var refused duramenpb.Refusal
		for ; f < in.FloatsEnd; f++ {
			if want := valueOf(name); want != b.Floats[f].V {
				s.wrong = append(s.wrong, fmt.Sprintf("%s got %g", name, b.Floats[f].V))
			}
			if s.take(name, b.Floats[f].T) {
				r.Floats++
				continue
			}
			refused.Floats++
			refused.Samples = append(refused.Samples, int32(f))
		}
		for ; h < in.HistogramsEnd; h++ {
			if want := valueOf(name); want != b.Histograms[h].H.Sum {
				s.wrong = append(s.wrong, fmt.Sprintf("%s got a histogram of %g", name, b.Histograms[h].H.Sum))
			}
			if s.take(name, b.Histograms[h].T) {
				r.Histograms++
				continue
			}
			refused.Histograms++
			refused.Samples = append(refused.Samples, ^int32(h))
		}
		if len(refused.Samples) > 0 {
			refused.Series, refused.Reason, refused.Detail = i, duramenpb.ReasonTooOld, "too old by chance"
			r.Refused = append(r.Refused, refused)
		}
	}
	r.Exemplars = len(b.Exemplars)
	s.exemplars += len(b.Exemplars)
	for _, m := range b.Metadata {
		s.metadata[m.Family] = true
	}
	return r, nil
}

func (s *store) take(series string, t int64) bool {
	if s.refuses != nil && s.refuses(series, t) {
		return false
	}
	if s.held[series] == nil {
		s.held[series] = map[int64]int{}
	}
	s.held[series][t]++
	return true
}

func (s *store) has(series string, t int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[series][t] > 0
}

// valueOf is what all samples of a series have to be.
func valueOf(series string) float64 { return float64(hashOf(series) >> 20) }

// peer answers sections from a store, as it is told.
type peer struct {
	*store
	// serve overrides how a section is answered.
	serve func(ctx context.Context, section []byte, done func(*duramenpb.PushResult, error))
	sent  atomic.Int64
}

func (p *peer) Send(ctx context.Context, _ string, section []byte, done func(*duramenpb.PushResult, error)) {
	p.sent.Add(1)
	if p.serve != nil {
		p.serve(ctx, section, done)
		return
	}
	done(p.push(section))
}

// cluster is members with their stores, and the ring that they are in.
type cluster struct {
	t       testing.TB
	peers   map[string]*peer
	members []ring.Member
	rf      int
	now     atomic.Pointer[ring.Ring]
}

// newCluster has members in each of the zones.
func newCluster(t testing.TB, rf, each int, zones ...string) *cluster {
	c := &cluster{t: t, peers: map[string]*peer{}, rf: rf}
	for _, zone := range zones {
		for n := range each {
			c.add(zone, n)
		}
	}
	c.turn()
	return c
}

func (c *cluster) add(zone string, ordinal int) *ring.Member {
	id := fmt.Sprintf("ing-%s-%d", zone, ordinal)
	if c.peers[id] == nil {
		c.peers[id] = &peer{store: newStore(uint64(len(c.peers)) + 100)}
	}
	c.members = append(c.members, ring.Member{
		ID: id, Roles: []ring.Role{ring.RoleIngester}, Zone: zone, Ordinal: ordinal, StorageID: id, Address: id,
		State: ring.Active, Epoch: 1, Counter: 1,
	})
	return &c.members[len(c.members)-1]
}

// turn makes a new ring of the members.
func (c *cluster) turn() {
	var entries []ring.Entry
	for _, m := range c.members {
		entries = append(entries, ring.MemberEntry(m))
	}
	c.now.Store(ring.New(ring.Config{ReplicationFactor: c.rf, HeartbeatTimeout: time.Hour}, entries, time.Now()))
}

func (c *cluster) Ring() *ring.Ring        { return c.now.Load() }
func (c *cluster) Peer(m ring.Member) Peer { return c.peers[m.ID] }

// shards is limits with a size of shards. One that is larger than the cluster is computed for the partitions that are
// asked for, where 0 makes the ring compute them all.
type shards int

func (s shards) IngestionTenantShardSize(string) int { return int(s) }

func testConfig() Config {
	return Config{
		TableBytes: 64 << 20, MaxInflightBytes: 64 << 20, MaxLateBytes: 8 << 20,
		PushTimeout: 2 * time.Second, LateTimeout: 10 * time.Second,
	}
}

func newTest(t testing.TB, c *cluster, cfg Config) *Replicator {
	r, err := New(cfg, c, c, shards(1000), time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	return r
}

// series is the labels of test series i.
func series(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%5), "i", fmt.Sprint(i))
}

// batch makes a batch of n series from the first on with one float each, at t.
func batch(first, n int, t int64) *duramenpb.Batch {
	b := &duramenpb.Batch{}
	for i := first; i < first+n; i++ {
		l := series(i)
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: valueOf(l.String())})
		b.Series = append(b.Series, duramenpb.Series{Labels: l, FloatsEnd: len(b.Floats)})
	}
	return b
}

// byRefs turns the series of b into references of res.
func byRefs(b *duramenpb.Batch, res *duramenpb.PushResult) {
	b.Incarnation = res.Incarnation
	for i := range b.Series {
		if res.Refs[i] != 0 {
			b.Series[i].Ref, b.Series[i].Labels = res.Refs[i], labels.EmptyLabels()
		}
	}
}
