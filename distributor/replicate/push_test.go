package replicate

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

// holders counts the peers that hold a sample.
func (c *cluster) holders(l labels.Labels, t int64) (n int) {
	for _, p := range c.peers {
		if p.has(l.String(), t) {
			n++
		}
	}
	return n
}

func (c *cluster) nothingWrong() {
	for id, p := range c.peers {
		require.Empty(c.t, p.wrong, id)
	}
}

func TestPushGoesToEachZone(t *testing.T) {
	c := newCluster(t, 3, 3, "a", "b", "c")
	r := newTest(t, c, testConfig())
	var res duramenpb.PushResult
	b := batch(0, 200, 1000)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, 200, res.Floats)
	require.Len(t, res.Refs, 200)
	require.NotZero(t, res.Incarnation)
	for i := range 200 {
		require.NotZero(t, res.Refs[i])
		require.Equal(t, 3, c.holders(series(i), 1000))
	}
	sent := 0
	for _, p := range c.peers {
		require.Positive(t, p.sent.Load())
		sent += int(p.sent.Load())
		require.Zero(t, p.byReference)
	}
	require.Equal(t, 9, sent)

	byRefs(b, &res)
	for i := range b.Floats {
		b.Floats[i].T = 2000
	}
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, 200, res.Floats)
	for i := range 200 {
		require.Equal(t, 3, c.holders(series(i), 2000))
		require.Equal(t, b.Series[i].Ref, res.Refs[i])
	}
	references := 0
	for _, p := range c.peers {
		references += p.byReference
	}
	require.Equal(t, 600, references)
	c.nothingWrong()
	require.NoError(t, r.Close())
	require.Zero(t, r.inflight.Load())
	require.ErrorIs(t, r.Push(t.Context(), "t", b, &res), errClosed)
}

func TestHandlesOfAnotherLifeAreStale(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	var res duramenpb.PushResult
	b := batch(0, 4, 1)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	byRefs(b, &res)
	b.Series[2].Ref += 1 << 40 // no such slot
	b.Series[3] = duramenpb.Series{Labels: series(3), FloatsEnd: 4}
	for i := range b.Floats {
		b.Floats[i].T = 2
	}
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, []int{2}, res.Stale)
	require.Equal(t, 3, res.Floats)
	require.Equal(t, uint64(0), res.Refs[2])
	require.Equal(t, 0, c.holders(series(2), 2))

	b.Incarnation++
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, []int{0, 1, 2}, res.Stale)
	require.Equal(t, 1, res.Floats)

	tab := r.tables.byID["t"]
	tab.births = ^uint32(0)
	require.NoError(t, r.Push(t.Context(), "t", batch(100, 3, 3), &res))
	require.Equal(t, 3, res.Floats)
	require.NotEqual(t, b.Incarnation-1, tab.incarnation)
	c.nothingWrong()
}

// A member that was restarted knows no reference: it gets labels at once, and references of its new life afterwards.
func TestStaleReferencesOfOneMember(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	var res duramenpb.PushResult
	b := batch(0, 50, 1)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	byRefs(b, &res)
	for round := int64(2); round < 6; round++ {
		switch round {
		case 2:
			c.peers["ing-b-0"].reopen(4711)
		case 3:
			c.peers["ing-a-0"].forget(2)
		case 4:
			c.peers["ing-b-0"].reopen(4712)
			c.peers["ing-c-0"].reopen(4713)
		}
		for i := range b.Floats {
			b.Floats[i].T = round
		}
		require.NoError(t, r.Push(t.Context(), "t", b, &res))
		require.Empty(t, res.Stale)
		require.Equal(t, 50, res.Floats)
		waitIdle(t, r)
		for i := range 50 {
			require.Equal(t, 3, c.holders(series(i), round))
		}
	}
	before := c.peers["ing-b-0"].byReference
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.EqualValues(t, 3+3, res.Restarts, "each was met, and began anew three times in all")
	waitIdle(t, r)
	require.Equal(t, before+50, c.peers["ing-b-0"].byReference)
	c.nothingWrong()
}

// waitIdle waits until nothing is on its way, as Close does.
func waitIdle(t *testing.T, r *Replicator) {
	require.NoError(t, r.Close())
	r.closed = false
}

