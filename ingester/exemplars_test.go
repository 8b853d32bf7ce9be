package ingester

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// exemplars adds an entry that has exemplars at the given milliseconds and no sample, as senders' queues make them. The
// label tells them apart.
func (b *batch) exemplars(s duramenpb.Series, ts ...int64) *batch {
	for _, t := range ts {
		b.Exemplars = append(b.Exemplars, exemplarAt(t))
	}
	return b.end(s)
}

func exemplarAt(t int64) duramenpb.Exemplar {
	return duramenpb.Exemplar{T: t, V: float64(t), Labels: labels.FromStrings("trace_id", time.UnixMilli(t).UTC().String())}
}

func labelled(lset labels.Labels) duramenpb.Series { return duramenpb.Series{Labels: lset} }

// readExemplars returns the times of all exemplars of the tenant "a" by series.
func (f *fixture) readExemplars() map[string][]int64 {
	f.t.Helper()
	found, err := f.Exemplars(context.Background(), "a", math.MinInt64, math.MaxInt64, nil)
	require.NoError(f.t, err)
	out := map[string][]int64{}
	for _, s := range found {
		for _, e := range s.Exemplars {
			out[s.SeriesLabels.String()] = append(out[s.SeriesLabels.String()], e.Ts)
		}
	}
	return out
}

func (f *fixture) dropped(reason string) float64 {
	return testutil.ToFloat64(f.metrics.exemplarsDropped.WithLabelValues(reason))
}

func TestExemplarsWithoutSamples(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	r := f.push(new(batch).floats(named("x"), 1, t0).exemplars(labelled(named("x")), t0).
		exemplars(labelled(named("unknown")), t0, t0+1))
	require.Equal(t, 1, r.Exemplars, "of a series that the same batch makes")
	require.Equal(t, 2.0, f.dropped(dropUnknownSeries))
	require.Zero(t, r.Refs[2], "an exemplar makes no series")
	require.Len(t, f.read(), 1)

	b := new(batch).exemplars(duramenpb.Series{Ref: r.Refs[0]}, t0+1)
	b.Incarnation = r.Incarnation
	r = f.push(b)
	require.Equal(t, 1, r.Exemplars, "by reference, in a batch without any sample")
	require.Equal(t, 1, f.push(new(batch).exemplars(labelled(named("x")), t0+2)).Exemplars)
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0, t0 + 1, t0 + 2}}, f.readExemplars())
	require.Equal(t, 3.0, testutil.ToFloat64(f.metrics.exemplars))
}

// TestExemplarsBeforeAnySample: a head that is empty takes its bounds from samples, never from an exemplar that it drops.
func TestExemplarsBeforeAnySample(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	require.Zero(t, f.push(new(batch).exemplars(labelled(named("x")), 1000)).Exemplars)
	require.Equal(t, 1.0, f.dropped(dropUnknownSeries))
	f.push(new(batch).floats(named("x"), 1, t0))
	require.Equal(t, t0, f.life().db.Head().MinTime())
	require.False(t, f.life().wantsCut())
}

// TestExemplarsRepeated: what a sender repeats is held and counts as written, and is not there twice.
func TestExemplarsRepeated(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	b := new(batch).floats(named("x"), 1, t0).exemplars(labelled(named("x")), t0, t0+1, t0+2)
	for range 3 {
		require.Equal(t, 3, f.push(b).Exemplars)
	}
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0, t0 + 1, t0 + 2}}, f.readExemplars())
	f.restart()
	require.Equal(t, 3, f.push(b).Exemplars)
	require.Len(t, f.readExemplars()[`{__name__="x"}`], 3)
}

// TestExemplarsOutOfOrder: within the tenant's window an older one is taken, behind it none is.
func TestExemplarsOutOfOrder(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	window := (3 * time.Hour).Milliseconds()
	f.push(new(batch).floats(named("x"), 1, t0).exemplars(labelled(named("x")), t0))
	require.Equal(t, 1, f.push(new(batch).exemplars(labelled(named("x")), t0-window+1)).Exemplars)
	require.Zero(t, f.push(new(batch).exemplars(labelled(named("x")), t0-window)).Exemplars)
	require.Equal(t, 1.0, f.dropped(dropOutOfOrder))

	// The first of this batch makes the second one too old, which only Commit finds.
	require.Equal(t, 1, f.push(new(batch).exemplars(labelled(named("x")), t0+window, t0-1)).Exemplars)
	require.Equal(t, 2.0, f.dropped(dropOutOfOrder))
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0 - window + 1, t0, t0 + window}}, f.readExemplars())
}

