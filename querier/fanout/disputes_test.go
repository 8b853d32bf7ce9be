package fanout

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestThirdZoneDecides: one zone holds another, larger value than the two others, and two zones are asked. Whichever they
// are, the value of the majority is the answer.
func TestThirdZoneDecides(t *testing.T) {
	for _, odd := range []string{"a0", "b0", "c0"} {
		for _, asChunks := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunks %t", odd, asChunks), func(t *testing.T) {
				inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
					k := key{2, began + 200}
					require.Contains(t, w.acked, k)
					w.member(odd).data[k] = w.acked[k] + 1
					for range 10 {
						got, err := w.ask(began, began+10_000, asChunks)
						require.NoError(t, err)
						require.Equal(t, w.acked[k], got[k])
						w.check(got, began, began+10_000, "disputed")
					}
					require.LessOrEqual(t, testutil.ToFloat64(w.fanout.metrics.disputes), 1.0, "it is remembered")
				})
			})
		}
	}
}

// TestDisputeWithoutAThirdZone: nobody can decide, so that the larger value wins, and nothing fails.
func TestDisputeWithoutAThirdZone(t *testing.T) {
	for _, is := range []trouble{refuses, hangs, slow} {
		inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
			k := key{2, began + 200}
			w.warm(began)
			w.member("a0").data[k] = w.acked[k] + 1
			w.trouble("c0", is)
			got, err := w.ask(began, began+10_000, false)
			require.NoError(t, err)
			if is != slow {
				require.Equal(t, w.acked[k]+1, got[k])
			}
			w.trouble("c0", fine)
			time.Sleep(time.Minute)
			got, err = w.ask(began, began+10_000, false)
			require.NoError(t, err)
			require.Equal(t, w.acked[k], got[k], "it is back")
		})
	}
}

// TestDisputesAreForgotten: after a while two zones are asked again, and the memory of tenants is bounded.
func TestDisputesAreForgotten(t *testing.T) {
	now := time.Now()
	var d disputes
	d.note("a", now)
	require.True(t, d.open("a", now))
	require.False(t, d.open("b", now))
	require.False(t, d.open("a", now.Add(disputeLasts)))
	for i := range maxDisputes + 10 {
		d.note(fmt.Sprint(i), now.Add(time.Duration(i)))
	}
	require.Len(t, d.byTenant, maxDisputes)
	require.True(t, d.open(fmt.Sprint(maxDisputes+9), now))
	require.False(t, d.open("0", now))
}
