package distributor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/duramendb/duramen/distributor/rw1"
	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// touchBlock is how many series are looked up at a time: enough loads at once to hide the memory's latency, few enough
// to stay in the first cache.
const touchBlock = 16

// push takes a compressed body the whole way. Afterwards stored and refused say what became of the samples, also when
// an error says that some of them are in neither.
//
// Hot: with a full cache it allocates nothing and touches no label.
func (r *request) push(ctx context.Context) error {
	ctx, span := tracing.Start(ctx, "distributor.push")
	err := r.pushWhole(ctx)
	r.endSpan(span, err)
	return err
}

func (r *request) pushWhole(ctx context.Context) error {
	if err := r.decode(); err != nil {
		return err
	}
	now := r.d.now()
	if err := r.takeRate(now, r.sent.samples()); err != nil {
		return err
	}
	err := r.process(ctx, now)
	if err != nil && errkind.Of(err).Retry() {
		r.tenant.rate.giveBack(r.sent.samples())
	}
	return err
}

func (r *request) process(ctx context.Context, now time.Time) error {
	r.maxT = r.d.newestTimestamp(r.tenant.id, now)
	r.view = r.tenant.cache.view(r.d.limits.Epoch(r.tenant.id))
	r.makeKeys()
	r.lookup()
	if err := r.buildMissing(); err != nil {
		return err
	}
	if len(r.Exemplars) > 0 {
		if err := r.buildExemplars(); err != nil {
			return err
		}
	}
	if err := r.addMetadata(); err != nil {
		return err
	}
	r.checkSamples()
	if r.dirty {
		r.compact()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.Batch.Series) == 0 && len(r.Batch.Metadata) == 0 {
		return nil
	}
	return r.store(ctx)
}

// takeRate asks the tenant's rate limit for n samples.
func (r *request) takeRate(now time.Time, n int) error {
	rate := r.d.limits.IngestionRate(r.tenant.id)
	wait := r.tenant.rate.take(now, rate, float64(r.d.limits.IngestionBurst(r.tenant.id)), n)
	if wait == 0 {
		return nil
	}
	return &errkind.Error{Kind: errkind.Limited, RetryAfter: wait, Err: errRate{rate: rate}}
}

// decode decompresses and decodes the body.
func (r *request) decode() error {
	if err := r.decompress(); err != nil {
		return err
	}
	r.d.metrics.bodyBytes.Add(float64(len(r.body)))
	r.Request.Reset(r.body, len(r.body)+64<<10, r)
	var err error
	if r.format == format2 {
		err = rw2.Decode(&r.Request)
	} else {
		err = rw1.Decode(&r.Request)
	}
	if err != nil {
		return r.decodeError(err)
	}
	if len(r.body) > 0 && len(r.Labels)+len(r.Metadata)+len(r.Symbols) == 0 {
		return errkind.New(errkind.Invalid,
			"the body has nothing of remote write %s in it; is the Content-Type right?", r.format)
	}
	r.sent = counts{len(r.Batch.Floats), len(r.Batch.Histograms), len(r.Exemplars)}
	r.tenant.received.Add(float64(r.sent.samples()))
	if r.StartTimestamps > 0 {
		r.d.metrics.starts.Add(float64(r.StartTimestamps))
	}
	return nil
}

// decodeError tells a malformed body from one that needs too much memory.
func (r *request) decodeError(err error) error {
	var bad *wire.Error
	if errors.As(err, &bad) {
		return r.malformed(err)
	}
	return err
}

func (r *request) makeKeys() {
	if r.format == format1 {
		r.keys = r.d.hasher.labelKeys(r.keys[:0], &r.Request)
		return
	}
	r.symbols = r.d.hasher.symbolHashes(r.symbols[:0], &r.Request)
	r.keys = r.d.hasher.refKeys(r.keys[:0], &r.Request, r.symbols)
	r.metas = r.metas[:0]
	salt := uint32(r.tenant.cache.restarts.Load()) << 1 // the lowest bit of a hash says that there is metadata
	for _, m := range r.SeriesMetadata {
		hash := metadataHash(m, r.symbols)
		if hash != 0 {
			hash ^= salt
		}
		r.metas = append(r.metas, hash)
	}
}

// lookup finds the series in the cache and sorts them: by reference, refused, or slow.
func (r *request) lookup() {
	c := r.tenant.cache
	c.rlock()
	defer c.runlock()
	for from := 0; from < len(r.keys); from += touchBlock {
		to := min(from+touchBlock, len(r.keys))
		for _, k := range r.keys[from:to] {
			r.touched += c.touch(k)
		}
		for i := from; i < to; i++ {
			r.fates = append(r.fates, r.lookupOne(c, i))
		}
	}
}

