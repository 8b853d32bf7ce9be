package compactor

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/errkind"
)

// midnight is a day before the clocks of synctest begin, on the grid of days.
func midnight() time.Time { return time.Now().UTC().Truncate(24 * time.Hour).Add(-24 * time.Hour) }

// TestReplicasBecomeSlotsAndDays follows three ingesters for two days.
func TestReplicasBecomeSlotsAndDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.start()
		begin := midnight().Add(24 * time.Hour)
		for slot := begin; slot.Before(begin.Add(48 * time.Hour)); slot = slot.Add(2 * time.Hour) {
			time.Sleep(time.Until(slot.Add(2*time.Hour + time.Minute)))
			w.addAtOnce("acme", 3, slot, slot.Add(2*time.Hour))
			time.Sleep(time.Minute)
			for _, b := range w.manifest("acme").Blocks {
				require.Greater(t, b.Level, 1, "a change of this process is seen at once")
			}
		}
		time.Sleep(12 * time.Hour)
		m := w.manifest("acme")
		day := begin.UnixMilli() / slotMillis
		require.Equal(t, [][2]int64{{day, day + 12}, {day + 12, day + 24}}, spans(m))
		require.Len(t, m.Blocks[0].Sources, 36)
		s := w.status("acme")
		require.Zero(t, s.OldestUncompactedSlotAge)
		require.Zero(t, s.UncompactedSlots)
		require.Empty(t, s.LastError)
		require.Len(t, w.merger.done(), 24+2, "each sample is written twice")
	})
}

// TestOneFailingSlotStopsNoOther: whatever happens to the job of one slot, the other slots are merged in the same cycle.
func TestOneFailingSlotStopsNoOther(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   func(job merge.Job) error
		outcome outcome
		tries   int // until then
		after   time.Duration
		skip    string
	}{
		"the bucket fails": {
			func(merge.Job) error { return errkind.New(errkind.Unavailable, "no route to host") }, outcomeUnavailable, 30, time.Hour, "",
		},
		"too large": {
			func(merge.Job) error { return &merge.TooLarge{What: "symbols", Bytes: 2, Max: 1} }, outcomeTooLarge, 1, time.Hour, "refused",
		},
		"samples are lost": {
			func(merge.Job) error { return &merge.Lost{Reasons: []string{"one sample"}} }, outcomeFault, 3, 130 * time.Minute, "refused",
		},
		"a panic": {
			func(merge.Job) error { panic("index out of range") }, outcomeFault, 3, 130 * time.Minute, "refused",
		},
		"an error that nobody knows": {
			func(merge.Job) error { return errors.New("what") }, outcomeFault, 3, 130 * time.Minute, "refused",
		},
		"a damaged input": {
			func(job merge.Job) error {
				return &merge.Damaged{ULID: job.Inputs[0].Block.ULID, File: "index", Err: errors.New("checksum")}
			}, outcomeDamaged, 1, 30 * time.Minute, "excluded",
		},
		"an input that only merges find damaged": {
			func(job merge.Job) error {
				return &merge.Disputed{Seen: &merge.Damaged{ULID: job.Inputs[0].Block.ULID, File: "index", Err: errors.New("checksum")}}
			}, outcomeUnavailable, mostDisputes, 30 * time.Minute, "excluded",
		},
		"an input that is gone": {
			func(job merge.Job) error { return &merge.Gone{ULID: job.Inputs[0].Block.ULID} }, outcomeDamaged, 1, 30 * time.Minute, "excluded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bucket.NewInMemory())
				bad := midnight().Add(6 * time.Hour).UnixMilli()
				tries := 0
				w.merger.setFault(func(_ context.Context, _ string, job merge.Job) error {
					if job.MinTime != bad || len(job.Inputs) != 3 {
						return nil
					}
					tries++
					return tc.fault(job)
				})
				w.add("acme", 3, midnight(), midnight().Add(24*time.Hour))
				w.start()
				time.Sleep(time.Minute)
				whole := 0
				for _, b := range w.manifest("acme").Blocks {
					if b.Level > 1 {
						whole++
					}
				}
				require.GreaterOrEqual(t, whole, 11)
				require.Positive(t, testutil.ToFloat64(w.metrics.jobs.WithLabelValues("slot", string(tc.outcome))))
				time.Sleep(tc.after)
				s := w.status("acme")
				if tc.skip != "" {
					require.NotEmpty(t, s.Skips)
					require.Equal(t, tc.skip, string(s.Skips[0].Reason))
					require.True(t, s.Skips[0].Blocking)
				}
				require.Positive(t, w.lag(), "the alert fires")
				require.LessOrEqual(t, tries, tc.tries)
				require.Positive(t, tries)
			})
		})
	}
}

