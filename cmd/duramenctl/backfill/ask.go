package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/cmd/duramenctl/ask"
	"github.com/duramendb/duramen/internal/cli"
)

const (
	// recent is how far back queries ask ingesters alone; see package querier. The minute is for clocks.
	recent = 11*time.Hour + time.Minute
	// pause is between two questions for a block that was not seen.
	pause = 500 * time.Millisecond
)

// errUnseen means that the server answered, and not with a sample that is in the bucket.
var errUnseen = errors.New("not seen by queries")

// asked counts the blocks by what became of asking.
type asked struct {
	seen   int
	recent int // has no sample that is old enough to be asked of the bucket
}

func (a asked) young() string {
	if a.recent == 0 {
		return ""
	}
	return fmt.Sprintf("; %d have only samples of the last 11 h, which queries see when they are older", a.recent)
}

// probe is a sample to ask for.
type probe struct {
	series labels.Labels
	at     int64 // milliseconds
}

// ask asks the server for one sample of each block until it has answered, or the time is up.
func (u *uploader) ask(ctx context.Context) (a asked, err error) {
	client, err := ask.New(cli.Server{URL: u.s.url, Tenant: u.s.tenant, Access: u.s.access})
	if err != nil {
		return a, err
	}
	defer client.Close()
	end := u.now().Add(u.s.wait)
	for _, l := range u.listed {
		p, ok, err := sampleOf(ctx, l.dir, u.now().Add(-recent).UnixMilli())
		if err != nil {
			return a, fmt.Errorf("block %s: look for a sample: %w", l.id(), err)
		}
		if !ok {
			a.recent++
			continue
		}
		for {
			seen, err := u.seen(ctx, client, p)
			if err != nil && (ctx.Err() != nil || !u.now().Before(end)) {
				return a, fmt.Errorf("block %s: %w", l.id(), err)
			}
			if seen {
				break
			}
			if !u.now().Before(end) {
				return a, fmt.Errorf("block %s: %w: %s has no sample of %s at %s", l.id(), errUnseen, u.s.url, p.series, date(p.at))
			}
			select {
			case <-ctx.Done():
				return a, ctx.Err()
			case <-time.After(pause):
			}
		}
		a.seen++
	}
	return a, nil
}

// sampleOf returns a sample of a block that is older than before, and is no stale marker: queries show none.
func sampleOf(ctx context.Context, dir string, before int64) (p probe, ok bool, err error) {
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	if err != nil {
		return p, false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, before-1)
	if err != nil {
		return p, false, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	set := q.Select(ctx, false, nil, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".*"))
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			at, sum := it.AtT(), 0.0
			switch kind {
			case chunkenc.ValFloat:
				_, sum = it.At()
			default:
				_, h := it.AtFloatHistogram(nil)
				sum = h.Sum
			}
			if !value.IsStaleNaN(sum) && s.Labels().Len() > 0 {
				return probe{s.Labels().Copy(), at}, true, nil
			}
		}
		if err := it.Err(); err != nil {
			return p, false, err
		}
	}
	return p, false, set.Err()
}

// query is the selector of a series at an instant: the range holds no other sample. A label that is external, too, is left
// out: which of the two counts is not decided here.
func (p probe) query(external map[string]string) string {
	var matchers []string
	add := func(name, value string) { matchers = append(matchers, strconv.Quote(name)+"="+strconv.Quote(value)) }
	p.series.Range(func(l labels.Label) {
		if _, both := external[l.Name]; !both {
			add(l.Name, l.Value)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(external)) {
		if !p.series.Has(name) {
			add(name, external[name])
		}
	}
	return "{" + strings.Join(matchers, ",") + "}[1ms]"
}

// seen asks once.
func (u *uploader) seen(ctx context.Context, client *ask.Client, p probe) (bool, error) {
	answer, err := client.PostForm(ctx, "/prometheus/api/v1/query", url.Values{
		"query": {p.query(u.s.labels)}, "time": {strconv.FormatFloat(float64(p.at)/1000, 'f', 3, 64)},
	})
	if err != nil {
		return false, err
	}
	if answer.Status != http.StatusOK {
		return false, answer.Error()
	}
	var body struct {
		Data struct {
			Result []struct {
				Values, Histograms []json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(answer.Body, &body); err != nil {
		return false, fmt.Errorf("answer of %s: %w", u.s.url, err)
	}
	for _, r := range body.Data.Result {
		if len(r.Values)+len(r.Histograms) > 0 {
			return true, nil
		}
	}
	return false, nil
}
