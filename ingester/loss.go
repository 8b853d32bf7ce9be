package ingester

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// headSpan is how far behind the clock samples are that go into a log, beside those that are out of order: a head spans
// three hours until it is cut.
const headSpan = 3 * time.Hour

// futureSpan is how far ahead of the clock samples may be.
const futureSpan = 30 * time.Minute

// lossRecorder remembers for queries that samples are gone: a manifest.Owner.
type lossRecorder interface {
	Lost(ctx context.Context, tenant string, l manifest.LostRange) error
}

// lossRecorded is a file beside the report: the manifest knows of the loss.
const lossRecorded = "recorded"

// recordLoss has the manifest say which times the damaged stretches of a tenant's logs can have held, once for each folder
// that was set aside. mint and maxt, both inclusive, are what the head holds now; above one another when that is nothing.
func recordLoss(
	ctx context.Context, to lossRecorder, tenantID string, damages []logDamage, window time.Duration, mint, maxt int64,
) error {
	var errs []error
	asides := map[string]error{}
	for i := range damages {
		d := &damages[i]
		if _, err := os.Stat(filepath.Join(d.Aside, lossRecorded)); err == nil {
			continue
		}
		l, err := d.lostRange(window, mint, maxt)
		if err == nil {
			err = to.Lost(ctx, tenantID, l)
		}
		asides[d.Aside] = errors.Join(asides[d.Aside], err)
	}
	for aside, err := range asides {
		if err == nil {
			err = writeDurable(filepath.Join(aside, lossRecorded), []byte("The manifest says which times are concerned.\n"))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("record what was lost: %w", err)
	}
	return nil
}

// lostRange bounds the samples that the stretch can have held: those that were in order or within window behind the clock
// while the segment was written, and those around what else the log held. When it was written, the times of the files tell
// that were set aside.
func (d *logDamage) lostRange(window time.Duration, mint, maxt int64) (manifest.LostRange, error) {
	begin, end, err := d.written()
	if err != nil {
		return manifest.LostRange{}, fmt.Errorf("damage of %s segment %d: %w", d.Log, d.Segment, err)
	}
	l := manifest.LostRange{
		MinTime: begin.Add(-headSpan - window).UnixMilli(),
		MaxTime: end.Add(futureSpan).UnixMilli() + 1,
		Reason: fmt.Sprintf("%d bytes of the write log %s could not be read, segment %d, kept in %s",
			d.Bytes, d.Log, d.Segment, filepath.Base(d.Aside)),
	}
	if mint <= maxt {
		l.MinTime, l.MaxTime = min(l.MinTime, mint-window.Milliseconds()), max(l.MaxTime, maxt+1)
	}
	return l, nil
}

// LostBefore returns a time in milliseconds since the Unix epoch above that of every sample that damage of a write log can
// have cost, 0 when there was none: this ingester is then like one that lost its disk. It is that of the damages that
// opens found and an operator has not removed.
func (i *Ingester) LostBefore() (before int64) {
	for _, t := range i.tenants.all() {
		l := t.tryAcquire()
		if l == nil {
			continue
		}
		for d := range l.report.LostWAL {
			lost, err := l.report.LostWAL[d].lostRange(0, 1, 0)
			if err != nil {
				continue // the folder was removed meanwhile
			}
			before = max(before, lost.MaxTime)
		}
		l.release()
	}
	return before
}

// written returns from when to when the segment was written. One that is not there, or the only one, was so at some time
// before the folder was set aside.
func (d *logDamage) written() (begin, end time.Time, err error) {
	aside, err := os.Stat(d.Aside)
	if err != nil {
		return begin, end, err
	}
	begin, end = aside.ModTime(), aside.ModTime()
	segments := filepath.Join(d.Aside, filepath.FromSlash(d.Log))
	if info, err := os.Stat(wlog.SegmentName(segments, d.Segment)); err == nil {
		begin, end = info.ModTime(), info.ModTime()
	}
	if strings.Contains(d.Log, "checkpoint") {
		return begin, end, nil // it holds what the head held when it was made
	}
	if info, err := os.Stat(wlog.SegmentName(segments, d.Segment-1)); err == nil && info.ModTime().Before(begin) {
		begin = info.ModTime()
	}
	return begin, end, nil
}
