package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// watcher reads everything before each operation of a compactor that follows a change of the bucket, so that it sees each
// state that the bucket is ever in: with the newest manifest, and with those that a query may have pinned.
type watcher struct {
	t *testing.T
	w *world

	mu      sync.Mutex
	changed bool
	pins    []pin
	err     error
	reads   int
}

// pin is a manifest that queries use, and when a newer one was there.
type pin struct {
	m    *manifest.Manifest
	over time.Time
}

// pinTime is how long a query may go on with a manifest after a newer one is there; the objects stay for two hours.
const pinTime = time.Hour

// before is told of an operation that is about to begin.
func (o *watcher) before(op faultbucket.Op) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed {
		o.look(op.Method + " " + op.Key)
	}
	o.changed = changes(op) && strings.HasPrefix(op.Key, tenantID+"/")
}

// look checks all manifests that may be in use. The lock is held.
func (o *watcher) look(before string) {
	if o.err != nil {
		return
	}
	m, err := o.w.owner.Refresh(o.t.Context(), tenantID)
	if err != nil {
		o.err = err
		return
	}
	now := o.w.clock.now()
	if last := len(o.pins) - 1; last < 0 || o.pins[last].m.Version != m.Version {
		if last >= 0 {
			o.pins[last].over = now
		}
		o.pins = append(o.pins, pin{m: m})
	}
	for len(o.pins) > 1 && o.pins[0].over.Add(pinTime).Before(now) {
		o.pins = o.pins[1:]
	}
	for _, p := range o.pins {
		if o.reads++; o.err == nil {
			if err := o.w.check(o.t, p.m); err != nil {
				o.err = fmt.Errorf("before %s: version %d of %d: %w", before, p.m.Version, m.Version, err)
			}
		}
	}
}

// end returns what was found, after a last look.
func (o *watcher) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.look("the end")
	return o.err
}

// compactAll does what a process does in two days: it compacts, and sweeps up. Errors are those of faults.
func (w *world) compactAll(ctx context.Context, p *process) error {
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for _, wait := range []time.Duration{0, time.Minute, 10 * time.Minute, 3 * time.Hour, time.Hour} {
		w.clock.advance(wait)
		status, err := p.Run(ctx, tenantID, true)
		if err == nil && status.JobsTotal > 0 { // an older error may be one that another owner has seen to
			err = fmt.Errorf("compaction: %s", status.LastError)
		}
		keep(err)
		keep(p.reconciler.Pass(ctx, 0))
	}
	return first
}

// operationWorld is a small tenant whose compaction goes through slots and a day, with late blocks.
func operationWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t, 2)
	w.putSlots(t, rand.New(rand.NewPCG(4, 4)), blockgen.SlotOptions{Start: firstDay, Count: 2, Replicas: 3, Series: 4})
	return w
}

// TestAFailureAtEachOperation lets the n-th operation on the bucket fail, for each n: before its effect and after it, as a
// lost answer does, or by a body that ends early, is changed, or is not there. At each moment a reader sees all samples,
// once; when the bucket is well again, everything gets compacted without help.
func TestAFailureAtEachOperation(t *testing.T) {
	writing := []faultbucket.Fault{faultbucket.Before, faultbucket.After}
	reading := []faultbucket.Fault{
		faultbucket.Before, faultbucket.BreakOff, faultbucket.Truncate, faultbucket.Missing, faultbucket.Flip,
	}
	ops := withFault(t, -1, faultbucket.None)
	t.Logf("%d operations", len(ops))
	require.Greater(t, len(ops), 60)
	type failure struct {
		n int
		f faultbucket.Fault
	}
	var failures []failure
	for turn := range (len(ops) + stride - 1) / stride {
		n, all := turn*stride, reading
		if changes(ops[n]) {
			all = writing
		} else if !*allFaults { // they take turns
			all = reading[turn%len(reading):][:1]
		}
		for _, f := range all {
			failures = append(failures, failure{n, f})
		}
	}
	const workers = 6 // most of the time is spent in pauses before something is tried again
	for w := range workers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := w; i < len(failures); i += workers {
				withFault(t, failures[i].n, failures[i].f)
			}
		})
	}
}

// changes tells whether an operation changes the bucket.
func changes(op faultbucket.Op) bool {
	return op.Method == "Put" || op.Method == "PutIfAbsent" || op.Method == "Delete"
}

// withFault compacts a small tenant while operation n fails, and returns the operations of the first hours.
func withFault(t *testing.T, n int, f faultbucket.Fault) (operations []faultbucket.Op) {
	t.Helper()
	what := fmt.Sprintf("operation %d fails: %s", n, f)
	w := operationWorld(t)
	defer w.close()
	o := &watcher{t: t, w: w, changed: true}
	fb := faultbucket.New(w.bkt, func(op faultbucket.Op) faultbucket.Fault {
		o.before(op)
		switch {
		case op.N != n, f == faultbucket.Truncate && op.Method == "Put": // nobody survives a store that lies
			return faultbucket.None
		}
		what += " " + op.Method + " " + op.Key
		return f
	})
	p := w.start(t, fb, "a")
	defer p.stop(t)
	if err := w.compactAll(t.Context(), p); n < 0 {
		require.NoError(t, err)
	}
	operations = fb.Ops()
	require.NoError(t, o.end(), what)
	require.Greater(t, o.reads, 5)
	w.clock.advance(24 * time.Hour)
	require.NoError(t, w.compactAll(t.Context(), p), what)
	w.clock.advance(72 * time.Hour)
	require.NoError(t, w.compactAll(t.Context(), p), what)
	require.NoError(t, o.end(), what)
	m := w.newest(t)
	require.Len(t, m.Blocks, 1, "%s: all of it is one day", what)
	require.Empty(t, w.jobs(t), what)
	require.Empty(t, m.Lost, what)
	w.noRemains(t, m, what)
	return operations
}

// noRemains requires that nothing lies in the bucket but the listed blocks and what belongs to them.
func (w *world) noRemains(t testing.TB, m *manifest.Manifest, what string) {
	t.Helper()
	require.NoError(t, w.bkt.List(t.Context(), tenantID+"/", true, func(o bucket.Object) error {
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, tenantID+"/"), "/")
		if id, err := ulid.ParseStrict(name); err == nil {
			_, listed := m.Find(id)
			require.True(t, listed, "%s: %s was left", what, o.Key)
		}
		return nil
	}))
}
