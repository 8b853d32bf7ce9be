package ingester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// openMarkName is a file that exists while a TSDB is open; found at an open, it tells an unclean stop.
	openMarkName = "duramen.open"

	// walCorruptions is stock's count of repairs, of either log.
	walCorruptions = "prometheus_tsdb_wal_corruptions_total"
)

// openOptions says which TSDB to open and how.
type openOptions struct {
	// Dir is the tenant's folder; it is created when missing. Its parent is synced, not what is above that.
	Dir string
	// TSDB are the options for stock's Open.
	TSDB *tsdb.Options
	Log  *slog.Logger
	// SyncFailed is set when walSync named the tenant to onError: the newest segments are written anew.
	SyncFailed bool
}

// openedTSDB is an open TSDB and what was found while opening it. The caller closes DB.
type openedTSDB struct {
	DB *tsdb.DB
	// Incarnation is random, never zero and another one at each open: series references live no longer than it.
	Incarnation uint64
	// Registry is private to this open; stock's counters of this tenant are read from it.
	Registry *prometheus.Registry
	// Exemplars is set when the logs hold some. Otherwise DB has no ring for them, whatever the options say.
	Exemplars bool
	Report    openReport
}

// openTSDB brings a tenant's folder into a state that stock does not have to repair, opens it and reports what was
// found.
//
// Stock repairs a log by deleting all that follows the first record it cannot read, and a torn end is such a record.
// It then runs without the log of out-of-order samples, which it did not get to replay and deletes at the next
// compaction. It repairs a torn checkpoint by deleting the log. So nothing is left for it to repair: the scan finds
// what it would stumble over, and the repair takes out just that. See docs/disk.md.
//
// ctx is asked between steps; replay itself cannot be stopped.
func openTSDB(ctx context.Context, o openOptions) (*openedTSDB, error) {
	out := &openedTSDB{Incarnation: newIncarnation()}
	err := out.open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open tsdb %s: %w", o.Dir, err)
	}
	return out, nil
}

func (t *openedTSDB) open(ctx context.Context, o openOptions) error {
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return err
	}
	if err := t.begin(o); err != nil {
		return err
	}
	deep := t.Report.Unclean || o.SyncFailed
	if err := quarantineBadBlocks(ctx, o.Dir, deep, o.Log); err != nil {
		return err
	}
	aside, err := t.prepareLogs(ctx, o, deep)
	if err != nil {
		return err
	}
	if aside, err = t.replay(ctx, o, aside); err != nil {
		return err
	}
	if err := t.finish(o, aside); err != nil {
		return errors.Join(err, t.DB.Close())
	}
	return nil
}

