package replicate

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

var (
	firstSeed = flag.Uint64("replicate.from", 0, "the first seed of TestSchedules")
	seeds     = flag.Uint64("replicate.seeds", defaultSeeds, "how many seeds TestSchedules runs")
)

// TestSchedules runs random worlds of members that are slow, fail, hang, restart, refuse samples, leave and come, and
// compares every verdict with a naive model of the rules that knows every answer that was given.
func TestSchedules(t *testing.T) {
	var sum summary
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runSchedule(t, seed, &sum) })
		})
		if !ok {
			t.Fatalf("repeat with -run TestSchedules -args -replicate.from=%d -replicate.seeds=1", seed)
		}
	}
	t.Logf("%+v", sum)
	if *seeds >= 300 { // The test has to meet what it is about.
		require.Greater(t, sum.stored, 10_000)
		require.Greater(t, sum.refused, 300)
		require.Greater(t, sum.unavailable, 50)
		require.Greater(t, sum.retried, 300)
		require.Greater(t, sum.moved, 10)
		require.Greater(t, sum.byReference, 3_000)
		require.Greater(t, sum.stale, 300)
	}
}

// summary is what happened in all worlds.
type summary struct{ stored, refused, unavailable, retried, moved, byReference, stale int }

// world is a cluster with a fate, and the naive model of it.
type world struct {
	*cluster
	t      *testing.T
	rnd    *rand.Rand // under mu
	r      *Replicator
	began  time.Time
	quorum int

	mu      sync.Mutex
	unique  time.Duration // makes every instant of an answer its own
	modes   map[string]mode
	names   map[refOf]string
	pushes  map[int64]*naive // by the timestamp of their samples
	refuses uint64
	sum     *summary
}

// mode is how a member answers, in percent of its sections.
type mode struct{ fails, appliedButFails, hangs, slow, atOnce int }

// refOf is a reference as it was given out.
type refOf struct {
	member           string
	incarnation, ref uint64
}

// naive is what the rules say of one push.
type naive struct {
	samples map[string]map[string]*replicaState // by series, then zone
	verdict map[string]ring.Outcome
	decided time.Time // when all were; zero for not yet
}

