package ingester

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// ledger remembers what was sent and what became of it, and compares that with what is read. Safe for concurrent use.
type ledger struct {
	mu sync.Mutex
	// taken holds, by series and timestamp, the values that must be there.
	taken map[string]map[int64][]sample
	// must are the samples that were acknowledged.
	must []ledgerEntry
	// other are the samples refused because another value is held.
	other []ledgerEntry
}

type ledgerEntry struct {
	series string
	s      sample
	index  int32 // as a Refusal names it
}

func newLedger() *ledger { return &ledger{taken: map[string]map[int64][]sample{}} }

// entriesOf lists the samples of each series of a batch. names tells by-reference series' label sets.
func entriesOf(b *duramenpb.Batch, names []string) [][]ledgerEntry {
	out := make([][]ledgerEntry, len(b.Series))
	floats, histograms := 0, 0
	for i, s := range b.Series {
		for ; floats < s.FloatsEnd; floats++ {
			out[i] = append(out[i], ledgerEntry{
				names[i], sample{t: b.Floats[floats].T, v: b.Floats[floats].V}, int32(floats),
			})
		}
		for ; histograms < s.HistogramsEnd; histograms++ {
			h := b.Histograms[histograms]
			out[i] = append(out[i], ledgerEntry{names[i], sample{t: h.T, h: h.H, fh: h.FH}, ^int32(histograms)})
		}
	}
	return out
}

// acknowledged enters an answered batch and checks that each sample is accounted for.
func (l *ledger) acknowledged(t *testing.T, b *duramenpb.Batch, names []string, r *duramenpb.PushResult) {
	t.Helper()
	entries := entriesOf(b, names)
	sum := r.Floats + r.Histograms
	refused := map[int32]*duramenpb.Refusal{}
	for i := range r.Refused {
		x := &r.Refused[i]
		require.Positive(t, x.Floats+x.Histograms)
		require.NotEmpty(t, x.Detail)
		sum += x.Floats + x.Histograms
		histograms := 0
		for _, s := range x.Samples {
			require.Nil(t, refused[s], "a sample is refused once")
			refused[s] = x
			if s < 0 {
				histograms++
			}
		}
		require.Equal(t, []int{x.Floats, x.Histograms}, []int{len(x.Samples) - histograms, histograms})
	}
	for _, i := range r.Stale {
		for _, e := range entries[i] {
			require.Nil(t, refused[e.index], "a stale series has nothing refused")
		}
		sum += len(entries[i])
		entries[i] = nil
	}
	require.Equal(t, len(b.Floats)+len(b.Histograms), sum, "accepted + refused + stale = sent")

	l.mu.Lock()
	defer l.mu.Unlock()
	for i, es := range entries {
		for _, e := range es {
			switch x := refused[e.index]; {
			case x == nil:
				l.must = append(l.must, e)
				l.take(e)
			case x.Series != i:
				t.Errorf("refusal of series %d names sample %d of series %d", x.Series, e.index, i)
			case x.Reason == duramenpb.ReasonDuplicate:
				l.other = append(l.other, e)
			}
		}
	}
}

func (l *ledger) take(e ledgerEntry) {
	if l.taken[e.series] == nil {
		l.taken[e.series] = map[int64][]sample{}
	}
	l.taken[e.series][e.s.t] = append(l.taken[e.series][e.s.t], e.s)
}

// verify compares the ledger with everything that is read.
func (l *ledger) verify(t *testing.T, got map[string][]sample) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	held := map[string]map[int64]sample{}
	for name, samples := range got {
		held[name] = map[int64]sample{}
		for _, s := range samples {
			_, twice := held[name][s.t]
			require.False(t, twice, "%s has two samples at %d", name, s.t)
			held[name][s.t] = s
			known := false
			for _, x := range l.taken[name][s.t] {
				known = known || equalSamples(x, s)
			}
			require.True(t, known, "%s at %d holds %+v, which was never acknowledged", name, s.t, s)
		}
	}
	is := func(e ledgerEntry) bool {
		s, ok := held[e.series][e.s.t]
		return ok && equalSamples(s, e.s)
	}
	for _, e := range l.must {
		require.True(t, is(e), "%s at %d was acknowledged as %+v and is %+v", e.series, e.s.t, e.s, held[e.series][e.s.t])
	}
	for _, e := range l.other {
		_, ok := held[e.series][e.s.t]
		require.True(t, ok, "%s at %d was refused because another value is held, but none is", e.series, e.s.t)
	}
}

