package lifecycle

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

const (
	seriesCount = 5
	// alwaysHeld is how far back a query needs no bucket: the querier's cut.
	alwaysHeld = 11 * time.Hour
)

// world is a node, its surroundings and the model of what it must answer.
type world struct {
	t     testing.TB
	rnd   *rand.Rand
	clock *clock
	store store
	state storeState
	hooks *hooks
	model *model
	node  *node
	dir   string
	lives int
	log   []string // the steps so far

	asked, failed int // queries by check, and those that the bucket's state excused
}

func newWorld(t testing.TB, seed uint64, s store) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 0)), clock: newClock(), hooks: &hooks{}, model: newModel(),
		store: s, dir: filepath.Join(t.TempDir(), "0"),
	}
	w.node = startNode(t, w.dir, w.store.bucket, w.clock, w.hooks)
	t.Cleanup(func() {
		w.node.stop(t)
		if t.Failed() {
			for _, step := range w.log {
				t.Log(step)
			}
		}
	})
	return w
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%s  ", w.clock.now().Format("02 15:04:05.000"))+fmt.Sprintf(format, args...))
}

func (w *world) nowMs() int64 { return w.clock.now().UnixMilli() }

func (w *world) setStore(s storeState) {
	w.note("bucket is %s", s)
	w.state = s
	w.store.set(s)
}

// excused reports whether the bucket's state accounts for an error.
func (w *world) excused(err error) bool {
	switch errkind.Of(err) {
	case errkind.Unavailable:
		return w.state != healthy
	case errkind.Corrupt:
		return w.state == faulty // what was damaged on its way, twice in a row
	default:
		return false
	}
}

// push sends samples and notes which of them were acknowledged: all that were not refused by name.
func (w *world) push(ps []point) {
	var (
		b duramenpb.Batch
		r duramenpb.PushResult
	)
	for _, p := range ps {
		b.Floats = append(b.Floats, duramenpb.Float{T: p.t, V: w.model.send(p)})
		b.Series = append(b.Series, duramenpb.Series{Labels: seriesLabels(p.series), FloatsEnd: len(b.Floats)})
	}
	if err := w.node.ingester.Push(context.Background(), tenantID, &b, &r); err != nil {
		w.t.Errorf("push: %v", err)
		return
	}
	refused := map[int]bool{}
	for _, ref := range r.Refused {
		refused[ref.Series] = true
	}
	acked := ps[:0:0]
	for i, p := range ps {
		if !refused[i] {
			acked = append(acked, p)
		}
	}
	if r.Floats != len(acked) {
		w.t.Errorf("push: %d acknowledged, %d not refused", r.Floats, len(acked))
	}
	w.model.ack(acked)
}

// pushNew sends some minutes of a scrape that ends now.
func (w *world) pushNew() {
	var ps []point
	end, n := w.nowMs(), 1+w.rnd.IntN(40)
	for s := range seriesCount {
		if w.rnd.IntN(4) == 0 {
			continue
		}
		for i := range n {
			ps = append(ps, point{s, end - int64(n-i)*15_000 + w.rnd.Int64N(5)})
		}
	}
	w.note("push %d new", len(ps))
	w.push(ps)
}

// pushLate sends samples of the last three hours, most of them out of order.
func (w *world) pushLate() {
	var ps []point
	for range 1 + w.rnd.IntN(30) {
		ps = append(ps, point{w.rnd.IntN(seriesCount), w.nowMs() - w.rnd.Int64N(3*time.Hour.Milliseconds())})
	}
	w.note("push %d late", len(ps))
	w.push(ps)
}

// pushAgain repeats samples that were acknowledged at any time, as a sender does that got no answer.
func (w *world) pushAgain() {
	var ps []point
	for range 1 + w.rnd.IntN(20) {
		if n := w.model.size(); n > 0 {
			ps = append(ps, w.model.nth(w.rnd.IntN(n)))
		}
	}
	w.note("push %d again", len(ps))
	w.push(ps)
}

// flush cuts everything; with ship it waits until all is in the bucket, which takes a bucket.
func (w *world) flush(ship bool) {
	res, err := w.node.ingester.Flush(context.Background(), tenantID, ship)
	w.note("flush, ship %v: %d blocks, %v", ship, len(res.Blocks), err)
	if err != nil && errkind.Of(err) != errkind.NotFound && !w.excused(err) {
		w.t.Errorf("flush while the bucket is %s: %v", w.state, err)
	}
}

func (w *world) advance(d time.Duration) {
	w.note("clock %+v", d)
	w.clock.move(d)
}

// deleteLocally brings about what deletes local blocks: they grow old, are known as listed for an hour, and the TSDB
// reloads, which a cut makes it do.
func (w *world) deleteLocally() {
	w.flush(true)
	w.advance(13 * time.Hour)
	w.flush(true)
	w.advance(61 * time.Minute)
	w.push([]point{{0, w.nowMs()}})
	w.flush(false)
}

func (w *world) restart() {
	w.note("restart")
	w.node.stop(w.t)
	w.node = startNode(w.t, w.dir, w.store.bucket, w.clock, w.hooks)
}