func (r *request) lookupOne(c *cache, i int) fate {
	e := c.find(r.keys[i])
	if e == nil || e.gen != r.view.gen || r.keys[i] == (key{}) {
		r.slow = append(r.slow, int32(i))
		return byLabels
	}
	if e.seen.Load() != r.minute {
		e.seen.Store(r.minute)
	}
	switch e.life {
	case r.view.life:
		r.Batch.Series[i].Ref = e.ref
		r.known++
		if r.format == format2 && r.metas[i] != e.meta && r.metas[i] != 0 {
			r.tell = append(r.tell, int32(i))
		}
		return byRef
	case lifeRefused:
		r.negative = append(r.negative, refusedHit{int32(i), uint8(e.ref)})
		return gone
	default:
		r.slow = append(r.slow, int32(i))
		return byLabels
	}
}

// buildMissing builds the labels of the series that the cache does not know, and refuses those that cannot be.
func (r *request) buildMissing() error {
	r.d.metrics.hits.Add(float64(r.known))
	if r.known > 0 {
		r.Batch.Incarnation = r.view.incarnation
	}
	if len(r.slow)+len(r.negative) == 0 {
		return nil
	}
	r.d.metrics.misses.Add(float64(len(r.slow)))
	limits := r.labelLimits()
	for _, n := range r.negative {
		i := int(n.series)
		r.refuseSeries(i, labelReasons[n.reason], func() string { return r.whyRefused(i, limits) })
	}
	for _, i := range r.slow {
		lset, reason, why, err := r.buildLabels(int(i), limits)
		switch {
		case err != nil:
			return err
		case reason != "":
			r.refuseSeries(int(i), reason, why)
			if r.keys[i] != (key{}) {
				r.tenant.cache.refuse(r.keys[i], r.view, reason, r.minute)
			}
		default:
			r.Batch.Series[i].Labels = lset
		}
	}
	return nil
}

func (r *request) whyRefused(i int, limits labelLimits) string {
	ls, err := r.parseLabels(r.Labels[i])
	if err != nil {
		return err.Error()
	}
	if _, p := checkLabels(ls, limits); p != nil {
		return p.text()
	}
	return "refused by a limit that has changed since"
}

func (r *request) labelLimits() labelLimits {
	l, id := r.d.limits, r.tenant.id
	return labelLimits{l.MaxLabelNames(id), l.MaxLabelNameLength(id), l.MaxLabelValueLength(id)}
}

// store pushes the batch, and once more, with labels, what came by a reference that the ingester does not know.
func (r *request) store(ctx context.Context) error {
	if err := r.pushBatch(ctx, &r.Batch, &r.result, nil); err != nil {
		return err
	}
	if len(r.result.Stale) == 0 {
		return nil
	}
	r.d.metrics.stale.Add(float64(len(r.result.Stale)))
	if err := r.buildAgain(); err != nil {
		return err
	}
	if err := r.pushBatch(ctx, &r.again, &r.againResult, r.againOf); err != nil {
		return err
	}
	if n := len(r.againResult.Stale); n > 0 {
		return overloaded("the ingester has lost its references twice; %d series are not stored", n)
	}
	return nil
}

// pushBatch pushes b and takes over the verdict. of maps its series to those of r.Batch; nil when it is r.Batch.
func (r *request) pushBatch(ctx context.Context, b *duramenpb.Batch, res *duramenpb.PushResult, of []int32) error {
	res.Reset()
	if err := r.d.pusher.Push(ctx, r.tenant.id, b, res); err != nil {
		return pushError(ctx, err)
	}
	if !accounted(b, res) {
		r.d.metrics.mismatch.Inc()
		r.d.log.ErrorContext(ctx, "push not accounted for", "tenant", r.tenant.id, "floats", len(b.Floats), "stored", res.Floats,
			"histograms", len(b.Histograms), "stored_histograms", res.Histograms, "refusals", len(res.Refused))
		return errkind.New(errkind.Internal, "the ingester's verdict does not account for every sample")
	}
	series := func(j int) int {
		if of != nil {
			j = int(of[j])
		}
		return r.originOf(j)
	}
	r.stored.floats += res.Floats
	r.stored.histograms += res.Histograms
	r.stored.exemplars += res.Exemplars
	for i := range res.Refused {
		f := &res.Refused[i]
		r.refused.add(f.Reason, f.Floats+f.Histograms, func() string {
			return r.describe(series(f.Series)) + " at " + timeText(f.Timestamp) + ": " + f.Detail
		})
	}
	r.remember(b, res, series)
	return nil
}