// TestTransientFailuresPass: a slot whose bucket is away is merged when the bucket is back, at most ten minutes later.
func TestTransientFailuresPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.merger.setFault(func(context.Context, string, merge.Job) error { return errkind.New(errkind.Unavailable, "away") })
		w.add("acme", 3, midnight(), midnight().Add(2*time.Hour))
		w.start()
		time.Sleep(2 * time.Hour)
		n := len(w.merger.done())
		require.Greater(t, n, 12, "every ten minutes at least")
		require.Less(t, n, 30)
		require.InDelta(t, 2*time.Hour, w.lag(), float64(time.Minute))
		w.merger.setFault(nil)
		time.Sleep(11 * time.Minute)
		require.Len(t, w.manifest("acme").Blocks, 1)
		require.Zero(t, w.lag())
		require.Empty(t, w.status("acme").LastError)
	})
}

// TestATenantThatHangsGivesWay: with a single worker, the job that makes no progress is ended and others have their turn.
func TestATenantThatHangsGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.merger.setFault(func(ctx context.Context, tenantID string, _ merge.Job) error {
			if tenantID == "poisoned" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		w.add("poisoned", 3, midnight(), midnight().Add(24*time.Hour))
		w.add("acme", 3, midnight(), midnight().Add(8*time.Hour))
		w.start()
		time.Sleep(4*stallTime + 30*time.Minute)
		require.Len(t, w.manifest("acme").Blocks, 4)
		require.Contains(t, w.status("poisoned").LastError, "no progress")
		require.Len(t, w.manifest("poisoned").Blocks, 36)
	})
}

// TestRetentionNeedsNoMerge: what is too old leaves also when nothing can be merged, and to the block.
func TestRetentionNeedsNoMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.merger.setFault(func(context.Context, string, merge.Job) error { return &merge.Lost{} })
		w.add("acme", 2, midnight(), midnight().Add(24*time.Hour))
		w.add("other", 1, midnight(), midnight().Add(24*time.Hour))
		w.start()
		w.limits.setRetention("acme", 24*time.Hour)
		time.Sleep(6*time.Hour + 10*time.Minute)
		m := w.manifest("acme")
		require.Len(t, m.Blocks, 2*9)
		for _, b := range m.Blocks {
			require.Greater(t, b.MaxTime, time.Now().Add(-24*time.Hour).Add(-7*time.Minute).UnixMilli())
		}
		for _, r := range m.Removed {
			require.True(t, r.Dropped)
		}
		require.EqualValues(t, 6, testutil.ToFloat64(w.metrics.expired))
		require.Len(t, w.manifest("other").Blocks, 12)
	})
}

// TestATenantThatMovedIsLeftAlone: of two processes the one whose tenant it is no longer does not swap.
func TestATenantThatMovedIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.merger.setFault(func(context.Context, string, merge.Job) error {
			w.others.move("acme", true)
			return nil
		})
		w.add("acme", 3, midnight(), midnight().Add(2*time.Hour))
		w.start()
		time.Sleep(time.Hour)
		require.Len(t, w.merger.done(), 1)
		require.Len(t, w.manifest("acme").Blocks, 3, "the output is left to the sweep")
		_, known := w.TenantStatus("acme")
		require.False(t, known)
		w.merger.setFault(nil)
		w.others.move("acme", false)
		time.Sleep(20 * time.Minute)
		require.Len(t, w.manifest("acme").Blocks, 1, "it came back")
	})
}

// TestTwoOwnersAtOnce: both merge the same slots, of each one output gets in.
func TestTwoOwnersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewInMemory()
		a, b := newWorld(t, bkt), newWorld(t, bkt)
		var arrived atomicBarrier
		for _, w := range []*world{a, b} {
			w.merger.setFault(func(context.Context, string, merge.Job) error { arrived.wait(time.Minute); return nil })
		}
		a.add("acme", 3, midnight(), midnight().Add(22*time.Hour))
		a.start()
		b.start()
		time.Sleep(2 * time.Hour)
		m := a.manifest("acme")
		require.Len(t, m.Blocks, 11)
		sources := map[string]bool{}
		for _, blk := range m.Blocks {
			for _, s := range blk.Sources {
				require.False(t, sources[s.String()], "in two blocks")
				sources[s.String()] = true
			}
		}
		require.Len(t, sources, 33)
		conflicts := testutil.ToFloat64(a.metrics.jobs.WithLabelValues("slot", string(outcomeConflict))) +
			testutil.ToFloat64(b.metrics.jobs.WithLabelValues("slot", string(outcomeConflict)))
		require.Positive(t, conflicts, "they did meet")
	})
}

