package querier

import (
	"time"

	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/internal/errkind"
)

// Limits says what a query of a tenant may ask for. Zero means no limit. A limit is asked for when it is needed: it may
// change while the process runs.
type Limits interface {
	MaxFetchedSeriesPerQuery(tenantID string) int
	MaxQueryLength(tenantID string) time.Duration
	// MaxQueuedQueries bounds the queries that wait for their turn, and the remote reads that do.
	MaxQueuedQueries(tenantID string) int
	// RetentionPeriod is how old a sample may be that queries show.
	RetentionPeriod(tenantID string) time.Duration
	// MaxDeletions bounds the deletions of series that are remembered at a time.
	MaxDeletions(tenantID string) int
}

// listsSeries is the Func of hints that ask for the labels of series alone, as Prometheus' API and reader have it.
const listsSeries = "series"

// checkLength refuses a selector that reaches over more time than a tenant may ask for. lookback is what the engine adds
// to any selector, so that a range of exactly the limit passes. mint and maxt are those of the querier, in milliseconds;
// hints, which may be nil, narrow them.
func checkLength(
	limits Limits, tenantID string, lookback time.Duration, mint, maxt int64, hints *storage.SelectHints,
) error {
	most := limits.MaxQueryLength(tenantID)
	if most == 0 || hints != nil && hints.Func == listsSeries {
		return nil
	}
	if hints != nil {
		mint, maxt = max(mint, hints.Start), min(maxt, hints.End)
	}
	if mint > maxt || uint64(maxt)-uint64(mint) <= uint64((most+lookback).Milliseconds()) { // the ends may be far apart
		return nil
	}
	return errkind.New(errkind.Unprocessable,
		"tenant %s: a selector of the query reaches over %s, from %s to %s; the limit max_query_length is %s",
		tenantID, span(mint, maxt), instant(mint), instant(maxt), most)
}

// span and instant write times in milliseconds for people; what a time.Duration cannot hold is "more than 290 years".
func span(mint, maxt int64) string {
	ms := uint64(maxt) - uint64(mint)
	if ms > uint64(time.Duration(1<<63-1).Milliseconds()) {
		return "more than 290 years"
	}
	return (time.Duration(ms) * time.Millisecond).Round(time.Second).String()
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// seriesCount counts the series that the selectors of one query select; a series that two of them select counts twice.
// It adds up what they take as well.
type seriesCount struct {
	tenantID string
	most     int // 0 is no limit
	n        int
	held     held
}

// add counts one more series. The error is of kind Unprocessable, or errMemory.
func (c *seriesCount) add(series storage.Labels) error {
	c.n++
	if c.most == 0 || c.n <= c.most {
		return c.held.add(series)
	}
	return errkind.New(errkind.Unprocessable,
		"tenant %s: the query selects %d series or more; the limit max_fetched_series_per_query is %d",
		c.tenantID, c.n, c.most)
}

// countedSeries ends a set with an error when its query has selected too many series.
type countedSeries struct {
	storage.SeriesSet
	count *seriesCount
	err   error
}

// Next implements storage.SeriesSet.
func (s *countedSeries) Next() bool {
	if s.err != nil || !s.SeriesSet.Next() {
		return false
	}
	s.err = s.count.add(s.SeriesSet.At())
	return s.err == nil
}

// Err implements storage.SeriesSet.
func (s *countedSeries) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// countedChunks is countedSeries for chunks, which are not held: each is let go before the next.
type countedChunks struct {
	storage.ChunkSeriesSet
	count *seriesCount
	err   error
}

// Next implements storage.ChunkSeriesSet.
func (s *countedChunks) Next() bool {
	if s.err != nil || !s.ChunkSeriesSet.Next() {
		return false
	}
	s.err = s.count.add(nil)
	return s.err == nil
}

// Err implements storage.ChunkSeriesSet.
func (s *countedChunks) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.ChunkSeriesSet.Err()
}
