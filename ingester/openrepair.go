package ingester

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

const (
	// rewriteDirName holds a segment while it is written anew; a leftover is removed at the next open.
	rewriteDirName = ".duramen-rewrite"

	// rewriteSegmentSize is above any size that a segment can have after decompression, so that one stays one.
	rewriteSegmentSize = 1 << 40

	// maxMissingSegments bounds how many empty files replace missing segments: 8,192 segments are 1 TiB of log.
	maxMissingSegments = 8192
)

// repair makes the logs such that stock replays them without repairing: it cuts off torn tails, writes segments anew
// without their bad stretches, and puts empty files in place of missing segments. It keeps every record that can be
// read, where stock's repair deletes all that follow the first that cannot.
//
// Torn tails are cut in place, which needs no room on a full disk, unless keep is set: then the hard links set aside
// must keep seeing the old content.
func (t *tenantLogs) repair(keep bool, lastChunk chunks.ChunkDiskMapperRef) error {
	for _, l := range t.logs {
		dir := filepath.Join(t.dir, filepath.FromSlash(l.name))
		changed := len(l.missing) > 0
		if len(l.missing) > maxMissingSegments {
			return fmt.Errorf("%s lacks %d segments from %d on", l.name, len(l.missing), l.missing[0])
		}
		for _, n := range l.missing {
			if err := os.WriteFile(wlog.SegmentName(dir, n), nil, 0o666); err != nil {
				return err
			}
		}
		for _, s := range l.segments {
			var err error
			switch {
			case len(s.bad) == 1 && s.bad[0].tail && !s.dangling && !keep:
				err = cutFile(s.path, s.bad[0].off)
			case len(s.bad) > 0 || s.dangling:
				err = t.rewrite(s, lastChunk)
			default:
				continue
			}
			if err != nil {
				return fmt.Errorf("repair %s: %w", s.path, err)
			}
			changed = true
		}
		if changed {
			if err := syncDir(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewrite replaces a segment by one with its readable records, without markers for head chunks behind lastChunk.
func (t *tenantLogs) rewrite(s segmentScan, lastChunk chunks.ChunkDiskMapperRef) (err error) {
	tmp := filepath.Join(t.dir, rewriteDirName)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, tmp, rewriteSegmentSize, compression.None)
	if err != nil {
		return err
	}
	refs, enc := newRefReader(), record.Encoder{}
	var failure error // of writing; it must not pass for a record that cannot be read
	_, _, err = scanSegment(s.path, func(rec []byte) error {
		if _, err := refs.read(rec); err != nil {
			return err
		}
		if refs.markerBehind(lastChunk) {
			rec = enc.MmapMarkers(markersUpTo(refs.markers, lastChunk), nil)
		}
		if failure == nil {
			failure = w.Log(rec)
		}
		return nil
	})
	if err := errors.Join(err, failure, w.Close()); err != nil { // Close syncs, and only logs what that returned
		return err
	}
	rewritten := wlog.SegmentName(tmp, 0)
	if err := syncFile(rewritten); err != nil {
		return err
	}
	if err := os.Rename(rewritten, s.path); err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}

func markersUpTo(markers []record.RefMmapMarker, last chunks.ChunkDiskMapperRef) []record.RefMmapMarker {
	var kept []record.RefMmapMarker
	for _, m := range markers {
		if !m.MmapRef.GreaterThan(last) {
			kept = append(kept, m)
		}
	}
	return kept
}

// guardRefs keeps references that outlived their series from being given to another one. When a power cut takes the
// record that defines a series but leaves samples, markers or head chunks that name it, stock skips those, counts new
// series from the highest reference that is defined, and at the next replay adds the old samples to the new series. A
// record of a series without samples, with a reference above all others, moves the count; the head drops that series at
// the end of its replay.
func (t *tenantLogs) guardRefs(highestUsed uint64) error {
	used := max(t.refs.used, highestUsed)
	if used <= t.refs.defined {
		return nil
	}
	dir := filepath.Join(t.dir, walDirName)
	w, err := wlog.NewSize(slog.New(slog.DiscardHandler), nil, dir, wlog.DefaultSegmentSize, compression.None)
	if err != nil {
		return err
	}
	var enc record.Encoder
	ref := chunks.HeadSeriesRef(used + 1)
	guard := record.RefSeries{Ref: ref, Labels: labels.FromStrings("__duramen_guard__", fmt.Sprint(ref))}
	if err := errors.Join(w.Log(enc.Series([]record.RefSeries{guard}, nil)), w.Close()); err != nil {
		return fmt.Errorf("guard series references: %w", err)
	}
	return syncDir(dir)
}

// renewNewest writes the newest two segments of each log to new files and syncs those. After a failed sync the old
// files look whole while their pages are cached, though the disk may not have them and no further sync would say so.
func (t *tenantLogs) renewNewest() error {
	for _, l := range t.logs {
		dir := filepath.Join(t.dir, filepath.FromSlash(l.name))
		for _, s := range l.segments[max(0, len(l.segments)-2):] {
			if err := renewFile(s.path, filepath.Join(t.dir, rewriteDirName)); err != nil {
				return fmt.Errorf("renew %s: %w", s.path, err)
			}
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncAll makes every segment and every name durable. Samples of before a kill may be in the kernel's memory only, and
// a sender that repeats them is told that they are held.
func (t *tenantLogs) syncAll() error {
	for _, l := range t.logs {
		for _, s := range l.segments {
			if err := syncFile(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := syncDir(filepath.Join(t.dir, filepath.FromSlash(l.name))); err != nil {
			return err
		}
	}
	return nil
}

// cutFile shortens a file durably.
func cutFile(path string, size int64) error {
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// renewFile replaces path by a synced copy of itself, written in the folder tmp.
func renewFile(path, tmp string) (err error) {
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.Create(filepath.Join(tmp, filepath.Base(path)))
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Sync()
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	if err := os.Rename(to.Name(), path); err != nil {
		return err
	}
	return os.RemoveAll(tmp)
}