// TestOneConflictIsNoError: an input that went away meanwhile leaves nothing to do, and nothing to say.
func TestOneConflictIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.add("acme", 2, midnight(), midnight().Add(2*time.Hour))
		w.merger.setFault(func(ctx context.Context, _ string, job merge.Job) error {
			_, err := w.owner.Swap(ctx, "acme", manifest.Change{Drop: []ulid.ULID{job.Inputs[0].Block.ULID}})
			return err
		})
		w.start()
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.jobs.WithLabelValues("slot", string(outcomeConflict))))
		require.Len(t, w.manifest("acme").Blocks, 1)
		require.Empty(t, w.status("acme").LastError)
	})
}

// atomicBarrier holds callers back for a while, so that others arrive.
type atomicBarrier struct{}

func (atomicBarrier) wait(d time.Duration) { time.Sleep(d) }

// TestALostAnswerOfTheSwapIsNoFailure: the manifest has the output although the put failed.
func TestALostAnswerOfTheSwapIsNoFailure(t *testing.T) {
	for _, fault := range []faultbucket.Fault{faultbucket.After, faultbucket.Before} {
		t.Run(fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bkt := faultbucket.New(bucket.NewInMemory(), nil)
				w := newWorld(t, bkt)
				w.add("acme", 3, midnight(), midnight().Add(2*time.Hour))
				failures := 3
				bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
					if op.Method == "PutIfAbsent" && failures > 0 {
						failures--
						return fault
					}
					return faultbucket.None
				})
				w.start()
				time.Sleep(2 * time.Minute)
				require.Len(t, w.manifest("acme").Blocks, 1)
				require.Len(t, w.merger.done(), 1)
				require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.jobs.WithLabelValues("slot", string(outcomeDone))))
			})
		})
	}
}

// TestIdleTenantsCostNothing: ten tenants in which nothing happens, for a day.
func TestIdleTenantsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := countbucket.New(bucket.NewInMemory())
		w := newWorld(t, bkt)
		const tenants = 10
		for i := range tenants {
			w.add("tenant-"+string(rune('a'+i)), 1, midnight(), midnight().Add(2*time.Hour))
		}
		w.start()
		time.Sleep(26 * time.Hour)
		bkt.Reset()
		time.Sleep(24 * time.Hour)
		ops := len(bkt.Ops())
		t.Logf("%d operations a day for %d tenants", ops, tenants)
		require.Less(t, ops, tenants*20+180)
	})
}

func TestRunEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.cfg.Interval = 0 // only when asked
		w.start()
		post := func(query string) (int, string) {
			rec := httptest.NewRecorder()
			w.ServeRun(rec, httptest.NewRequest(http.MethodPost, "/compactor/run?"+query, nil))
			body, _ := io.ReadAll(rec.Body)
			return rec.Code, string(body)
		}
		w.add("acme", 3, midnight(), midnight().Add(24*time.Hour))
		time.Sleep(time.Hour)
		require.Empty(t, w.merger.done(), "nobody has asked")

		code, body := post("tenant=nobody")
		require.Equal(t, http.StatusNotFound, code, body)
		code, body = post("")
		require.Equal(t, http.StatusBadRequest, code, body)
		w.others.move("acme", true)
		code, body = post("tenant=acme")
		require.Equal(t, http.StatusMisdirectedRequest, code, body)
		require.Contains(t, body, "compactor-2 at 10.0.0.2:9009")
		w.others.move("acme", false)

		w.merger.setFault(func(context.Context, string, merge.Job) error { return &merge.TooLarge{What: "index"} })
		code, body = post("tenant=acme&wait=true")
		require.Equal(t, http.StatusOK, code, body)
		require.Contains(t, body, "output is too large")
		tried := len(w.merger.done())
		w.merger.setFault(nil)
		code, body = post("tenant=acme&wait=true")
		require.Equal(t, http.StatusOK, code, body)
		require.Contains(t, body, `"blocks":12,`)
		require.Len(t, w.merger.done(), tried+12, "what was refused is tried again when somebody asks")

		rec := httptest.NewRecorder()
		w.ServeStatus(rec, httptest.NewRequest(http.MethodGet, "/compactor?format=json", nil))
		require.Contains(t, rec.Body.String(), `{"tenants":[{"tenant":"acme","version":`)
		rec = httptest.NewRecorder()
		w.ServeStatus(rec, httptest.NewRequest(http.MethodGet, "/compactor?tenant=acme", nil))
		require.Contains(t, rec.Body.String(), "<td class=\"n\">12</td>")
	})
}