// begin reads what earlier opens left behind and marks the folder as in use.
func (t *openedTSDB) begin(o openOptions) error {
	mark := filepath.Join(o.Dir, openMarkName)
	switch _, err := os.Stat(mark); {
	case err == nil:
		t.Report.Unclean = true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	var err error
	if t.Report.LostWAL, err = keptAside(o.Dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(o.Dir, rewriteDirName)); err != nil {
		return err
	}
	if t.Report.Unclean {
		return nil
	}
	if err := writeDurable(mark, []byte("This folder is in use, or was when its process ended.\n")); err != nil {
		return err
	}
	return syncDir(filepath.Dir(o.Dir))
}

// prepareLogs scans logs and head chunks and repairs them. It returns the folder that holds the logs as found.
func (t *openedTSDB) prepareLogs(ctx context.Context, o openOptions, deep bool) (aside string, err error) {
	head, err := scanHeadChunks(o.Dir)
	if err != nil {
		return "", err
	}
	if head, err = head.withoutOutOfOrder(o.Dir); err != nil {
		return "", err
	}
	logs, err := scanLogs(ctx, o.Dir, deep, head.last)
	if err != nil {
		return "", err
	}
	t.Exemplars = logs.exemplars
	if aside, err = setAside(o.Dir, time.Now()); err != nil {
		return "", err
	}
	torn, lost := logs.damages()
	for i := range lost {
		lost[i].Aside = aside
	}
	t.noteTails(o, torn)
	if err := t.noteLoss(o, aside, lost); err != nil {
		return "", err
	}
	if t.Report.HeadChunkFiles, err = head.repair(aside); err != nil {
		return "", err
	}
	if err := logs.repair(len(lost) > 0, head.last); err != nil {
		return "", err
	}
	if err := roomForReplay(o.Dir, logs.bytes(), head.bytes); err != nil {
		return "", err
	}
	if o.SyncFailed {
		if err := logs.renewNewest(); err != nil {
			return "", err
		}
	}
	if !deep {
		return aside, nil
	}
	return aside, errors.Join(logs.guardRefs(head.highestSeries), logs.syncAll())
}

// replayReserve is room for what replay writes besides chunks: new segments and a preallocated head chunk file.
const replayReserve = 1 << 20

// roomForReplay refuses a replay that may fill the volume, because stock panics when it cannot write a head chunk, and
// then no tenant of the process is served. Replay writes the finished chunks that are not in chunks_head, which take a
// quarter of the log's size at most unless the values are noise.
func roomForReplay(dir string, logBytes, headBytes int64) error {
	free, _, err := statfs(dir)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	need := uint64(max(0, logBytes/4-headBytes) + replayReserve)
	if free < need {
		return errkind.New(errkind.Unavailable, "volume has %d bytes free, replay needs %d", free, need)
	}
	return nil
}

func (t *openedTSDB) noteTails(o openOptions, torn []logDamage) {
	t.Report.TornTails = append(t.Report.TornTails, torn...)
	for _, d := range torn {
		o.Log.Warn("torn end of write log cut off", "dir", o.Dir, "log", d.Log, "segment", d.Segment, "offset", d.Offset,
			"bytes", d.Bytes, "reason", d.Reason)
	}
}

// noteLoss makes the aside folder permanent when there is something to report.
func (t *openedTSDB) noteLoss(o openOptions, aside string, lost []logDamage) error {
	if len(lost) == 0 {
		return nil
	}
	t.Report.LostWAL = append(t.Report.LostWAL, lost...)
	for _, d := range lost {
		o.Log.Error("write log damaged: acknowledged samples may be lost", "dir", o.Dir, "log", d.Log,
			"segment", d.Segment, "offset", d.Offset, "bytes", d.Bytes, "behind", d.Behind, "reason", d.Reason,
			"kept", d.Aside)
	}
	return keepAside(aside, lost)
}

// replay opens stock's TSDB. Should stock find something to repair all the same, the logs as found are kept, and the
// TSDB is opened once more, because after a repair the log of out-of-order samples was not replayed.
func (t *openedTSDB) replay(ctx context.Context, o openOptions, aside string) (string, error) {
	options := *o.TSDB
	if !t.Exemplars {
		options.MaxExemplars = 0 // most tenants have none: the first that arrives makes the ring
	}
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		t.Registry = prometheus.NewRegistry()
		var err error
		if t.DB, err = tsdb.Open(o.Dir, o.Log, t.Registry, &options, nil); err != nil {
			return "", err
		}
		repairs, err := counterValue(t.Registry, walCorruptions)
		if err == nil && repairs == 0 {
			return aside, nil
		}
		if err == nil {
			err = t.noteLoss(o, aside, []logDamage{{
				Log: walDirName, Aside: aside, Reason: "replay repaired the log by deleting what it could not read",
			}})
		}
		if err == nil && attempt > 1 {
			err = errkind.New(errkind.Corrupt, "write log does not replay after a repair")
		}
		if err = errors.Join(err, t.DB.Close()); err != nil {
			return "", err
		}
		if aside, err = setAside(o.Dir, time.Now()); err != nil {
			return "", err
		}
	}
}

// finish checks that no block was left out, makes new names durable and drops the linked logs unless they are kept.
func (t *openedTSDB) finish(o openOptions, aside string) error {
	missing, err := missingBlocks(o.Dir, t.DB)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return errkind.New(errkind.Corrupt, "block %s and %d others were checked but not opened", missing[0], len(missing)-1)
	}
	if t.Report.Quarantined, err = quarantined(o.Dir); err != nil {
		return err
	}
	for _, name := range []string{walDirName, wlog.WblDirName, "."} {
		if err := syncDir(filepath.Join(o.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(aside, asideReport)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(aside)
}

// markClean records durably that the TSDB in dir was closed in order, after all of its writes succeeded. Call it
// after a Close that returned nil, and never after a write or sync of this open failed.
func markClean(dir string) error {
	err := os.Remove(filepath.Join(dir, openMarkName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("mark %s as closed: %w", dir, err)
	}
	return nil
}

// newIncarnation draws a random number other than zero.
func newIncarnation() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// counterValue returns the sum of a counter's series; a counter that does not exist is an error, for stock renamed it.
func counterValue(reg prometheus.Gatherer, name string) (float64, error) {
	families, err := reg.Gather()
	if err != nil {
		return 0, err
	}
	for _, f := range families {
		if f.GetName() == name && f.GetType() == dto.MetricType_COUNTER {
			var sum float64
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
			return sum, nil
		}
	}
	return 0, fmt.Errorf("no counter %s", name)
}