// pushError gives a kind to a Pusher's error. A cancellation that is not the sender's own must not look like one: it
// would be answered with a status for which senders drop the data.
func pushError(ctx context.Context, err error) error {
	if errkind.Of(err) == errkind.Canceled && ctx.Err() == nil {
		return errkind.Wrap(errkind.Unavailable, err)
	}
	return err
}

// accounted reports whether every sample of b is stored, refused or stale, and nothing is named that b does not have.
func accounted(b *duramenpb.Batch, res *duramenpb.PushResult) bool {
	floats, histograms := res.Floats, res.Histograms
	for i := range res.Refused {
		f := &res.Refused[i]
		if f.Series < 0 || f.Series >= len(b.Series) {
			return false
		}
		floats += f.Floats
		histograms += f.Histograms
	}
	slices.Sort(res.Stale)
	last := -1
	for _, i := range res.Stale {
		if i <= last || i >= len(b.Series) || b.Series[i].Ref == 0 {
			return false
		}
		last = i
		s := &b.Series[i]
		floats += s.FloatsEnd
		histograms += s.HistogramsEnd
		if i > 0 {
			floats -= b.Series[i-1].FloatsEnd
			histograms -= b.Series[i-1].HistogramsEnd
		}
	}
	return floats == len(b.Floats) && histograms == len(b.Histograms)
}

// remember puts the references of series that were sent with labels into the cache.
func (r *request) remember(b *duramenpb.Batch, res *duramenpb.PushResult, series func(int) int) {
	r.tenant.cache.restarts.Store(res.Restarts)
	if len(r.slow)+len(r.tell) == 0 && b == &r.Batch {
		return
	}
	v := r.tenant.cache.learn(r.view, res.Incarnation)
	if v == nil || len(res.Refs) != len(b.Series) {
		return
	}
	for j := range b.Series {
		i := series(j)
		k := r.keys[i]
		if res.Refs[j] == 0 || b.Series[j].Ref != 0 || k == (key{}) {
			continue
		}
		r.tenant.cache.put(k, v, res.Refs[j], r.metaOf(i), r.minute)
	}
	if v == r.view && b == &r.Batch {
		r.rememberMetadata()
	}
	if evicted := r.d.tenants.keepBudget(r.minute); evicted > 0 {
		r.d.metrics.evictions.Add(float64(evicted))
	}
}

// rememberMetadata notes which metadata of known series has been passed on.
func (r *request) rememberMetadata() {
	for _, i := range r.tell {
		if r.fates[i] == byRef {
			r.tenant.cache.told(r.keys[i], r.metas[i])
		}
	}
}

func (r *request) metaOf(i int) uint32 {
	if r.format == format2 {
		return r.metas[i]
	}
	return 0
}

// buildAgain fills r.again with the stale series of the batch, in order, with labels.
func (r *request) buildAgain() error {
	limits := r.labelLimits()
	b, again := &r.Batch, &r.again
	for _, j := range r.result.Stale {
		i := r.originOf(j)
		s := b.Series[j]
		f, h, e := 0, 0, 0
		if j > 0 {
			p := &b.Series[j-1]
			f, h, e = p.FloatsEnd, p.HistogramsEnd, p.ExemplarsEnd
		}
		lset, reason, why, err := r.buildLabels(i, limits)
		if err != nil {
			return err
		}
		if reason != "" { // The limits have changed since the cache learnt of the series.
			n := s.FloatsEnd - f + s.HistogramsEnd - h
			r.refused.add(reason, n, func() string {
				detail := why()
				return r.describe(i) + ": " + detail
			})
			continue
		}
		again.Floats = append(again.Floats, b.Floats[f:s.FloatsEnd]...)
		again.Histograms = append(again.Histograms, b.Histograms[h:s.HistogramsEnd]...)
		again.Exemplars = append(again.Exemplars, b.Exemplars[e:s.ExemplarsEnd]...)
		again.Series = append(again.Series, duramenpb.Series{
			Labels: lset, FloatsEnd: len(again.Floats), HistogramsEnd: len(again.Histograms),
			ExemplarsEnd: len(again.Exemplars),
		})
		r.againOf = append(r.againOf, int32(j))
		if r.format == format2 {
			if err := r.addSeriesMetadata(again, i); err != nil {
				return err
			}
		}
	}
	return nil
}
