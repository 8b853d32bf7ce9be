package distributor

import (
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
)

// format is a version of remote write.
type format uint8

const (
	format1 format = iota + 1
	format2
)

func (f format) String() string {
	if f == format2 {
		return "2.0"
	}
	return "1.0"
}

// fate is what happens to a series of a request.
type fate uint8

const (
	byRef    fate = iota // goes on by its cached reference
	byLabels             // goes on with labels, which were built
	gone                 // refused, and counted
)

// request is one remote write on its way, with all memory that it needs. It is taken from a pool and given back by
// serve, once the answer is written.
type request struct {
	wire.Request // the decoded body; Batch is what goes to the ingester

	d      *Distributor
	format format
	tenant *tenantState
	limit  int // of the decoded body and of each thing made of it, in bytes
	minute uint32
	maxT   int64 // of samples, in milliseconds since the Unix epoch
	view   *view
	held   int64 // bytes reserved
	grants int   // bytes granted to the decoder

	compressed []byte
	body       []byte

	keys     []key
	symbols  []key    // hashes of the symbols, 2.0 only
	metas    []uint32 // hashes of the series' metadata, 2.0 only
	fates    []fate
	slow     []int32 // series that are not in the cache
	negative []refusedHit
	tell     []int32 // series by reference whose metadata is new to the ingester
	origin   []int32 // which series of the body a series of the batch was; only when compacted
	unusable []bool  // exemplars that are dropped; only when there are exemplars
	labels   []labels.Label
	builder  labels.ScratchBuilder
	built    int // bytes of labels built
	// builtReserved is how many of them are reserved so far.
	builtReserved int
	touched       uint64
	known         int // series that go on by reference

	dirty     bool // something has to be taken out of the batch
	compacted bool

	result      duramenpb.PushResult
	again       duramenpb.Batch // the stale series of the batch, with labels
	againOf     []int32         // which series of the batch each of them was
	againResult duramenpb.PushResult

	sent    counts
	stored  counts
	refused refusals
}

// refusedHit is a series whose labels the cache knows to be refused.
type refusedHit struct {
	series int32
	reason uint8 // index into labelReasons
}

// counts are samples and exemplars.
type counts struct{ floats, histograms, exemplars int }

func (c counts) samples() int { return c.floats + c.histograms }

// Above these sizes a request's memory is left to the garbage collector: one huge request must not stay in the pool.
const (
	maxPooledBytes  = 4 << 20
	maxPooledSeries = 32 << 10
)

// requestPool keeps requests for reuse.
type requestPool struct{ pool sync.Pool }

// get returns an empty request; put must be called on it.
func (p *requestPool) get(d *Distributor, f format) *request {
	r, _ := p.pool.Get().(*request)
	if r == nil {
		r = &request{}
	}
	r.d, r.format = d, f
	return r
}

// put takes r back. Nothing of it may be used any more, except label sets and histograms that a Pusher kept.
func (p *requestPool) put(r *request) {
	r.release()
	junk(r.compressed)
	junk(r.body)
	junk(r.Buf)
	oversized := cap(r.compressed) > maxPooledBytes || cap(r.body) > maxPooledBytes ||
		cap(r.Batch.Series) > maxPooledSeries || cap(r.Batch.Floats) > 4*maxPooledSeries ||
		cap(r.Refs) > 64*maxPooledSeries || cap(r.Symbols) > 4*maxPooledSeries ||
		cap(r.Batch.Histograms) > maxPooledSeries || cap(r.Exemplars) > maxPooledSeries ||
		cap(r.Metadata) > maxPooledSeries
	if oversized {
		return
	}
	r.reset()
	p.pool.Put(r)
}

// reset forgets everything but memory.
func (r *request) reset() {
	r.Request.Reset(nil, 0, nil)
	clear(r.labels[:cap(r.labels)])
	clear(r.again.Series)
	clear(r.again.Histograms)
	clear(r.again.Exemplars)
	clear(r.again.Metadata)
	r.builder.Reset()
	r.result.Reset()
	r.againResult.Reset()
	r.refused.reset()
	*r = request{
		Request:    r.Request,
		compressed: r.compressed[:0], body: r.body[:0],
		keys: r.keys[:0], symbols: r.symbols[:0], metas: r.metas[:0], fates: r.fates[:0], slow: r.slow[:0],
		negative: r.negative[:0], tell: r.tell[:0], origin: r.origin[:0], unusable: r.unusable[:0],
		labels: r.labels[:0], builder: r.builder,
		result: r.result, againResult: r.againResult, againOf: r.againOf[:0],
		again: duramenpb.Batch{
			Series: r.again.Series[:0], Floats: r.again.Floats[:0], Histograms: r.again.Histograms[:0],
			Exemplars: r.again.Exemplars[:0], Metadata: r.again.Metadata[:0],
		},
		refused: r.refused,
	}
}