// TestExemplarsBesideSamples: what becomes of a sample, even the last of its entry, says nothing of its exemplar.
func TestExemplarsBesideSamples(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	f.limits.change(func(l *testLimits) { l.series = 1 })
	b := &batch{}
	b.Exemplars = append(b.Exemplars, exemplarAt(t0))
	b.floats(named("x"), 2, t0) // another value at the same time
	b.Exemplars = append(b.Exemplars, exemplarAt(t0))
	b.floats(named("over the limit"), 1, t0)
	r := f.push(b)
	require.Len(t, r.Refused, 2)
	require.Equal(t, 1, r.Exemplars)
	require.Equal(t, 1.0, f.dropped(dropUnknownSeries))

	b = &batch{}
	b.Exemplars = append(b.Exemplars, duramenpb.Exemplar{T: t0, Labels: labels.FromStrings("trace_id", strings.Repeat("x", 300))})
	r = f.push(b.floats(named("x"), 1, t0+1))
	require.Equal(t, 1, r.Floats, "a bad exemplar refuses no sample")
	require.Zero(t, r.Exemplars)
	require.Equal(t, 1.0, f.dropped(dropInvalid))
}

// TestExemplarsByLostReference: an entry whose reference names nothing is asked for again, like one with samples.
func TestExemplarsByLostReference(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	r := f.push(new(batch).floats(named("x"), 1, t0).exemplars(labelled(named("x")), t0))
	for name, b := range map[string]*batch{
		"of an earlier life": new(batch).floats(named("x"), 1, t0+1).exemplars(duramenpb.Series{Ref: r.Refs[0]}, t0+1),
		"of no series":       new(batch).floats(named("x"), 1, t0+1).exemplars(duramenpb.Series{Ref: 12345}, t0+1),
	} {
		b.Incarnation = r.Incarnation + 1
		if name == "of no series" {
			b.Incarnation = r.Incarnation
		}
		r := f.push(b)
		require.Equal(t, []int{1}, r.Stale, name)
		require.Zero(t, r.Refs[1], name)
		require.Zero(t, r.Exemplars, name)
	}
	require.Zero(t, f.dropped(dropUnknownSeries))
}

// TestExemplarsSurvive: replay restores the ring up to the tenant's limit, and a ring without exemplars is given back.
func TestExemplarsSurvive(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	f.restart()
	l := f.life()
	require.False(t, l.ring)
	room, err := registeredGauge(l.counters.reg, "prometheus_tsdb_exemplar_max_exemplars",
		"Total number of exemplars the exemplar storage can store, resizeable.")
	require.NoError(t, err)
	var m dto.Metric
	require.NoError(t, room.Write(&m))
	require.Zero(t, m.GetGauge().GetValue(), "no memory is spent on exemplars that are not there")
	f.push(new(batch).exemplars(labelled(named("x")), t0, t0+1, t0+2))
	require.True(t, l.ring)
	f.restart()
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0, t0 + 1, t0 + 2}}, f.readExemplars())
	require.True(t, f.life().ring)

	f.limits.change(func(l *testLimits) { l.exemplars = 2 })
	f.restart()
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0 + 1, t0 + 2}}, f.readExemplars())
	require.Equal(t, 1, f.push(new(batch).exemplars(labelled(named("x")), t0+3)).Exemplars)
	require.Equal(t, map[string][]int64{`{__name__="x"}`: {t0 + 2, t0 + 3}}, f.readExemplars())

	f.limits.change(func(l *testLimits) { l.exemplars = 0 })
	require.Zero(t, f.push(new(batch).exemplars(labelled(named("x")), t0+4)).Exemplars)
	require.Equal(t, 1.0, f.dropped(dropNotKept))
	require.Empty(t, f.readExemplars())
}

func TestExemplarsSelect(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0).floats(named("y"), 1, t0).floats(named("z"), 1, t0).
		exemplars(labelled(named("z")), t0, t0+1).exemplars(labelled(named("x")), t0, t0+1).exemplars(labelled(named("y")), t0))
	is := func(name string) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)}
	}
	got, err := f.Exemplars(t.Context(), "a", t0+1, t0+1, is("x"), is("y"), is("z"))
	require.NoError(t, err)
	want := exemplar.Exemplar{Labels: exemplarAt(t0 + 1).Labels, Value: float64(t0 + 1), Ts: t0 + 1, HasTs: true}
	require.Equal(t, []exemplar.QueryResult{
		{SeriesLabels: named("x"), Exemplars: []exemplar.Exemplar{want}},
		{SeriesLabels: named("z"), Exemplars: []exemplar.Exemplar{want}},
	}, got)

	got, err = f.Exemplars(t.Context(), "nobody", math.MinInt64, math.MaxInt64, nil)
	require.NoError(t, err)
	require.NotNil(t, got, "an empty list in JSON")
	require.Empty(t, got)
	f.stop()
	_, err = f.Exemplars(t.Context(), "a", math.MinInt64, math.MaxInt64, nil)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
}

// life returns the open life of the tenant "a".
func (f *fixture) life() *life {
	t := f.tenants.byID["a"]
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.life
}
