package lifecycle

import (
	"fmt"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// point names a sample: a series and a time in milliseconds.
type point struct {
	series int
	t      int64
}

// model is what was sent and what of it was acknowledged. A sample keeps its place for ever: nothing is ever deleted.
type model struct {
	mu    sync.Mutex
	sent  map[point]uint64 // value, by its bits
	acked map[point]struct{}
	last  []point // the order in which samples were acknowledged
}

func newModel() *model {
	return &model{sent: map[point]uint64{}, acked: map[point]struct{}{}}
}

// send notes that a sample is on its way and returns its value, always the same for one point.
func (m *model) send(p point) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := float64(p.t%1_000_003)*16 + float64(p.series)
	m.sent[p] = math.Float64bits(v)
	return v
}

func (m *model) ack(ps []point) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range ps {
		if _, ok := m.acked[p]; !ok {
			m.acked[p] = struct{}{}
			m.last = append(m.last, p)
		}
	}
}

// acknowledged returns the samples with mint ≤ t ≤ maxt that a query which begins now must return.
func (m *model) acknowledged(mint, maxt int64) map[point]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	must := map[point]struct{}{}
	for p := range m.acked {
		if mint <= p.t && p.t <= maxt {
			must[p] = struct{}{}
		}
	}
	return must
}

// judge compares an answer with what it must hold at least and with what was ever sent.
func (m *model) judge(got map[point]uint64, must map[point]struct{}, mint, maxt int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, bits := range got {
		switch sent, ok := m.sent[p]; {
		case !ok:
			return fmt.Errorf("series %d at %d was never sent", p.series, p.t)
		case sent != bits:
			return fmt.Errorf("series %d at %d has another value than was sent", p.series, p.t)
		case p.t < mint || p.t > maxt:
			return fmt.Errorf("series %d at %d is not in [%d, %d]", p.series, p.t, mint, maxt)
		}
	}
	missing, example := 0, point{t: math.MaxInt64}
	for p := range must {
		if _, ok := got[p]; !ok {
			missing++
			if p.t < example.t {
				example = p
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d acknowledged samples are missing, the oldest is series %d at %d",
			missing, len(must), example.series, example.t)
	}
	return nil
}

func (m *model) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.last)
}

func (m *model) nth(i int) point {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[i]
}

const seriesLabel = "series"

func seriesLabels(series int) labels.Labels {
	return labels.FromStrings(labels.MetricName, "life", seriesLabel, fmt.Sprint(series))
}