// generator makes random batches over few series and timestamps, so that all kinds of collisions happen.
type generator struct {
	rnd    *rand.Rand
	series int
	refs   map[string]uint64
	life   uint64
}

func (g *generator) name(i int) labels.Labels {
	return labels.FromStrings("__name__", "m", "series", fmt.Sprint(i))
}

// sample adds one random sample at t. Few values make equal ones likely.
func (g *generator) sample(b *batch, t int64) {
	v := float64(g.rnd.IntN(3))
	switch g.rnd.IntN(12) {
	case 0, 1:
		b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t, H: testHistogram(int(v), g.rnd.IntN(3))})
	case 2:
		b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t, FH: testHistogram(int(v), g.rnd.IntN(3)).ToFloat(nil)})
	case 3:
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: math.Float64frombits(value.StaleNaN)})
	default:
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: v})
	}
}

func testHistogram(v, layout int) *histogram.Histogram {
	h := &histogram.Histogram{
		Schema: 1, ZeroThreshold: 1e-9, ZeroCount: uint64(v), Sum: float64(v),
		PositiveSpans:   []histogram.Span{{Offset: int32(layout), Length: 2}},
		PositiveBuckets: []int64{int64(v + 1), 0},
	}
	h.Count = h.ZeroCount + 2*uint64(v+1)
	return h
}

// next makes a batch around the time at; names are its series' label sets.
func (g *generator) next(at int64) (*batch, []string) {
	b, names := &batch{}, []string(nil)
	b.Incarnation = g.life
	for range 1 + g.rnd.IntN(12) {
		lset := g.name(g.rnd.IntN(g.series))
		for range 1 + g.rnd.IntN(2)*g.rnd.IntN(3) {
			t := at + int64(g.rnd.IntN(5))*1000
			switch g.rnd.IntN(10) {
			case 0:
				t -= int64(g.rnd.IntN(180)) * 60_000
			case 1:
				t -= int64(g.rnd.IntN(400)) * 60_000
			}
			g.sample(b, t)
		}
		name := lset.String()
		if ref := g.refs[name]; ref != 0 && g.rnd.IntN(3) > 0 {
			b.end(duramenpb.Series{Ref: ref})
		} else {
			b.end(duramenpb.Series{Labels: lset})
		}
		names = append(names, name)
	}
	return b, names
}

func (g *generator) learn(names []string, r *duramenpb.PushResult) {
	if g.life != r.Incarnation {
		g.life, g.refs = r.Incarnation, map[string]uint64{}
	}
	for i, ref := range r.Refs {
		if ref != 0 {
			g.refs[names[i]] = ref
		}
	}
	for _, i := range r.Stale {
		delete(g.refs, names[i])
	}
}

// TestLedger sends random batches from several goroutines while blocks are cut, and compares all that was acknowledged or
// refused with what is read, also after restarts. It fails when any rule about Commit's silent drops is left out.
func TestLedger(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds, batches := 3, 100
	if testing.Short() {
		rounds, batches = 2, 60
	}
	f := newFixture(t)
	l := newLedger()
	l.acknowledged(t, &duramenpb.Batch{}, nil, f.push(new(batch)))
	for round := range rounds {
		var senders sync.WaitGroup
		for sender := range 3 {
			g := &generator{
				rnd: rand.New(rand.NewPCG(seed, uint64(round*10+sender))), series: 8, refs: map[string]uint64{},
			}
			senders.Go(func() {
				r := &duramenpb.PushResult{}
				for range batches {
					b, names := g.next(ms(f.clock.now()) - 10_000)
					if err := f.Push(context.Background(), "a", &b.Batch, r); err != nil {
						t.Error(err)
						return
					}
					l.acknowledged(t, &b.Batch, names, r)
					g.learn(names, r)
					f.clock.advance(7_000_000_000)
				}
			})
		}
		done := make(chan struct{})
		var flusher sync.WaitGroup
		flusher.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := f.Flush(context.Background(), "a", false); err != nil {
					t.Error(err)
					return
				}
			}
		})
		senders.Wait()
		close(done)
		flusher.Wait()
		l.verify(t, f.read())
		f.restart()
		l.verify(t, f.read())
		if t.Failed() {
			return
		}
	}
}
