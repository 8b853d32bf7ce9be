package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type memoryMetrics struct {
	used, limit, entries          prometheus.Gauge
	hits, misses, evicted, passed prometheus.Counter
}

// newMemoryMetrics registers the metrics of the cache called name; others with other names may be there.
func newMemoryMetrics(name string, reg prometheus.Registerer) *memoryMetrics {
	f, labels := promauto.With(reg), prometheus.Labels{"cache": name}
	return &memoryMetrics{
		used: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_used_bytes", ConstLabels: labels,
			Help: "Bytes of memory that the cache holds. It rises to the limit and stays there.",
		}),
		limit: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_limit_bytes", ConstLabels: labels,
			Help: "Bytes of memory that the cache may hold. It changes with the memory limit at start.",
		}),
		entries: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_entries", ConstLabels: labels,
			Help: "Values in the cache. A rise at a full cache means smaller values.",
		}),
		hits: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_hits_total", ConstLabels: labels,
			Help: "Values that were in memory. A rise means that queries ask for the same again.",
		}),
		misses: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_misses_total", ConstLabels: labels,
			Help: "Values that were not in memory. Many against hits, with evictions, mean that the cache is too small.",
		}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_evictions_total", ConstLabels: labels,
			Help: "Values that left to make room. A rise means that more is in use than fits.",
		}),
		passed: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_too_large_total", ConstLabels: labels,
			Help: "Values that were not kept because one alone is larger than the limit. A rise means that the limit is far " +
				"too small.",
		}),
	}
}

type rangesMetrics struct {
	reads, requests, shared, refetches, broken prometheus.Counter
	asked, fetched, fromDisk                   prometheus.Counter
}

func newRangesMetrics(reg prometheus.Registerer) *rangesMetrics {
	f := promauto.With(reg)
	return &rangesMetrics{
		reads: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_reads_total",
			Help: "Reads of ranges of an object by queries. A rise means more queries, or queries over more blocks.",
		}),
		requests: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_requests_total",
			Help: "Requests to the bucket made for reads. A rise at steady reads means that less is found on the local disk.",
		}),
		shared: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_shared_total",
			Help: "Requests that were not made because another read waited for the same bytes. A rise means queries that ask " +
				"for the same at the same time.",
		}),
		refetches: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_refetches_total",
			Help: "Reads repeated past the caches because the bytes were damaged. A rise means damage in the bucket, on the " +
				"way from it, or on the local disk.",
		}),
		broken: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_broken_bodies_total",
			Help: "Answers of the bucket that broke off and were asked for again. A rise means a bad way to the bucket.",
		}),
		asked: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_asked_bytes_total",
			Help: "Bytes that reads asked for. A rise means that queries read more data.",
		}),
		fetched: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_fetched_bytes_total",
			Help: "Bytes that came from the bucket, gaps between wanted ones too. A rise at steady asked bytes means colder " +
				"caches.",
		}),
		fromDisk: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_disk_bytes_total",
			Help: "Bytes that came from the local disk in place of the bucket. A rise means a warm cache.",
		}),
	}
}

type diskMetrics struct {
	used, limit, extents, indexBytes, off prometheus.Gauge
	hitBytes, missBytes                   prometheus.Counter
	written, dropped                      prometheus.Counter
	evicted, rescued, promoted, damaged   prometheus.Counter
	failures                              *prometheus.CounterVec
}

func newDiskMetrics(reg prometheus.Registerer) *diskMetrics {
	f := promauto.With(reg)
	return &diskMetrics{
		used: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_disk_used_bytes",
			Help: "Bytes that the disk cache takes, or is about to take. It rises to the limit and stays near it; it falls " +
				"when the volume runs full.",
		}),
		limit: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_disk_limit_bytes",
			Help: "Most bytes that the disk cache takes. It changes at start only.",
		}),
		extents: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_disk_extents",
			Help: "Ranges of objects that the disk cache has. It rises after a start, while the directory is read.",
		}),
		indexBytes: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_disk_index_bytes",
			Help: "Memory that knowing what lies in the disk cache takes. It rises with the number of extents.",
		}),
		off: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_disk_off",
			Help: "Whether the disk cache is not used for a while, 1 or 0. 1 means that the disk failed several times in a row.",
		}),
		hitBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_hit_bytes_total",
			Help: "Bytes that were on disk. A rise means a warm cache.",
		}),
		missBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_miss_bytes_total",
			Help: "Bytes that were not on disk. Many against hits, with evictions, mean that the disk cache is too small.",
		}),
		written: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_written_bytes_total",
			Help: "Bytes written to the disk cache. A rise means that new data is read, or that extents are kept longer.",
		}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_dropped_bytes_total",
			Help: "Bytes that were not kept because the disk failed or its volume is full. A rise means that a repeated query " +
				"goes to the bucket again.",
		}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_evicted_slots_total",
			Help: "Files of the disk cache that left to make room. A rise means that more is read than fits.",
		}),
		rescued: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_rescued_extents_total",
			Help: "Extents that were copied from files that had to leave, because queries had asked for them again. A rise " +
				"with evictions means that the cache is small for what is asked for often.",
		}),
		promoted: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_promoted_slots_total",
			Help: "Files that stayed when their time came because queries had asked for most of them again. A rise with " +
				"evictions means that the cache is small for what is asked for often.",
		}),
		damaged: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_disk_damaged_total",
			Help: "Extents on disk whose bytes were not those that were written. They were read from the bucket. A rise " +
				"without a crash before it means a bad disk.",
		}),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_cache_disk_failures_total",
			Help: "Operations that the disk of the cache refused. A rise means a bad, full or removed disk; queries are slower " +
				"and go on.",
		}, []string{"operation"}),
	}
}