func TestRefusedByName(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	var res duramenpb.PushResult
	refuse := func(zones ...string) {
		for _, z := range []string{"a", "b", "c"} {
			c.peers["ing-"+z+"-0"].refuses = nil
		}
		for _, z := range zones {
			c.peers["ing-"+z+"-0"].refuses = func(s string, at int64) bool { return s == series(1).String() && at == 1 }
		}
	}
	push := func() {
		b := batch(0, 3, 1)
		b.Histograms = []duramenpb.Histogram{{T: 1, H: &histogram.Histogram{Sum: valueOf(series(2).String())}}}
		b.Series[2].HistogramsEnd = 1
		require.NoError(t, r.Push(t.Context(), "t", b, &res))
		require.Equal(t, 1, res.Histograms)
	}
	refuse("a")
	push()
	require.Equal(t, 3, res.Floats)
	require.Empty(t, res.Refused)
	refuse("a", "c")
	push()
	require.Equal(t, 2, res.Floats)
	require.Len(t, res.Refused, 1)
	require.Equal(t, duramenpb.Refusal{
		Series: 1, Reason: duramenpb.ReasonTooOld, Floats: 1, Timestamp: 1, Samples: []int32{1},
		Detail: "too old by chance; stored_replicas: 1 of 3",
	}, res.Refused[0])
	refuse("a")
	down(c.peers["ing-c-0"]) // one refuses, one is away: both that answered have given an answer that stays
	push()
	require.Len(t, res.Refused, 1)
	require.Equal(t, "too old by chance; stored_replicas: 1 of 3", res.Refused[0].Detail)
	refuse("a", "b", "c")
	push()
	require.Equal(t, "too old by chance; stored_replicas: 0 of 3", res.Refused[0].Detail)
}

// down makes a peer refuse connections.
func down(p *peer) {
	p.serve = func(_ context.Context, _ []byte, done func(*duramenpb.PushResult, error)) {
		done(nil, errkind.New(errkind.Unavailable, "connection refused"))
	}
}

// hang makes a peer answer nothing until the deadline.
func hang(p *peer) {
	p.serve = func(ctx context.Context, _ []byte, done func(*duramenpb.PushResult, error)) {
		go func() {
			at, _ := ctx.Deadline()
			timer := time.NewTimer(time.Until(at))
			defer timer.Stop()
			<-timer.C
			done(nil, errkind.Wrap(errkind.Unavailable, context.DeadlineExceeded))
		}()
	}
}

func TestOneDeadMemberDelaysNothing(t *testing.T) {
	for name, fault := range map[string]func(*peer){"down": down, "hangs": hang} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, 1, "a", "b", "c")
				r := newTest(t, c, testConfig())
				fault(c.peers["ing-b-0"])
				var res duramenpb.PushResult
				began := time.Now()
				require.NoError(t, r.Push(t.Context(), "t", batch(0, 10, 1), &res))
				require.Zero(t, time.Since(began))
				require.Equal(t, 10, res.Floats)
				require.EqualValues(t, 1, c.peers["ing-b-0"].sent.Load())
				require.NoError(t, r.Close())
				require.Zero(t, r.inflight.Load())
				require.Zero(t, r.lateBytes.Load())
			})
		})
	}
}

func TestNoQuorumIsUnavailableAndSaysWho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		r := newTest(t, c, testConfig())
		down(c.peers["ing-b-0"])
		hang(c.peers["ing-c-0"])
		var res duramenpb.PushResult
		began := time.Now()
		err := r.Push(t.Context(), "t", batch(0, 10, 1), &res)
		require.Equal(t, http.StatusServiceUnavailable, errkind.Of(err).HTTPStatus())
		require.Equal(t, 2*time.Second, time.Since(began))
		require.EqualError(t, err, "no quorum for 10 of 10 samples: 1 of 3 replicas answered where 2 are needed; "+
			"ing-b-0 in zone b: connection refused; ing-c-0 in zone c: no answer within 2s")
		require.Greater(t, c.peers["ing-b-0"].sent.Load(), int64(15), "it is to be asked again and again")
		require.NoError(t, r.Close())

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("gone"))
		r.closed = false
		require.ErrorIs(t, r.Push(ctx, "t", batch(0, 10, 1), &res), context.Canceled)
		require.NoError(t, r.Close())
		require.Zero(t, r.inflight.Load())
	})
}

// Two members restart one after the other: whoever lacks a quorum meanwhile waits a little, and no write fails.
func TestRestartsAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		r := newTest(t, c, testConfig())
		down(c.peers["ing-a-0"])
		b := c.peers["ing-b-0"]
		back := time.Now().Add(700 * time.Millisecond)
		b.serve = func(_ context.Context, section []byte, done func(*duramenpb.PushResult, error)) {
			if time.Now().Before(back) {
				done(nil, errkind.New(errkind.Unavailable, "stopping"))
				return
			}
			done(b.push(section))
		}
		var res duramenpb.PushResult
		began := time.Now()
		require.NoError(t, r.Push(t.Context(), "t", batch(0, 10, 1), &res))
		require.InDelta(t, 700, time.Since(began).Milliseconds(), 110)
		require.Equal(t, 10, res.Floats)
		require.NoError(t, r.Close())
	})
}