// String lists what is undecided.
func (n *naive) String() string {
	var b strings.Builder
	for name, zones := range n.samples {
		if n.verdict[name] == ring.Undecided {
			b.WriteString(name)
			for zone, s := range zones {
				fmt.Fprintf(&b, " %s %+v", zone, *s)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// replicaState is one zone's part in a sample.
type replicaState struct {
	flying, asked   int // sections on their way, and those of them that wait to be sent again with labels
	stored, refused bool
}

func newWorld(t *testing.T, seed uint64, sum *summary) *world {
	rnd := rand.New(rand.NewPCG(seed, 5))
	rf := 3
	if rnd.IntN(8) == 0 {
		rf = 1
	}
	zones := []string{"a", "b", "c", "d", "e"}[:[]int{2, 3, 3, 3, 3, 4, 5}[rnd.IntN(7)]]
	c := newCluster(t, rf, rnd.IntN(3)+1, zones...)
	w := &world{
		cluster: c, t: t, rnd: rnd, r: newTest(t, c, testConfig()), began: time.Now(), quorum: rf/2 + 1,
		modes: map[string]mode{}, names: map[refOf]string{}, pushes: map[int64]*naive{}, sum: sum,
	}
	if rnd.IntN(3) > 0 {
		w.refuses = uint64(rnd.IntN(30) + 4)
	}
	for id, p := range c.peers {
		w.connect(id, p)
	}
	return w
}

func (w *world) connect(id string, p *peer) {
	p.serve = func(ctx context.Context, section []byte, done func(*duramenpb.PushResult, error)) {
		w.serve(ctx, id, p, section, done)
	}
	if every := w.refuses; every > 0 {
		p.refuses = func(s string, at int64) bool {
			return uint64(valueOf(fmt.Sprint(id[4:5], s, at/2)))%every == 0
		}
	}
}

// serve answers a section as the member's mode has it, and tells the model.
func (w *world) serve(ctx context.Context, id string, p *peer, section []byte, done func(*duramenpb.PushResult, error)) {
	series := w.contents(id, section)
	w.mu.Lock()
	w.sendsOut(id, series)
	m := w.modes[id]
	n := w.rnd.IntN(100)
	w.unique++
	delay := time.Duration(w.rnd.IntN(40_000))*time.Microsecond + w.unique
	if w.rnd.IntN(100) < m.slow {
		delay += time.Duration(w.rnd.IntN(3000)) * time.Millisecond
	}
	atOnce := w.rnd.IntN(100) < m.atOnce
	w.mu.Unlock()
	answer := func() {
		switch {
		case n < m.fails:
			w.failed(id, series)
			done(nil, errkind.New(errkind.Unavailable, "connection refused"))
		case n < m.fails+m.appliedButFails:
			res, err := p.push(section)
			require.NoError(w.t, err)
			w.remember(id, series, res)
			w.failed(id, series)
			done(nil, errkind.New(errkind.Unavailable, "connection reset"))
		default:
			res, err := p.push(section)
			require.NoError(w.t, err)
			w.remember(id, series, res)
			w.answered(id, series, res)
			done(res, nil)
		}
	}
	if n >= 100-m.hangs {
		at, _ := ctx.Deadline()
		delay = time.Until(at)
		answer = func() {
			w.failed(id, series)
			done(nil, errkind.Wrap(errkind.Unavailable, context.DeadlineExceeded))
		}
	}
	if atOnce && n < 100-m.hangs {
		answer()
		return
	}
	go func() {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		<-timer.C
		answer()
	}()
}

// occurrence is a series in a section.
type occurrence struct {
	name string
	at   int64
}

// contents returns what a section has. The model knows every reference that was ever given.
func (w *world) contents(id string, section []byte) (out []occurrence) {
	header, err := duramenpb.ParseSectionHeader(section)
	require.NoError(w.t, err)
	var d duramenpb.SectionDecoder
	b := &duramenpb.Batch{}
	require.NoError(w.t, d.Decode(section, b))
	w.mu.Lock()
	defer w.mu.Unlock()
	f, h := 0, 0
	for _, s := range b.Series {
		o := occurrence{name: s.Labels.String()}
		if s.Ref != 0 {
			o.name = w.names[refOf{id, header.Incarnation, s.Ref}]
			require.NotEmpty(w.t, o.name, "a reference that nobody gave")
		}
		for ; f < s.FloatsEnd; f++ {
			o.at = b.Floats[f].T
		}
		for ; h < s.HistogramsEnd; h++ {
			o.at = b.Histograms[h].T
		}
		out = append(out, o)
	}
	return out
}

func (w *world) remember(id string, series []occurrence, res *duramenpb.PushResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for j, ref := range res.Refs {
		if ref != 0 {
			w.names[refOf{id, res.Incarnation, ref}] = series[j].name
		}
	}
}

func (w *world) zoneOf(id string) string { return strings.Split(id, "-")[1] }

// state returns a zone's part in a sample. The caller holds mu.
func (w *world) state(id string, o occurrence) (*naive, *replicaState) {
	p := w.pushes[o.at]
	zones := p.samples[o.name]
	if zones == nil {
		zones = map[string]*replicaState{}
		p.samples[o.name] = zones
	}
	s := zones[w.zoneOf(id)]
	if s == nil {
		// Answers may come before all sections are sent: what was decided without this one is not.
		s = &replicaState{}
		zones[w.zoneOf(id)] = s
		p.verdict[o.name], p.decided = ring.Undecided, time.Time{}
	}
	return p, s
}

func (w *world) sendsOut(id string, series []occurrence) {
	for _, o := range series {
		_, s := w.state(id, o)
		if s.asked > 0 {
			s.asked--
			continue
		}
		s.flying++
	}
	w.decide(series)
}

func (w *world) failed(id string, series []occurrence) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range series {
		_, s := w.state(id, o)
		s.flying--
	}
	w.decide(series)
}

func (w *world) answered(id string, series []occurrence, res *duramenpb.PushResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fate := make([]string, len(series))
	for _, j := range res.Stale {
		fate[j] = "stale"
		w.sum.stale++
	}
	for i := range res.Refused {
		fate[res.Refused[i].Series] = "refused"
	}
	for j, o := range series {
		_, s := w.state(id, o)
		switch fate[j] {
		case "stale": // It comes again at once.
			s.asked++
			continue
		case "refused":
			s.refused = true
		default:
			s.stored = true
		}
		s.flying--
	}
	w.decide(series)
}

// decide applies the rules to each sample of the pushes concerned. A refusal may turn into a success later, nothing else
// changes.
func (w *world) decide(series []occurrence) {
	seen := map[int64]bool{}
	for _, o := range series {
		p := w.pushes[o.at]
		if seen[o.at] || !p.decided.IsZero() {
			continue
		}
		seen[o.at] = true
		all := true
		for name, zones := range p.samples {
			ok, refused, maybe := 0, 0, 0
			for _, s := range zones {
				switch {
				case s.stored:
					ok++
				case s.refused:
					refused++
				case s.flying > 0:
					maybe++
				}
			}
			switch {
			case ok >= w.quorum:
				p.verdict[name] = ring.Stored
			case ok+maybe < w.quorum && ok+refused >= w.quorum:
				p.verdict[name] = ring.Refused
			case p.verdict[name] == ring.Undecided:
				all = false
			}
		}
		if all {
			p.decided = time.Now()
		}
	}
}

// sender is what the distributor knows of the series.
type sender struct {
	incarnation uint64
	refs        map[string]uint64
}

func runSchedule(t *testing.T, seed uint64, sum *summary) {
	w := newWorld(t, seed, sum)
	known := &sender{refs: map[string]uint64{}}
	var (
		wg      sync.WaitGroup
		sending sync.Mutex
	)
	defer wg.Wait()
	pushes := w.rnd.IntN(8) + 4
	for n := range pushes {
		w.mu.Lock()
		w.change()
		pause := time.Duration(w.rnd.IntN(4)*w.rnd.IntN(400)) * time.Millisecond
		seed := w.rnd.Uint64()
		w.mu.Unlock()
		wg.Go(func() { w.pushOne(rand.New(rand.NewPCG(seed, 6)), int64(n+1), known, &sending) })
		timer := time.NewTimer(pause)
		<-timer.C
	}
	wg.Wait()
	require.NoError(t, w.r.Close())
	synctest.Wait()
	require.Zero(t, w.r.inflight.Load())
	require.Zero(t, w.r.lateBytes.Load())
	w.nothingWrong()
	for _, p := range w.peers {
		sum.byReference += p.byReference
	}
	sum.retried += int(testutil.ToFloat64(w.r.metrics.retries.WithLabelValues(retryFailed)))
	sum.moved += int(testutil.ToFloat64(w.r.metrics.retries.WithLabelValues(retryMoved)))
}

// change changes the fate of the world. The caller holds mu.
func (w *world) change() {
	for id, p := range w.peers {
		if w.rnd.IntN(3) == 0 {
			w.modes[id] = mode{}
			switch w.rnd.IntN(9) {
			case 0:
				w.modes[id] = mode{fails: 100}
			case 1:
				w.modes[id] = mode{fails: 40, appliedButFails: 20}
			case 2:
				w.modes[id] = mode{hangs: 100}
			case 3:
				w.modes[id] = mode{slow: 60, fails: 10, hangs: 10}
			case 4:
				w.modes[id] = mode{atOnce: 70}
			}
		}
		switch w.rnd.IntN(12) {
		case 0:
			p.reopen(w.rnd.Uint64() | 1)
		case 1:
			p.forget(uint64(w.rnd.IntN(3) + 1))
		}
	}
	if w.rnd.IntN(4) > 0 {
		return
	}
	m := &w.members[w.rnd.IntN(len(w.members))]
	switch w.rnd.IntN(3) {
	case 0:
		m.State, w.modes[m.ID] = ring.ReadOnly, mode{fails: 100}
	case 1:
		m.State, w.modes[m.ID] = ring.Active, mode{}
	case 2:
		added := w.add(m.Zone, len(w.members)+10)
		w.connect(added.ID, w.peers[added.ID])
	}
	w.turn()
}

// pushOne pushes a batch all samples of which are at a time of their own, and judges the verdict.
func (w *world) pushOne(rnd *rand.Rand, at int64, known *sender, sending *sync.Mutex) {
	t := w.t
	b := &duramenpb.Batch{}
	var names []string
	sending.Lock()
	b.Incarnation = known.incarnation
	for range rnd.IntN(25) + 1 {
		l := series(rnd.IntN(30))
		s := duramenpb.Series{Labels: l}
		if ref := known.refs[l.String()]; ref != 0 && rnd.IntN(10) > 0 {
			s = duramenpb.Series{Ref: ref, Labels: labels.EmptyLabels()}
		}
		v := valueOf(l.String())
		for range rnd.IntN(3) + 1 {
			b.Floats = append(b.Floats, duramenpb.Float{T: at, V: v})
		}
		if rnd.IntN(4) == 0 {
			b.Histograms = append(b.Histograms, duramenpb.Histogram{T: at, H: &histogram.Histogram{Sum: v}})
		}
		s.FloatsEnd, s.HistogramsEnd = len(b.Floats), len(b.Histograms)
		b.Series = append(b.Series, s)
		names = append(names, l.String())
	}
	sending.Unlock()
	model := &naive{samples: map[string]map[string]*replicaState{}, verdict: map[string]ring.Outcome{}}
	w.mu.Lock()
	w.pushes[at] = model
	w.mu.Unlock()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	canceled := rnd.IntN(15) == 0
	if canceled {
		stop := time.AfterFunc(time.Duration(rnd.IntN(50_000))*time.Microsecond+500*time.Nanosecond, cancel)
		defer stop.Stop()
	}
	var res duramenpb.PushResult
	began := time.Now()
	err := w.r.Push(ctx, "t", b, &res)
	now := time.Now()

	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.sum.unavailable++
		switch {
		case canceled && errkind.Of(err) == errkind.Canceled:
		case strings.Contains(err.Error(), "zones ["):
		default:
			require.Equal(t, errkind.Unavailable, errkind.Of(err), err)
			require.Equal(t, 2*time.Second, now.Sub(began), "%s", err)
			require.Zero(t, model.decided, "every sample was decided: %s", err)
		}
		return
	}
	if len(res.Stale) < len(b.Series) {
		require.Equal(t, now, model.decided, "the answer is to come when the last sample is decided\n%s", model)
	}
	w.judge(b, names, model, &res)
	sending.Lock()
	defer sending.Unlock()
	if known.incarnation != res.Incarnation {
		known.incarnation, known.refs = res.Incarnation, map[string]uint64{}
	}
	for i, name := range names {
		if res.Refs[i] != 0 {
			known.refs[name] = res.Refs[i]
		} else if b.Series[i].Ref != 0 {
			delete(known.refs, name)
		}
	}
}

// judge compares a verdict with the model's, and with what the members hold.
func (w *world) judge(b *duramenpb.Batch, names []string, model *naive, res *duramenpb.PushResult) {
	t := w.t
	stale := map[int]bool{}
	for _, j := range res.Stale {
		require.NotZero(t, b.Series[j].Ref)
		stale[j] = true
	}
	wantFloats, wantHistograms, f, h := 0, 0, 0, 0
	refused := map[int]duramenpb.Refusal{}
	for i, name := range names {
		s := &b.Series[i]
		floats, histograms := s.FloatsEnd-f, s.HistogramsEnd-h
		f, h = s.FloatsEnd, s.HistogramsEnd
		if stale[i] {
			continue
		}
		verdict := model.verdict[name]
		if verdict == ring.Refused {
			refused[i] = duramenpb.Refusal{Floats: floats, Histograms: histograms}
			w.sum.refused += floats + histograms
			continue
		}
		require.Equal(t, ring.Stored, verdict)
		wantFloats += floats
		wantHistograms += histograms
		w.sum.stored += floats + histograms
		zones := map[string]bool{}
		for id, p := range w.peers {
			at := int64(0)
			if floats > 0 {
				at = b.Floats[f-1].T
			}
			if p.has(name, at) {
				zones[w.zoneOf(id)] = true
			}
		}
		require.GreaterOrEqual(t, len(zones), w.quorum, "acknowledged, and on less than a quorum: %s", name)
	}
	require.Equal(t, wantFloats, res.Floats)
	require.Equal(t, wantHistograms, res.Histograms)
	for _, r := range res.Refused {
		require.Equal(t, refused[r.Series].Floats, r.Floats)
		require.Equal(t, refused[r.Series].Histograms, r.Histograms)
		ok := 0
		for _, zone := range model.samples[names[r.Series]] {
			if zone.stored {
				ok++
			}
		}
		require.Contains(t, r.Detail, fmt.Sprintf("stored_replicas: %d of ", ok))
		delete(refused, r.Series)
	}
	require.Empty(t, refused, "refused by the rules, and not by the verdict")
}