// crash goes on from a copy of the data folder as it is, without anything that an orderly stop does.
func (w *world) crash() {
	w.note("crash")
	w.lives++
	next := filepath.Join(filepath.Dir(w.dir), strconv.Itoa(w.lives))
	copyTree(w.t, w.dir, next)
	w.node.stop(w.t)
	require.NoError(w.t, os.RemoveAll(w.dir))
	w.dir = next
	w.node = startNode(w.t, w.dir, w.store.bucket, w.clock, w.hooks)
}

// loseDisk goes on with an empty data folder and the bucket as it is.
func (w *world) loseDisk() {
	w.note("lose disk")
	w.node.stop(w.t)
	require.NoError(w.t, os.RemoveAll(w.dir))
	w.node = startNode(w.t, w.dir, w.store.bucket, w.clock, w.hooks)
}

// held asks the ingester for its floor.
func (w *world) held() duramenpb.Held {
	q, held, err := w.node.ingester.Querier(context.Background(), tenantID, duramenpb.View{Cut: math.MaxInt64}, 0, 0)
	require.NoError(w.t, err)
	require.NoError(w.t, q.Close())
	return held
}

// check queries all time, a random range and the range that needs no bucket, as samples and as chunks.
func (w *world) check() {
	now := w.nowMs()
	recent := max(now-alwaysHeld.Milliseconds(), w.held().Floor)
	for _, r := range [][2]int64{
		{math.MinInt64, math.MaxInt64},
		{recent, now},
		{now - w.rnd.Int64N(40*time.Hour.Milliseconds()), now - w.rnd.Int64N(10*time.Hour.Milliseconds())},
	} {
		if r[0] > r[1] {
			continue
		}
		for _, chunked := range []bool{false, true} {
			err := w.query(r[0], r[1], chunked)
			w.asked++
			if err != nil && r[0] < recent && w.excused(err) {
				w.failed++
				continue // needs the bucket and says so
			}
			require.NoError(w.t, err, "query [%d, %d], chunks %v, cut %d", r[0], r[1], chunked, recent)
		}
	}
}

// query compares one answer with the model. Samples that are sent while it runs may be in the answer or not.
func (w *world) query(mint, maxt int64, chunked bool) error {
	must := w.model.acknowledged(mint, maxt)
	got, err := w.read(mint, maxt, chunked)
	if err != nil {
		return err
	}
	return w.model.judge(got, must, mint, maxt)
}

func (w *world) read(mint, maxt int64, chunked bool) (got map[point]uint64, err error) {
	ctx := tenant.WithID(context.Background(), tenantID)
	hints := &storage.SelectHints{Start: mint, End: maxt}
	matcher := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "life")
	if !chunked {
		q, err := w.node.querier.Queryable().Querier(mint, maxt)
		if err != nil {
			return nil, err
		}
		defer q.Close()
		return readSeries(q.Select(ctx, true, hints, matcher))
	}
	q, err := w.node.querier.Queryable().ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	return readChunks(q.Select(ctx, true, hints, matcher))
}

// answer collects samples. A series that comes twice, or whose samples do not ascend, is an error.
type answer struct {
	got  map[point]uint64
	seen map[int]bool
	id   int
	last int64
	it   chunkenc.Iterator
}

func newAnswer() *answer { return &answer{got: map[point]uint64{}, seen: map[int]bool{}} }

func (a *answer) begin(series labels.Labels) (err error) {
	if a.id, err = strconv.Atoi(series.Get(seriesLabel)); err != nil {
		return err
	}
	if a.seen[a.id] {
		return fmt.Errorf("series %d comes twice", a.id)
	}
	a.seen[a.id], a.last = true, math.MinInt64
	return nil
}

func (a *answer) samples() error {
	for typ := a.it.Next(); typ != chunkenc.ValNone; typ = a.it.Next() {
		if typ != chunkenc.ValFloat {
			return fmt.Errorf("series %d has a sample of type %s", a.id, typ)
		}
		t, v := a.it.At()
		if t <= a.last {
			return fmt.Errorf("series %d has %d after %d", a.id, t, a.last)
		}
		a.last, a.got[point{a.id, t}] = t, math.Float64bits(v)
	}
	return a.it.Err()
}

func readSeries(set storage.SeriesSet) (map[point]uint64, error) {
	a := newAnswer()
	for set.Next() {
		if err := a.begin(set.At().Labels()); err != nil {
			return nil, err
		}
		a.it = set.At().Iterator(a.it)
		if err := a.samples(); err != nil {
			return nil, err
		}
	}
	return a.got, set.Err()
}

func readChunks(set storage.ChunkSeriesSet) (map[point]uint64, error) {
	a := newAnswer()
	for set.Next() {
		if err := a.begin(set.At().Labels()); err != nil {
			return nil, err
		}
		chunks := set.At().Iterator(nil)
		for chunks.Next() {
			a.it = chunks.At().Chunk.Iterator(a.it)
			if err := a.samples(); err != nil {
				return nil, err
			}
		}
		if err := chunks.Err(); err != nil {
			return nil, err
		}
	}
	return a.got, set.Err()
}