// A member says that it drains. When the ring says so too, its successor in the zone gets the samples.
func TestNewerRingIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 2, "a", "b", "c")
		r := newTest(t, c, testConfig())
		for _, id := range []string{"ing-a-0", "ing-b-0"} {
			p := c.peers[id]
			p.serve = func(_ context.Context, _ []byte, done func(*duramenpb.PushResult, error)) {
				for i := range c.members {
					if c.members[i].ID == id {
						c.members[i].State = ring.ReadOnly
					}
				}
				c.turn()
				done(nil, errkind.New(errkind.Unavailable, "read only"))
			}
		}
		var res duramenpb.PushResult
		b := batch(0, 100, 1)
		require.NoError(t, r.Push(t.Context(), "t", b, &res))
		require.Equal(t, 100, res.Floats)
		require.NoError(t, r.Close())
		for i := range 100 {
			require.GreaterOrEqual(t, c.holders(series(i), 1), 2)
		}
		r.closed = false
		byRefs(b, &res)
		for i := range b.Floats {
			b.Floats[i].T = 2
		}
		require.NoError(t, r.Push(t.Context(), "t", b, &res))
		require.NoError(t, r.Close())
		for i := range 100 {
			require.Equal(t, 3, c.holders(series(i), 2))
		}
		c.nothingWrong()
	})
}

func TestTooFewZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a")
		r := newTest(t, c, testConfig())
		var res duramenpb.PushResult
		began := time.Now()
		err := r.Push(t.Context(), "t", batch(0, 1, 1), &res)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		require.ErrorContains(t, err, "zones [a]")
		require.Equal(t, 2*time.Second, time.Since(began))
		require.ErrorContains(t, r.Push(t.Context(), "t",
			&duramenpb.Batch{Metadata: []duramenpb.Metadata{{Family: "x"}}}, &res), "zones [a]")
		require.Zero(t, r.inflight.Load())

		// Another zone is heard of in time.
		timer := time.AfterFunc(time.Second, func() {
			c.add("b", 0)
			c.turn()
		})
		defer timer.Stop()
		require.NoError(t, r.Push(t.Context(), "t", batch(0, 10, 2), &res))
		require.Equal(t, 10, res.Floats)
		require.Len(t, res.Refs, 10)

		// Two of three zones are a quorum, and then both have to answer.
		for i := range 10 {
			require.Equal(t, 2, c.holders(series(i), 2))
		}
		require.NoError(t, r.Close())
	})
}

func TestMoreZonesThanCopies(t *testing.T) {
	c := newCluster(t, 3, 2, "a", "b", "c", "d", "e")
	r := newTest(t, c, testConfig())
	var res duramenpb.PushResult
	b := batch(0, 300, 1)
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	for i := range 300 {
		zones := map[byte]bool{}
		for id, p := range c.peers {
			if p.has(series(i).String(), 1) {
				zones[id[4]] = true
			}
		}
		require.Len(t, zones, 3)
	}
	// The ring changes: each series follows it when it is seen next.
	c.add("f", 0)
	c.turn()
	byRefs(b, &res)
	for i := range b.Floats {
		b.Floats[i].T = 2
	}
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	waitIdle(t, r)
	moved := 0
	for i := range 300 {
		require.Equal(t, 3, c.holders(series(i), 2))
		if c.peers["ing-f-0"].has(series(i).String(), 2) {
			moved++
		}
	}
	require.InDelta(t, 150, moved, 60)
	c.nothingWrong()
}

func TestOccurrencesOfOneSeries(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	v := valueOf(series(7).String())
	b := &duramenpb.Batch{
		Series: []duramenpb.Series{
			{Labels: series(7), FloatsEnd: 2},
			{Labels: series(8), FloatsEnd: 3},
			{Labels: series(7), FloatsEnd: 4, ExemplarsEnd: 1},
			{Labels: series(7), FloatsEnd: 4, ExemplarsEnd: 2},
		},
		Floats: []duramenpb.Float{
			{T: 1, V: v}, {T: 1, V: v}, {T: 1, V: valueOf(series(8).String())}, {T: 1, V: v},
		},
		Exemplars: []duramenpb.Exemplar{{T: 1, V: 2}, {T: 2, V: 2}},
		Metadata:  []duramenpb.Metadata{{Family: "x", Type: "gauge"}, {Family: "y", Type: "gauge"}},
	}
	var res duramenpb.PushResult
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, 4, res.Floats)
	require.Equal(t, 2, res.Exemplars)
	require.Equal(t, res.Refs[0], res.Refs[2])
	require.Equal(t, res.Refs[0], res.Refs[3])
	waitIdle(t, r)
	for _, p := range c.peers {
		require.Equal(t, 3, p.held[series(7).String()][1])
		require.True(t, p.metadata["x"])
		require.True(t, p.metadata["y"])
	}
}

