package blockgen

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"golang.org/x/sync/errgroup"
)

// dayMillis is the length of a block of a Grid.
const dayMillis = 24 * 3600 * 1000

// Grid is a set of series with a sample in each interval, in one block for each day. Every value is a function of seed,
// metric, series and the sample's place in its day, so that any answer can be checked without a second store.
type Grid struct {
	// Seed decides the values.
	Seed uint64
	// Metrics is how many metrics there are, Series how many series each of them has.
	Metrics, Series int
	// Interval is the time between two samples in milliseconds; it divides a day.
	Interval int64
	// Start is the begin of the first day in milliseconds since the Unix epoch, a multiple of a day, after 1970.
	Start int64
	// SamplesPerChunk is 120 when it is 0, as Prometheus cuts.
	SamplesPerChunk int
	// SegmentBytes is that of Options.
	SegmentBytes int64
	// NoSidecar leaves out duramen.idx.
	NoSidecar bool
}

// Metric returns the name of a metric.
func (g Grid) Metric(metric int) string { return fmt.Sprintf("grid_metric_%03d", metric) }

// Labels returns the labels of a series.
func (g Grid) Labels(metric, series int) labels.Labels {
	number := fmt.Sprintf("%05d", series)
	return labels.FromStrings(
		labels.MetricName, g.Metric(metric),
		"cluster", "eu-1",
		"container", "app-"+strconv.Itoa(series%9),
		"instance", "10.0."+strconv.Itoa(series/250)+"."+strconv.Itoa(series%250)+":9100",
		"job", "job-"+strconv.Itoa(series%13),
		"namespace", "team-"+strconv.Itoa(series%5),
		"pod", "pod-"+number,
		"zone", string(rune('a'+series%3)),
	)
}

// PerDay is how many samples a series has in a day.
func (g Grid) PerDay() int { return int(dayMillis / g.Interval) }

// Range returns the range of a day's block, half-open.
func (g Grid) Range(day int) (mint, maxt int64) {
	mint = g.Start + int64(day)*dayMillis
	return mint, mint + dayMillis
}

// Time returns the time of sample k of a day. Each series has its own offset within the interval.
func (g Grid) Time(metric, series, day, k int) int64 {
	mint, _ := g.Range(day)
	offset := int64(mix(g.Seed, uint64(metric), uint64(series)) % uint64(g.Interval))
	return mint + offset + int64(k)*g.Interval
}

// Value returns the value of sample k of any day. A third of the metrics are counters, which begin anew each day, a third
// gauges, and a third hardly change.
func (g Grid) Value(metric, series, k int) float64 {
	own := mix(g.Seed, uint64(metric), uint64(series))
	switch metric % 3 {
	case 0:
		rate := own%97 + 3
		return float64(uint64(k)*rate + mix(own, uint64(k), 0)%rate)
	case 1:
		return float64(mix(own, uint64(k), 1)%1000) / 8
	default:
		return float64(own%100 + uint64(k)/60)
	}
}

// mix is a hash of three numbers: two multiplications of 128 bits, folded.
func mix(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	hi, lo = bits.Mul64(hi^lo^0x8bb84b93962eacc9, c^0x2d358dccaa6c78a5)
	return hi ^ lo
}

// Samples is how many samples a day has.
func (g Grid) Samples() int { return g.Metrics * g.Series * g.PerDay() }

// Days calls fn with the block of each day, one after the other. The block's bytes are fn's.
//
// The samples are encoded once: the chunks of the following days differ in their first timestamp only.
func (g Grid) Days(days int, fn func(day int, b *Block) error) error {
	if g.Interval <= 0 || dayMillis%g.Interval != 0 || g.Start <= 0 || g.Start%dayMillis != 0 {
		return fmt.Errorf("grid with an interval of %d ms from %d on: days would not be equal", g.Interval, g.Start)
	}
	series, err := g.encode()
	if err != nil {
		return err
	}
	for day := range days {
		mint, maxt := g.Range(day)
		b, err := Build(Options{
			ULID: ULID(maxt, g.Seed), MinTime: mint, MaxTime: maxt, Level: 3, Sidecar: !g.NoSidecar, SegmentBytes: g.SegmentBytes,
		}, series)
		if err != nil {
			return err
		}
		if err := fn(day, b); err != nil {
			return err
		}
		if day+1 == days {
			return nil
		}
		if err := shift(series, dayMillis); err != nil {
			return err
		}
	}
	return nil
}

// Write writes the blocks of that many days into folders of dir and returns them without their bytes.
func (g Grid) Write(dir string, days int) (blocks []*Block, err error) {
	err = g.Days(days, func(_ int, b *Block) error {
		_, err := b.WriteDir(dir)
		blocks = append(blocks, b.withoutBytes())
		return err
	})
	return blocks, err
}

func (b *Block) withoutBytes() *Block {
	c := *b
	c.Files = nil
	return &c
}

// encode encodes the series of the first day, on all cores.
func (g Grid) encode() ([]Series, error) {
	out := make([]Series, g.Metrics*g.Series)
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for metric := range g.Metrics {
		group.Go(func() error {
			for series := range g.Series {
				cs, err := g.encodeSeries(metric, series)
				if err != nil {
					return err
				}
				out[metric*g.Series+series] = Series{g.Labels(metric, series), cs}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return out, nil
}

func (g Grid) encodeSeries(metric, series int) ([]Chunk, error) {
	perChunk := g.SamplesPerChunk
	if perChunk <= 0 {
		perChunk = 120
	}
	out := make([]Chunk, 0, g.PerDay()/perChunk+1)
	for from := 0; from < g.PerDay(); from += perChunk {
		to := min(from+perChunk, g.PerDay())
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			return nil, err
		}
		begin, end := g.Time(metric, series, 0, from), g.Time(metric, series, 0, to-1)
		for k, t := from, begin; k < to; k, t = k+1, t+g.Interval {
			app.Append(0, t, g.Value(metric, series, k))
		}
		out = append(out, Chunk{begin, end, chunkenc.EncXOR, slices.Clone(c.Bytes()), to - from})
	}
	return out, nil
}

// shift moves all chunks in time, in place. A chunk of floats begins with the number of samples in two bytes and the first
// timestamp; all others are differences. The timestamp must not grow by a byte.
func shift(series []Series, by int64) error {
	var place [binary.MaxVarintLen64]byte
	for _, s := range series {
		for i := range s.Chunks {
			c := &s.Chunks[i]
			_, was := binary.Varint(c.Data[2:])
			c.MinTime, c.MaxTime = c.MinTime+by, c.MaxTime+by
			if n := binary.PutVarint(place[:], c.MinTime); n != was {
				return fmt.Errorf("a timestamp of %d bytes would take %d: choose another start", was, n)
			}
			copy(c.Data[2:], place[:was])
		}
	}
	return nil
}

// ChunkBytes is how many bytes the chunks of a series take in the files of a day, those of all series of the metric when
// series is negative.
func (g Grid) ChunkBytes(metric, series int) (n int64, err error) {
	from, to := series, series+1
	if series < 0 {
		from, to = 0, g.Series
	}
	for s := from; s < to; s++ {
		cs, err := g.encodeSeries(metric, s)
		if err != nil {
			return 0, err
		}
		for _, c := range cs {
			n += int64(len(binary.AppendUvarint(nil, uint64(len(c.Data)))) + 1 + len(c.Data) + 4)
		}
	}
	return n, nil
}
