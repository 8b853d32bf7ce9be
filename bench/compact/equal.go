package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// equal compares two blocks sample by sample.
func equal(a, b string) (samples uint64, err error) {
	x, closeX, err := read(a)
	if err != nil {
		return 0, err
	}
	defer closeX()
	y, closeY, err := read(b)
	if err != nil {
		return 0, err
	}
	defer closeY()
	for {
		more := x.Next()
		if more != y.Next() {
			return samples, errors.New("one has more series than the other")
		}
		if !more {
			return samples, errors.Join(x.Err(), y.Err())
		}
		n, err := equalSeries(x.At(), y.At())
		if err != nil {
			return samples, err
		}
		samples += n
	}
}

// read returns all series of a block.
func read(dir string) (storage.SeriesSet, func(), error) {
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	if err != nil {
		return nil, nil, err
	}
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	all := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	return q.Select(context.Background(), true, nil, all), func() { _ = errors.Join(q.Close(), b.Close()) }, nil
}

func equalSeries(a, b storage.Series) (samples uint64, err error) {
	if labels.Compare(a.Labels(), b.Labels()) != 0 {
		return 0, fmt.Errorf("series %s beside %s", a.Labels(), b.Labels())
	}
	x, y := a.Iterator(nil), b.Iterator(nil)
	for {
		tx, ty := x.Next(), y.Next()
		if tx != ty {
			return samples, fmt.Errorf("series %s: one has more samples than the other", a.Labels())
		}
		if tx == chunkenc.ValNone {
			return samples, errors.Join(x.Err(), y.Err())
		}
		t1, v1 := x.At()
		t2, v2 := y.At()
		if t1 != t2 || math.Float64bits(v1) != math.Float64bits(v2) {
			return samples, fmt.Errorf("series %s: %v at %d beside %v at %d", a.Labels(), v1, t1, v2, t2)
		}
		samples++
	}
}
