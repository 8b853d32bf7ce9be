package plan

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// t0 is the beginning of a day.
var t0 = time.Date(2026, 7, 6, 0, 0, 0, 0, time.UTC)

// world makes manifests.
type world struct {
	m manifest.Manifest
	n uint64
}

// add lists a block of [from, to), counted in hours from t0, which is shipped an hour later.
func (w *world) add(from, to float64, change ...func(*manifest.Block)) ulid.ULID {
	w.n++
	at := func(hours float64) int64 { return t0.Add(time.Duration(hours * float64(time.Hour))).UnixMilli() }
	b := manifest.Block{
		MinTime: at(from), MaxTime: at(to), Level: 1, Series: 1000, Samples: 480_000, Chunks: 4000, SizeBytes: 1 << 20,
		Writer: "ingester/a", AddedAt: at(to + 1),
	}
	for _, c := range change {
		c(&b)
	}
	b.ULID = ulid.MustNew(uint64(b.AddedAt), nil)
	b.ULID[8], b.ULID[14], b.ULID[15] = byte(w.n>>16), byte(w.n>>8), byte(w.n)
	if len(b.Sources) == 0 {
		b.Sources = []ulid.ULID{b.ULID}
	}
	w.m.Tenant, w.m.Version = "t", w.m.Version+1
	w.m.Blocks = append(w.m.Blocks, b)
	return b.ULID
}

// at plans at a time in hours from t0, with all ingesters having shipped up to another.
func (w *world) at(now, shipped float64, change ...func(*Limits)) *Plan {
	l := Limits{
		ShippedUpTo: t0.Add(time.Duration(shipped * float64(time.Hour))).UnixMilli(), OutOfOrderWindow: 3 * time.Hour,
		Replicas: 3, DeletionDelay: DefaultDeletionDelay,
	}
	for _, c := range change {
		c(&l)
	}
	return Make(&w.m, t0.Add(time.Duration(now*float64(time.Hour))), l)
}

func TestSlotIsMergedWhenComplete(t *testing.T) {
	w := new(world)
	a, b, c := w.add(0, 2), w.add(0, 2), w.add(0, 2)
	require.Empty(t, w.at(2.5, 1.99).Jobs, "an ingester has not shipped yet")
	require.Zero(t, w.at(2.5, 1.99).OldestUncompacted)
	for _, p := range []*Plan{w.at(2.5, 2), w.at(4, 0)} {
		require.Len(t, p.Jobs, 1)
		j := p.Jobs[0]
		require.Equal(t, KindSlot, j.Kind)
		require.Equal(t, []ulid.ULID{a, b, c}, j.Blocks)
		require.Equal(t, 2, j.Level)
		require.Equal(t, StateReady, p.Slots[0].State)
		require.Equal(t, 1, p.Uncompacted())
	}
	require.Empty(t, w.at(3.99, 0).Jobs)
}