// TestOldDataIsWaitedFor, until nothing more comes or somebody asks.
func TestOldDataIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.start()
		old := midnight().Add(-10 * 24 * time.Hour)
		for slot := range 12 {
			at := old.Add(time.Duration(slot) * 2 * time.Hour)
			w.addAtOnce("acme", 3, at, at.Add(2*time.Hour))
			w.addAtOnce("hasty", 3, at, at.Add(2*time.Hour))
			time.Sleep(10 * time.Minute)
		}
		require.Len(t, w.merger.done(), 2, "what there was at first")
		require.Zero(t, w.lag())
		_, err := w.Run(t.Context(), "hasty", true)
		require.NoError(t, err)
		require.Len(t, w.manifest("hasty").Blocks, 1)
		require.Len(t, w.manifest("acme").Blocks, 1+33)
		w.addAtOnce("hasty", 3, old, old.Add(2*time.Hour))
		time.Sleep(30 * time.Minute)
		require.Len(t, w.manifest("hasty").Blocks, 4, "who has asked once has not asked for ever")
		time.Sleep(100 * time.Minute)
		require.Len(t, w.manifest("acme").Blocks, 1)
		require.Len(t, w.manifest("hasty").Blocks, 1)
		require.Len(t, w.merger.done(), 2+3)
	})
}

// TestAnUnreadableManifestIsThatTenantsFault: it is counted, it lags, and others go on.
func TestAnUnreadableManifestIsThatTenantsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewInMemory()
		w := newWorld(t, bkt)
		w.add("acme", 3, midnight(), midnight().Add(2*time.Hour))
		require.NoError(t, bkt.Put(t.Context(), manifest.Key("broken", 1), strings.NewReader("junk"), 4))
		w.start()
		time.Sleep(time.Hour)
		require.Len(t, w.manifest("acme").Blocks, 1)
		require.NotEmpty(t, w.status("broken").LastError)
		require.InDelta(t, time.Hour.Seconds(), w.lag().Seconds(), 60)
	})
}

// TestPatience: what is done on the local disk without a sign of life, of a large tenant, is not taken for a standstill.
func TestPatience(t *testing.T) {
	require.Equal(t, stallTime, patience(merge.Snapshot{Phase: merge.PhaseVerify.String()}))
	require.Equal(t, indexStallTime, patience(merge.Snapshot{Phase: merge.PhaseIndex.String()}))
}

// TestAPanicOfALookIsOneTenants: whatever a manifest makes of the planner, the process and the other tenants go on.
func TestAPanicOfALookIsOneTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		planned := w.Compactor.plan
		w.Compactor.plan = func(m *manifest.Manifest, now time.Time, l plan.Limits) *plan.Plan {
			if m.Tenant == "bad" {
				panic("index out of range")
			}
			return planned(m, now, l)
		}
		w.add("bad", 3, midnight(), midnight().Add(2*time.Hour))
		w.add("good", 3, midnight(), midnight().Add(2*time.Hour))
		w.start()
		time.Sleep(time.Hour)
		require.Len(t, w.manifest("good").Blocks, 1)
		require.Contains(t, w.status("bad").LastError, "panic")
		require.Greater(t, w.lag(), 30*time.Minute, "the alert fires")
	})
}

// TestAnOutputThatWasSweptIsNotListed: a machine stood still between an output and its swap for longer than outputs lie
// unlisted.
func TestAnOutputThatWasSweptIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.add("acme", 2, midnight(), midnight().Add(2*time.Hour))
		m := w.manifest("acme")
		b := m.Blocks[0]
		b.ULID, b.Level, b.Writer = newULID(time.Now().UnixMilli()), 2, w.cfg.Writer
		b.Sources = append(slices.Clone(m.Blocks[0].Sources), m.Blocks[1].Sources...)
		change := manifest.Change{Add: []manifest.Block{b}, Replace: []ulid.ULID{m.Blocks[0].ULID, m.Blocks[1].ULID}}
		time.Sleep(25 * time.Hour)
		require.ErrorIs(t, w.swap(t.Context(), "acme", change), errStale)
		require.Len(t, w.manifest("acme").Blocks, 2, "what is in the bucket stays listed")

		key := block.Key("acme", b.ULID, block.MetaName)
		require.NoError(t, w.bkt.Put(t.Context(), key, strings.NewReader("{}"), 2))
		require.NoError(t, w.swap(t.Context(), "acme", change))
		require.Len(t, w.manifest("acme").Blocks, 1)
	})
}
