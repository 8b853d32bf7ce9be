package gossip

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/ring"
)

// Why gossip is dropped.
const (
	reasonLabel     = "cluster_label"
	reasonKey       = "encryption_key"
	reasonMalformed = "malformed"
	reasonTooLarge  = "too_large"
	reasonOverload  = "overload"
	reasonTLS       = "tls"
	reasonUnsent    = "unsent"
)

type metrics struct {
	members      *prometheus.GaugeVec
	shown        map[[2]string]int
	oldest       prometheus.Gauge
	changes      prometheus.Counter
	joins        prometheus.Counter
	joinFailures prometheus.Counter
	dropped      *prometheus.CounterVec
	forgotten    *prometheus.CounterVec
	problems     *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, n *Node) *metrics {
	factory := promauto.With(reg)
	m := &metrics{
		members: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "duramen_ring_members",
			Help: "Members of the cluster by role and state, as this one sees them; DEAD are those whose heartbeat is " +
				"older than the timeout. Members that differ in this for long do not see one another.",
		}, []string{"role", "state"}),
		oldest: factory.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_ring_oldest_heartbeat_seconds",
			Help: "Age of the oldest heartbeat of a member that has not left. A rise means that a member is down.",
		}),
		changes: factory.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ring_changes_total",
			Help: "Changes of the members, states or addresses that series are placed by. A steady rise means that members " +
				"come and go.",
		}),
		joins: factory.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ring_joins_total",
			Help: "Tries to reach a member that is not seen. A steady rise means that one of the join list is down.",
		}),
		joinFailures: factory.NewCounter(prometheus.CounterOpts{
			Name: "duramen_ring_join_failures_total",
			Help: "Tries to reach a member that did not work, names that were not resolved included. A rise " +
				"that lasts means an address that is wrong or closed.",
		}),
		dropped: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_ring_dropped_messages_total",
			Help: "Gossip that was dropped, by reason. cluster_label and encryption_key mean that somebody of another " +
				"cluster, or with another key, sends to this one; tls that a certificate is refused, or that some members " +
				"gossip with TLS and some without. unsent are packets of TLS for a member that is away or slow.",
		}, []string{"reason"}),
		forgotten: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_ring_forgotten_members_total",
			Help: "Members that this one has made the cluster forget: with the proof that their samples are in the bucket, " +
				"or by request. Each is a member that did not come back.",
		}, []string{"by"}),
		problems: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "duramen_ring_problem",
			Help: "1 while something is wrong that only a person can put right. The page /ring and the log say what it is.",
		}, []string{"kind"}),
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_ring_skewed_members",
		Help: "Members whose clock is more than 10 s away from this one's. Their samples may be refused, and blocks cut at " +
			"wrong times.",
	}, func() float64 { return float64(n.skewedMembers()) })
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_ring_gossip_members",
		Help: "Members that gossip reaches, this one included. A fall without a stop means that the network is parted.",
	}, func() float64 { return float64(n.size()) })
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_ring_gossip_health_score",
		Help: "How badly this member keeps up with gossip: 0 is well. A rise means that it has too little CPU, or that its " +
			"packets are lost.",
	}, func() float64 {
		if list := n.list.Load(); list != nil {
			return float64(list.GetHealthScore())
		}
		return 0
	})
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_ring_gossip_queue_length",
		Help: "News that is still to be passed on. A steady rise means that packets are too small or too rare.",
	}, func() float64 { return float64(n.queue.NumQueued()) })
	for _, kind := range problemKinds() {
		m.problems.WithLabelValues(kind).Set(0)
	}
	for _, reason := range []string{reasonLabel, reasonKey, reasonMalformed, reasonTooLarge, reasonOverload, reasonTLS, reasonUnsent} {
		m.dropped.WithLabelValues(reason)
	}
	for _, by := range []string{"proof", "request"} {
		m.forgotten.WithLabelValues(by)
	}
	return m
}

// stateDead stands for the state of a member whose heartbeat is too old.
const stateDead = "DEAD"

// observe sets the gauges that follow from the ring. One caller at a time.
func (m *metrics) observe(r *ring.Ring, now time.Time) {
	counts := map[[2]string]int{}
	oldest := now.UnixMilli()
	for _, e := range r.All() {
		if e.Forgotten != nil || e.Member.State == ring.Left {
			continue
		}
		oldest = min(oldest, e.Member.Seen)
		state := e.Member.State.String()
		if !r.Alive(e.Member, now) {
			state = stateDead
		}
		for _, role := range e.Member.Roles {
			counts[[2]string{knownRole(role), state}]++
		}
	}
	for key := range m.shown {
		if counts[key] == 0 {
			m.members.DeleteLabelValues(key[0], key[1])
		}
	}
	for key, count := range counts {
		m.members.WithLabelValues(key[0], key[1]).Set(float64(count))
	}
	m.shown = counts
	m.oldest.Set(float64(now.UnixMilli()-oldest) / 1000)
}

// knownRole keeps the label's values a closed set, whatever a member says of itself.
func knownRole(role ring.Role) string {
	switch role {
	case ring.RoleDistributor, ring.RoleIngester, ring.RoleQuerier, ring.RoleStoreGateway, ring.RoleCompactor:
		return string(role)
	default:
		return "other"
	}
}

// skewedMembers counts clocks that are off.
func (n *Node) skewedMembers() int {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	count := 0
	for _, c := range n.clocks {
		if c.skew() != 0 {
			count++
		}
	}
	return count
}