// Metadata alone is answered when somebody has it.
func TestMetadataAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		r := newTest(t, c, testConfig())
		b := &duramenpb.Batch{Metadata: []duramenpb.Metadata{{Family: "x", Type: "gauge"}}}
		var res duramenpb.PushResult
		down(c.peers["ing-a-0"])
		down(c.peers["ing-b-0"])
		require.NoError(t, r.Push(t.Context(), "t", b, &res))
		down(c.peers["ing-c-0"])
		require.ErrorContains(t, r.Push(t.Context(), "t", b, &res), "no replica answered")
		require.NoError(t, r.Close())
	})
}

// A series with very many samples is split over sections, and accounted for all the same.
func TestLongSeries(t *testing.T) {
	c := newCluster(t, 3, 1, "a", "b", "c")
	r := newTest(t, c, testConfig())
	b := &duramenpb.Batch{}
	v := valueOf(series(1).String())
	for i := range 90_000 {
		b.Floats = append(b.Floats, duramenpb.Float{T: int64(i) << 40, V: v})
	}
	b.Series = []duramenpb.Series{{Labels: series(1), FloatsEnd: len(b.Floats)}}
	for _, p := range c.peers {
		p.refuses = func(_ string, at int64) bool { return at == 50_001<<40 }
	}
	var res duramenpb.PushResult
	require.NoError(t, r.Push(t.Context(), "t", b, &res))
	require.Equal(t, 89_999, res.Floats)
	require.Equal(t, []int32{50_001}, res.Refused[0].Samples)
	require.Greater(t, c.peers["ing-a-0"].sent.Load(), int64(1))
}

// A verdict that does not account for every sample is none.
func TestVerdictsThatDoNotAddUp(t *testing.T) {
	for name, spoil := range map[string]func(r *duramenpb.PushResult){
		"too few":              func(r *duramenpb.PushResult) { r.Floats-- },
		"too many":             func(r *duramenpb.PushResult) { r.Floats++ },
		"stale with labels":    func(r *duramenpb.PushResult) { r.Stale, r.Floats = []int{0}, r.Floats-1 },
		"stale beyond the end": func(r *duramenpb.PushResult) { r.Stale = []int{99} },
		"unnamed": func(r *duramenpb.PushResult) {
			r.Floats, r.Refused = r.Floats-1, []duramenpb.Refusal{{Series: 1, Floats: 1}}
		},
		"named twice": func(r *duramenpb.PushResult) {
			r.Floats, r.Refused = r.Floats-2, []duramenpb.Refusal{{Series: 1, Floats: 2, Samples: []int32{1, 1}}}
		},
		"named under another series": func(r *duramenpb.PushResult) {
			r.Floats, r.Refused = r.Floats-1, []duramenpb.Refusal{{Series: 1, Floats: 1, Samples: []int32{2}}}
		},
		"no such series": func(r *duramenpb.PushResult) {
			r.Floats, r.Refused = r.Floats-1, []duramenpb.Refusal{{Series: 9, Floats: 1, Samples: []int32{2}}}
		},
		"floats as histograms": func(r *duramenpb.PushResult) {
			r.Floats, r.Refused = r.Floats-1, []duramenpb.Refusal{{Series: 1, Histograms: 1, Samples: []int32{1}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, 1, "a", "b", "c")
				r := newTest(t, c, testConfig())
				for _, id := range []string{"ing-a-0", "ing-b-0"} {
					p := c.peers[id]
					p.serve = func(_ context.Context, section []byte, done func(*duramenpb.PushResult, error)) {
						res, err := p.push(section)
						spoil(res)
						done(res, err)
					}
				}
				var res duramenpb.PushResult
				require.Equal(t, errkind.Unavailable, errkind.Of(r.Push(t.Context(), "t", batch(0, 3, 1), &res)))
				require.NoError(t, r.Close())
				require.Zero(t, r.inflight.Load())
			})
		})
	}
}

// What no replica can take as it is is not tried again and again.
func TestImpossibleSections(t *testing.T) {
	for _, kind := range []errkind.Kind{errkind.TooLarge, errkind.Gone} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, 3, 1, "a", "b", "c")
			r := newTest(t, c, testConfig())
			for _, p := range c.peers {
				p.serve = func(_ context.Context, _ []byte, done func(*duramenpb.PushResult, error)) {
					done(nil, errkind.New(kind, "not now and not later"))
				}
			}
			var res duramenpb.PushResult
			began := time.Now()
			err := r.Push(t.Context(), "t", batch(0, 10, 1), &res)
			require.Equal(t, kind, errkind.Of(err), err)
			require.Zero(t, time.Since(began))
			require.NoError(t, r.Close())
			require.Zero(t, r.inflight.Load())
		})
	}
}
