package ingester

import (
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// holdings is a collector of what the ingester holds, looked at when it is asked: what would have to be counted at every
// turn costs nothing between two scrapes.
type holdings struct {
	tenants *tenants
	free    *freeSpace
	now     func() time.Time
	// logBytes is the size of all write logs when they were last looked at: that takes a look at each folder, so it is done
	// by the tick and not by the scrape.
	logBytes atomic.Int64

	series, head, blocks, unshipped, age, logs, volumeFree, volume, minFree *prometheus.Desc
}

func newHoldings(tenants *tenants, free *freeSpace, now func() time.Time) *holdings {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("duramen_ingester_"+name, help, nil, nil)
	}
	return &holdings{
		tenants: tenants, free: free, now: now,
		series: desc("series", "Series in memory, all tenants together. A rise takes memory."),
		head: desc("longest_head_seconds", "Time between the oldest and the newest sample in memory, of the tenant where it "+
			"is longest. A rise above 3 h that lasts means that blocks are not cut."),
		blocks: desc("local_blocks", "Blocks on the local disk. A rise above about 7 for each tenant means that they cannot "+
			"be deleted, most likely because the bucket does not have them."),
		unshipped: desc("unshipped_blocks", "Local blocks that the bucket is not known to have. A rise that lasts means that "+
			"the bucket is unreachable."),
		age: desc("oldest_unshipped_block_age_seconds", "Time since the oldest block was cut that the bucket is not known to "+
			"have, 0 without one. A rise above some minutes means that shipping fails."),
		logs: desc("wal_bytes", "Bytes of the write logs of all tenants, looked at once a minute. A rise beyond what three "+
			"hours of load take means that blocks are not cut."),
		volumeFree: desc("volume_free_bytes", "Bytes free on the volume of the tenants' folders. A fall to "+
			"duramen_ingester_volume_min_free_bytes means that writes are refused."),
		volume: desc("volume_size_bytes", "Size of the volume of the tenants' folders. A change means another disk."),
		minFree: desc("volume_min_free_bytes", "Free bytes below which writes are refused. A change means another disk or "+
			"setting."),
	}
}

// Describe implements prometheus.Collector.
func (h *holdings) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		h.series, h.head, h.blocks, h.unshipped, h.age, h.logs, h.volumeFree, h.volume, h.minFree,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A volume that does not answer is left out.
func (h *holdings) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	var sum tenantHoldings
	for _, t := range h.tenants.all() {
		if l := t.tryAcquire(); l != nil {
			sum.add(l, h.now())
			l.release()
		}
	}
	send(h.series, float64(sum.series))
	send(h.head, sum.head.Seconds())
	send(h.blocks, float64(sum.blocks))
	send(h.unshipped, float64(sum.unshipped))
	send(h.age, sum.age.Seconds())
	send(h.logs, float64(h.logBytes.Load()))
	free, size, err := h.free.stat(h.free.root)
	if err != nil {
		return
	}
	send(h.volumeFree, float64(free))
	send(h.volume, float64(size))
	send(h.minFree, float64(h.free.least(size)))
}

// tenantHoldings is the sum over tenants that are open; of those that are closed the bucket has everything.
type tenantHoldings struct {
	series            uint64
	blocks, unshipped int
	head, age         time.Duration
}

func (s *tenantHoldings) add(l *life, now time.Time) {
	head, blocks := l.db.Head(), l.db.Blocks()
	s.series += head.NumSeries()
	if mint, maxt := head.MinTime(), head.MaxTime(); mint != math.MaxInt64 && maxt > mint {
		s.head = max(s.head, time.Duration(maxt-mint)*time.Millisecond)
	}
	s.blocks += len(blocks)
	for _, b := range l.blocks.unshipped(blocks) {
		s.unshipped++
		s.age = max(s.age, now.Sub(b.Meta().ULID.Timestamp()))
	}
}

// lookAtLogs measures the write logs of all tenants. A file that goes away meanwhile counts nothing.
func (h *holdings) lookAtLogs() {
	var sum int64
	for _, t := range h.tenants.all() {
		for _, log := range []string{walDirName, wlog.WblDirName} {
			_ = filepath.WalkDir(filepath.Join(t.dir, log), func(_ string, e os.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return nil //nolint:nilerr // gone, or never there
				}
				if info, err := e.Info(); err == nil {
					sum += info.Size()
				}
				return nil
			})
		}
	}
	h.logBytes.Store(sum)
}
