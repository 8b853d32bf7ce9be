package ingester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// tenantLogs is what a scan found in the write logs of one tenant: "wal", its newest checkpoint, and "wbl".
type tenantLogs struct {
	dir  string
	logs []*logScan // in the order of replay
	refs logRefs
	// exemplars is set when a record holds some.
	exemplars bool
}

// logScan is what a scan found in one log folder.
type logScan struct {
	name     string // relative to the tenant's folder, with slashes
	segments []segmentScan
	// missing are numbers without a file in a sequence that must have none; stock refuses to open such a log.
	missing []int
}

type segmentScan struct {
	index    int
	path     string
	size     int64
	bad      []badStretch
	dangling bool // holds markers for head chunks that never reached the disk
}

// logRefs are the highest series references in the logs: of the records that define series and of all others.
type logRefs struct {
	defined, used uint64
}

// scanLogs reads all logs of the tenant and changes nothing. With deep it also decodes each record, as replay will.
// lastChunk is the last head chunk on disk.
func scanLogs(ctx context.Context, dir string, deep bool, lastChunk chunks.ChunkDiskMapperRef) (*tenantLogs, error) {
	t := &tenantLogs{dir: dir}
	walDir := filepath.Join(dir, walDirName)
	first := 0
	checkpoint, index, err := wlog.LastCheckpoint(walDir)
	switch {
	case err == nil:
		first = index + 1
		if err := t.scan(ctx, filepath.Join(walDirName, filepath.Base(checkpoint)), 0, deep, lastChunk); err != nil {
			return nil, err
		}
	case !errors.Is(err, record.ErrNotFound) && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := t.scan(ctx, walDirName, first, deep, lastChunk); err != nil {
		return nil, err
	}
	return t, t.scan(ctx, wlog.WblDirName, -1, deep, lastChunk)
}

// scan reads the segments of one log from number first on; -1 begins with the lowest there is.
func (t *tenantLogs) scan(
	ctx context.Context, name string, first int, deep bool, lastChunk chunks.ChunkDiskMapperRef,
) error {
	l := &logScan{name: filepath.ToSlash(name)}
	numbers, err := segmentNumbers(filepath.Join(t.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	next := first
	if len(numbers) > 0 {
		next = min(next, numbers[0])
	}
	for _, n := range numbers {
		for ; next >= 0 && next < n; next++ {
			l.missing = append(l.missing, next)
		}
		next = n + 1
		if n < first {
			continue // a leftover that the checkpoint replaces
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := t.scanSegment(filepath.Join(t.dir, name), n, deep, lastChunk)
		if err != nil {
			return fmt.Errorf("scan %s: %w", wlog.SegmentName(name, n), err)
		}
		l.segments = append(l.segments, s)
	}
	t.logs = append(t.logs, l)
	return nil
}

func (t *tenantLogs) scanSegment(
	dir string, n int, deep bool, lastChunk chunks.ChunkDiskMapperRef,
) (segmentScan, error) {
	s := segmentScan{index: n, path: wlog.SegmentName(dir, n)}
	r := newRefReader()
	visit := func(rec []byte) error {
		t.exemplars = t.exemplars || r.dec.Type(rec) == record.Exemplars
		if !deep {
			return nil
		}
		found, err := r.read(rec)
		if err != nil {
			return err
		}
		t.refs.defined = max(t.refs.defined, found.defined)
		t.refs.used = max(t.refs.used, found.used)
		s.dangling = s.dangling || r.markerBehind(lastChunk)
		return nil
	}
	var err error
	s.bad, s.size, err = scanSegment(s.path, visit)
	return s, err
}

// segmentNumbers lists the segment files of a log in ascending order; other names are ignored as stock does.
func segmentNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= 0 && !e.IsDir() && !strings.HasPrefix(e.Name(), "+") {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// bytes is the size of all logs.
func (t *tenantLogs) bytes() (n int64) {
	for _, l := range t.logs {
		for _, s := range l.segments {
			n += s.size
		}
	}
	return n
}

// damages splits what the scan found into torn tails of the newest segments, which a kill leaves, and the rest.
func (t *tenantLogs) damages() (torn, lost []logDamage) {
	for _, l := range t.logs {
		newest := -1 // the last segment with any content; a crash while opening leaves empty ones behind it
		for i, s := range l.segments {
			if s.size > 0 {
				newest = i
			}
		}
		for _, n := range l.missing {
			lost = append(lost, logDamage{
				Log: l.name, Segment: n, Behind: l.behind(n, 0), Reason: "segment file is missing",
			})
		}
		for i, s := range l.segments {
			for _, b := range s.bad {
				d := logDamage{
					Log: l.name, Segment: s.index, Offset: b.off, Bytes: b.end - b.off,
					Behind: l.behind(s.index, s.size-b.end), Reason: b.reason.Error(),
				}
				// Checkpoints are synced before they get their name: no kill tears them.
				if b.tail && i == newest && !strings.Contains(l.name, "/") {
					torn = append(torn, d)
				} else {
					lost = append(lost, d)
				}
			}
		}
	}
	return torn, lost
}

// behind sums the bytes of the segments above n and rest.
func (l *logScan) behind(n int, rest int64) int64 {
	for _, s := range l.segments {
		if s.index > n {
			rest += s.size
		}
	}
	return rest
}

// refReader finds the series references in the records of a log.
type refReader struct {
	dec       record.Decoder
	series    []record.RefSeries
	samples   []record.RefSample
	hists     []record.RefHistogramSample
	fhists    []record.RefFloatHistogramSample
	exemplars []record.RefExemplar
	markers   []record.RefMmapMarker
}

func newRefReader() *refReader {
	return &refReader{dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))}
}

// read decodes rec as replay does; an error is one that replay would stop at.
func (r *refReader) read(rec []byte) (refs logRefs, err error) {
	r.markers = r.markers[:0]
	use := func(ref chunks.HeadSeriesRef) { refs.used = max(refs.used, uint64(ref)) }
	switch r.dec.Type(rec) {
	case record.Series:
		r.series, err = r.dec.Series(rec, r.series[:0])
		for i := range r.series {
			refs.defined = max(refs.defined, uint64(r.series[i].Ref))
		}
	case record.Samples, record.SamplesV2:
		r.samples, err = r.dec.Samples(rec, r.samples[:0])
		for i := range r.samples {
			use(r.samples[i].Ref)
		}
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		r.hists, err = r.dec.HistogramSamples(rec, r.hists[:0])
		for i := range r.hists {
			use(r.hists[i].Ref)
		}
		clear(r.hists)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		r.fhists, err = r.dec.FloatHistogramSamples(rec, r.fhists[:0])
		for i := range r.fhists {
			use(r.fhists[i].Ref)
		}
		clear(r.fhists)
	case record.Exemplars:
		r.exemplars, err = r.dec.Exemplars(rec, r.exemplars[:0])
		for i := range r.exemplars {
			use(r.exemplars[i].Ref)
		}
	case record.Tombstones:
		_, err = r.dec.Tombstones(rec, nil)
	case record.Metadata:
		_, err = r.dec.Metadata(rec, nil)
	case record.MmapMarkers:
		r.markers, err = r.dec.MmapMarkers(rec, r.markers)
		for i := range r.markers {
			use(r.markers[i].Ref)
		}
	default:
		// A record of a kind that stock does not know is skipped by replay too.
	}
	return refs, err
}

// markerBehind reports whether the record just read marks a head chunk behind last, one that never reached the disk.
func (r *refReader) markerBehind(last chunks.ChunkDiskMapperRef) bool {
	return slices.ContainsFunc(r.markers, func(m record.RefMmapMarker) bool { return m.MmapRef.GreaterThan(last) })
}
